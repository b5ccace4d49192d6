"""The loop's page as a person meets it: in Chromium, its numbers counted again from the files they come from."""

from __future__ import annotations

import io
import json
import re
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from PIL import Image

from medreasoner.imaging import open_image
from monailabel_app.gateway.errors import Unavailable
from monailabel_app.gateway.loop import page as page_module
from monailabel_app.gateway.loop import plots
from monailabel_app.gateway.loop.collecting import Collector
from monailabel_app.gateway.loop.figures import Figures, Modality, Training, binned
from monailabel_app.gateway.loop.page import render
from monailabel_app.gateway.loop.thumbnails import Thumbnails
from monailabel_app.gateway.tokens import Role, new_token
from tests.app.department import Department, at_work, make_department, show
from tests.app.server import RunningServer
from tests.browser import Browser

PLOTS = ("labels", "overlap", "disagreement", "failures")


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Department:
    return make_department(tmp_path_factory.mktemp("department"))


@pytest.fixture(scope="module")
def address(department: Department) -> Iterator[str]:
    with department.served() as url:
        yield url


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile"), 1180, 900) as found:
        show(found, f"{address}/loop")
        yield found
        assert found.errors == []


def table(browser: Browser, name: str) -> list[list[str]]:
    """The rows of a plot's table without its head, also while it is folded away."""
    rows = f"[...document.querySelectorAll('#t-{name} tr')].slice(1)"
    return browser.run(f"{rows}.map(r => [...r.cells].map(c => c.textContent.trim().replace(/\\s+/g, ' ')))")


def test_labels_are_counted_by_the_day_that_their_record_names(browser: Browser, department: Department) -> None:
    saved = [
        json.loads(file.read_text())["info"]["medreasoner"]["saved_at"][:10]
        for file in (department.studies / "medreasoner_labels" / "final").glob("*.json")
    ]
    days = sorted(Counter(saved).items())
    in_all = accumulate(count for _, count in days)
    expected = [[day, str(count), str(total)] for (day, count), total in zip(days, in_all, strict=True)]
    assert table(browser, "labels") == expected[::-1]
    assert browser.text("#labels") == str(len(saved))


def test_checkpoints_show_what_their_lineages_say(browser: Browser, department: Department) -> None:
    found = [json.loads(file.read_text()) for file in sorted(department.registry.glob("0*/lineage.json"))]
    expected = [
        [
            str(one["number"]),
            one["made_at"][:10],
            str(one["labels"]),
            f"{one['challenger']['box_iou']:.3f}",
            f"{one['challenger']['dice']:.3f}",
            "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**one["difference"]),
            one["reason"],
        ]
        for one in found
    ]
    shipped = found[0]["champion"]
    first = ["0", "", "0", f"{shipped['box_iou']:.3f}", f"{shipped['dice']:.3f}", "", "as shipped"]
    assert table(browser, "overlap") == [*expected[::-1], first]
    assert [one["published"] for one in found] == [True, False, True, True]
    number = json.loads((department.registry / "champion.json").read_text())["number"]
    assert browser.text("#champion") == f"no. {number}"
    assert browser.run("document.querySelector('tr[aria-current] td').textContent") == str(number)


def test_disagreement_is_counted_by_tenths(browser: Browser, department: Department) -> None:
    counts = np.histogram(list(department.scores.values()), bins=10, range=(0, 1))[0]
    assert [int(row[1]) for row in table(browser, "disagreement")] == counts.tolist()
    assert table(browser, "disagreement")[0][0] == "0.0 to 0.1"
    assert browser.text("#scored") == str(len(department.scores))


def test_failures_are_those_of_the_reasoner_in_service(browser: Browser, department: Department) -> None:
    number = json.loads((department.registry / "champion.json").read_text())["number"]
    lineage = json.loads((department.registry / f"{number:04d}" / "lineage.json").read_text())
    expected = [
        [name, str(found["n"]), str(found["failures"]), f"{100 * found['failures'] / found['n']:.0f} %"]
        for name, found in sorted(lineage["challenger"]["by_modality"].items())
    ]
    assert table(browser, "failures") == expected


