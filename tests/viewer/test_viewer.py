"""The viewer as a person meets it: its own process, a real browser, the embedded models."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.viewer.test_reading import BRAIN, DISC, RETINA


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def address(saved: Path) -> Iterator[str]:
    command = [
        sys.executable,
        "-u",
        "-m",
        "viewer_app",
        str(RETINA),
        "--port",
        "0",
        "--no-browser",
        "--out",
        str(saved),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = ""
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\S+", line):
                break
        else:
            pytest.fail(f"the viewer did not start:\n{said}")
        yield found[0]
        process.terminate()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as page:
        page.open(address)
        page.wait("document.querySelector('#stage image')")
        yield page
        assert page.errors == []


def box(browser: Browser) -> list[float]:
    return browser.run(
        "(e => e && ['x', 'y', 'width', 'height'].map(n => +e.getAttribute(n)))(document.querySelector('#box'))"
    )


def idle(browser: Browser) -> None:
    browser.wait("!document.querySelector('#busy')")


def test_asks_and_shows_the_answer(browser: Browser) -> None:
    browser.type("#question", DISC)
    browser.press("Enter", control=True)
    browser.wait("document.querySelector('#reasoning')", 120)
    idle(browser)
    assert "optic disc" in browser.text("#reasoning")
    x, y, *_ = box(browser)
    assert 90 < x < 160
    assert 520 < y < 580
    assert browser.run("document.querySelectorAll('.point').length") == 2
    assert browser.run("!!document.querySelector('#mask')")


def test_a_dragged_corner_gets_a_new_mask_without_the_reasoner(browser: Browser) -> None:
    before, mask = box(browser), browser.run("document.querySelector('#mask').getAttribute('href')")
    corner = browser.run(
        "(r => [r.x + r.width / 2, r.y + r.height / 2])"
        "(document.querySelectorAll('.corner')[2].getBoundingClientRect())"
    )
    browser.drag(tuple(corner), (corner[0] - 20, corner[1] - 30))
    browser.wait(f"(m => m && m.getAttribute('href') !== {mask!r})(document.querySelector('#mask'))")
    idle(browser)
    after = box(browser)
    assert after[:2] == pytest.approx(before[:2], abs=0.1)
    assert after[2] < before[2] - 20
    assert after[3] < before[3] - 30
    assert "optic disc" in browser.text("#reasoning")
    browser.click("#undo")
    browser.wait(f"document.querySelector('#mask').getAttribute('href') === {mask!r}")
    assert box(browser) == pytest.approx(before)


def test_says_what_is_not_there_and_lets_a_box_be_drawn(browser: Browser) -> None:
    browser.type("#question", "Which vertebra is fractured?")
    browser.click("#ask")
    browser.wait("document.querySelector('#absent')", 120)
    idle(browser)
    assert box(browser) is None
    browser.click("#draw")
    left, top, scale = browser.run("(m => [m.e, m.f, m.a])(document.querySelector('#stage').getScreenCTM())")
    browser.drag((left + 120 * scale, top + 565 * scale), (left + 290 * scale, top + 765 * scale))
    browser.wait("document.querySelector('#mask')")
    idle(browser)
    assert box(browser) == pytest.approx([120, 565, 170, 200], abs=2)
    browser.wait("!document.querySelector('#absent')")


def test_saves_what_is_on_the_page(browser: Browser, saved: Path) -> None:
    browser.click("#save")
    browser.wait("(document.querySelector('#status') || {}).innerText?.includes('saved')")
    assert {p.suffix for p in saved.iterdir()} == {".png", ".json"}


def test_opens_another_image_and_turns_its_pages(browser: Browser) -> None:
    browser.type("#path", str(BRAIN))
    browser.click("#open")
    browser.wait("document.body.innerText.includes('slice 12 of 0 to 24')")
    shown = browser.run("document.querySelector('#picture').getAttribute('href')")
    browser.click("[value=sagittal]")
    browser.wait("document.body.innerText.includes('of 0 to 32')")
    assert browser.run("document.querySelector('#picture').getAttribute('href')") != shown
    assert box(browser) is None


def test_an_error_says_what_to_do(browser: Browser) -> None:
    browser.type("#path", "/nowhere/at/all.nii")
    browser.click("#open")
    browser.wait("document.querySelector('#error')")
    assert "check the path" in browser.text("#error")
    assert browser.run("!!document.querySelector('#picture')")


@pytest.mark.parametrize(("port", "said"), [("TAKEN", "in use"), ("70000", "127.0.0.1:70000 cannot be used")])
def test_a_port_that_cannot_be_had_is_said_before_the_models_are_loaded(port: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = port.replace("TAKEN", str(other.getsockname()[1]))
        command = [sys.executable, "-m", "viewer_app", "--port", port, "--reasoner", "/nowhere"]
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_another_page_without_the_key_reaches_nothing(address: str, tmp_path: Path) -> None:
    with Browser(tmp_path) as stranger:
        stranger.open(address.partition("?")[0])
        time.sleep(3)
        assert not stranger.run("!!document.querySelector('#stage')")
        assert "optic disc" not in stranger.run("document.documentElement.outerHTML")