def test_the_next_cases_are_the_ten_without_label_that_disagree_most(browser: Browser, department: Department) -> None:
    labelled = {file.stem for file in (department.studies / "medreasoner_labels" / "final").glob("*.json")}
    open_cases = {image: score for image, score in department.scores.items() if image not in labelled}
    expected = sorted(open_cases, key=lambda image: -open_cases[image])[:10]
    shown = browser.run("[...document.querySelectorAll('.cases li')].map(e => e.innerText.trim())")
    assert [text.split("\n")[-1] for text in shown] == expected
    assert [text.split()[0] for text in shown] == [f"{open_cases[image]:.2f}" for image in expected]
    assert "Where do the nerve fibres leave the eye?" in " ".join(shown)


def test_a_thumbnail_is_the_image_s_middle_slice(address: str, department: Department) -> None:
    reply = httpx.get(f"{address}/loop/thumbnail", params={"image": "brain-a"})
    assert reply.headers["content-type"] == "image/jpeg"
    assert len(reply.content) < 20_000
    got = Image.open(io.BytesIO(reply.content)).convert("RGB")
    whole = Image.fromarray(open_image(department.studies / "brain-a.nii").picture().pixels)
    difference = np.asarray(got, float) - np.asarray(whole.resize(got.size), float)
    assert np.abs(difference).mean() < 6  # JPEG's


def test_a_thumbnail_follows_its_file(address: str, department: Department) -> None:
    file = department.studies / "changing.png"
    for grey in (30, 220):
        Image.new("L", (64, 64), grey).save(file)
        content = httpx.get(f"{address}/loop/thumbnail", params={"image": "changing"}).content
        assert np.asarray(Image.open(io.BytesIO(content))).mean() == pytest.approx(grey, abs=2)
    file.unlink()


@pytest.mark.parametrize("image", ["", "nothing", "../models/local/state", "/etc/passwd", "1.2.3.4"])
def test_there_is_no_thumbnail_of_what_is_not_listed(address: str, image: str) -> None:
    reply = httpx.get(f"{address}/loop/thumbnail", params={"image": image})
    assert (reply.status_code, reply.json()["hint"]) == (404, "ask for one of the listed images")


def test_only_so_many_thumbnails_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    pictures = Thumbnails(None)
    monkeypatch.setattr(pictures, "_of", lambda image: (may_go_on.wait(30), image.encode())[1])
    promised = [pictures.promised(str(n)) for n in range(64)]
    with pytest.raises(Unavailable, match="too many pictures"):
        pictures.promised("one more")
    may_go_on.set()
    assert [p.result(30) for p in promised] == [str(n).encode() for n in range(64)]
    assert pictures.promised("again").result(30) == b"again"
    pictures.close()


def test_every_plot_has_its_words_and_its_numbers(browser: Browser) -> None:
    for name in PLOTS:
        section = f"document.querySelector('#h-{name}').parentElement"
        assert len(browser.run(f"{section}.querySelector('img').alt")) > 30
        assert browser.run(f"!!{section}.querySelector('details table th[scope=col]')")
    assert browser.run("[...document.images].every(i => i.alt)")
    assert browser.run("[document.documentElement.lang, document.querySelectorAll('h1').length]") == ["en", 1]
    assert browser.run("!!document.querySelector('progress[aria-label]')")


def test_it_loads_nothing_from_elsewhere_and_runs_no_script(browser: Browser, address: str) -> None:
    fetched = browser.run("performance.getEntriesByType('resource').map(e => e.name)")
    assert len([name for name in fetched if name.startswith(f"{address}/loop/thumbnail?")]) == 10
    assert all(name.startswith((address, "data:image/svg+xml")) for name in fetched)
    assert browser.run("document.querySelectorAll('script, link, iframe, a, form').length") == 0
    reply = httpx.get(f"{address}/loop")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["cache-control"] == "no-store"
    assert not re.search(r"style=|Patient|\bid=\"?\d", reply.text)


@pytest.mark.parametrize(("scheme", "darker"), [("light", "ink"), ("dark", "ground")])
def test_light_and_dark_and_a_screenshot_of_each(
    browser: Browser, address: str, tmp_path: Path, scheme: str, darker: str
) -> None:
    show(browser, f"{address}/loop", scheme)
    style = browser.run("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    ink, ground = (sum(map(int, re.findall(r"\d+", colour))) for colour in style)  # the policy lets the style in
    assert (ink < ground) is (darker == "ink")
    theme = getattr(plots, scheme.upper())
    svg = browser.run("atob(document.querySelector('.plots img').currentSrc.split(',')[1])")
    assert theme.blue in svg
    browser.screenshot(tmp_path / "page.png")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"), float)
    assert (pixels.mean() > 128) == (scheme == "light")
    assert pixels.shape[0] > 1200
    assert pixels.std() > 20


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, address: str) -> None:
    show(browser, f"{address}/loop", width=390)
    assert browser.run("document.documentElement.scrollWidth") == 390
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") == 390  # wide tables scroll within their frame
    show(browser, f"{address}/loop")


def test_colours_keep_the_contrast_that_wcag_asks_for() -> None:
    """4.5 for text, by the formula of WCAG 2.2, on the cards and on the ground."""
    palettes = re.findall(r":root \{([^}]*--ground[^}]*)\}|:root \{([^}]*--ground[^}]*)\}", page_module._STYLE)
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", "".join(found))) for found in palettes)
    for colours, theme in ((light, plots.LIGHT), (dark, plots.DARK)):
        for text in (colours["ink"], colours["soft"], theme.ink, theme.blue, theme.orange):
            assert _contrast(text, colours["card"]) >= 4.5
        assert min(_contrast(colours[name], colours["ground"]) for name in ("ink", "soft")) >= 4.5


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    shares = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_an_empty_department_is_told_what_to_do_next() -> None:
    html = render(Figures(images=0)).decode()
    assert "<img" not in html
    assert html.count('class="empty"') == len(PLOTS) + 1
    for step in ("Copy DICOM", "correct the answer and save it", "POST /train/medreasoner", "scoring"):
        assert step in html


def test_words_of_users_stay_words() -> None:
    training = Training("failed", 0.5, 1, 2, "<img src=x onerror=alert(1)>")
    html = render(Figures(images=1, training=training)).decode()
    assert "&lt;img src=x" in html
    assert "<img" not in html


def test_a_modality_is_no_formula() -> None:
    """matplotlib reads what stands between dollars as mathematics, and refuses what is wrong there."""
    name = "$\\frac{$ <b>"
    plot = plots.failures_by_modality((Modality(name, 10, 2),))
    words = "".join(ElementTree.fromstring(plot.light).itertext())
    assert name in words


def test_only_what_has_changed_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = Figures(images=3, bins=binned([0.05, 0.5, 1.0]), training=Training("training", 0.1, 1, 10, ""))
    first = render(figures)
    monkeypatch.setattr(plots, "_svg", lambda *_: pytest.fail("drawn again"))
    assert render(replace(figures)) is first
    later = render(replace(figures, training=Training("training", 0.2, 2, 10, "")))
    assert b"step 2 of 10" in later


def test_ten_thousand_labels_are_read_once_and_no_image_is_opened(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reads = department.store, []
    stamps = {f"case-{n}": 10**18 + n // 100 * 86_400 * 10**9 for n in range(10_000)}
    info = {"medreasoner": {"saved_at": "2026-11-27T10:00:00.000+00:00"}}
    monkeypatch.setattr(store, "label_stamps", lambda _: dict(stamps))
    monkeypatch.setattr(store, "list_images", lambda: list(stamps))
    monkeypatch.setattr(store, "notes", lambda: {n: {"medreasoner": {"scores": {"disagreement": 0.5}}} for n in stamps})
    monkeypatch.setattr(store, "get_label_info", lambda image, _: reads.append(image) or info)
    for touched in ("get_image_uri", "image_facts", "get_image_info"):
        monkeypatch.setattr(store, touched, lambda *_: pytest.fail("an image was looked at"))
    collector = Collector(store, department.champions)
    assert collector.figures().labels == len(reads) == 10_000
    stamps["case-7"] += 1
    del stamps["case-8"]
    figures = collector.figures()
    assert (figures.labels, figures.scored, len(figures.next_cases)) == (9_999, 9_999, 10)
    assert reads[10_000:] == ["case-7"]


def test_a_training_is_under_way_or_was_interrupted(browser: Browser, address: str, department: Department) -> None:
    with at_work(department.registry):
        show(browser, f"{address}/loop")
        assert browser.text("#training") == "training"
        assert "step 48 of 120" in browser.text(".tile:last-child")
        assert browser.run("document.querySelector('progress').value") == 0.4
    show(browser, f"{address}/loop")
    assert browser.text("#training") == "interrupted"


def test_a_champion_that_cannot_be_loaded_is_told(department: Department) -> None:
    collector = Collector(department.store, department.champions)
    html = render(collector.figures("number 4 cannot be loaded; number 3 answers on")).decode()
    assert "number 3 answers on" in html
    assert 'id="trouble"' not in render(collector.figures()).decode()


@pytest.fixture(scope="module")
def guarded(department: Department, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    token, line = new_token("ann", Role.READER)
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(line)
    with department.served(file) as url:
        yield url, token


@pytest.mark.parametrize("path", ["/loop", "/loop/thumbnail?image=fundus-a"])
def test_with_tokens_it_asks_for_one(guarded: tuple[str, str], path: str) -> None:
    url, token = guarded
    refused = httpx.get(url + path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")  # so that a browser asks its user
    for wrong in ("x", f"x:{token}x", token, "é:é"):
        basic = b64encode(wrong.encode()).decode()
        assert httpx.get(url + path, headers={"Authorization": f"Basic {basic}"}).status_code == 401
    assert httpx.get(url + path, headers={"Authorization": "Basic %%%"}).status_code == 401
    assert httpx.get(url + path, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert httpx.get(url + path, auth=("any name", token)).status_code == 200


def test_what_a_browser_sends_by_itself_opens_no_other_address(guarded: tuple[str, str]) -> None:
    url, token = guarded
    for path in ("/info/", "/datastore/", "/metrics", "/datastore/image?image=fundus-a"):
        assert httpx.get(url + path, headers={"Authorization": f"Bearer {token}"}).status_code == 200
        refused = httpx.get(url + path, auth=("ann", token))
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_a_browser_that_was_given_the_token_gets_the_thumbnails_too(guarded: tuple[str, str], tmp_path: Path) -> None:
    url, token = guarded
    with Browser(tmp_path) as page:
        show(page, url.replace("//", f"//ann:{token}@") + "/loop")
        assert page.run("[...document.querySelectorAll('.cases img')].filter(i => i.naturalWidth).length") == 10


def test_the_real_server_counts_a_label_as_soon_as_it_is_saved(server: RunningServer, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray(np.eye(512, dtype=np.uint8)).save(mask)
    with server.client() as client, Browser(tmp_path / "profile") as page:

        def count() -> int:
            page.open(f"{server.url}/loop")
            return int(page.wait("document.readyState === 'complete' && document.querySelector('#labels').innerText"))

        before = count()
        saved = client.put(
            "/datastore/label?image=retina&tag=final", files={"label": mask.open("rb")}, data={"params": "{}"}
        )
        assert saved.is_success, saved.text
        try:
            assert count() == before + 1
            assert table(page, "labels")[0][0] == str(datetime.now(timezone.utc).date())
            total = client.get("/datastore/").json()["total"]
            assert f"{total} images in all" in page.text(".tile")
        finally:
            client.delete("/datastore/label?id=retina&tag=final")
        assert count() == before
