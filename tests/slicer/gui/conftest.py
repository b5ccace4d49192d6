"""Tests of the panel. They change PySide6's classes: tests/slicer/test_panel.py runs them in a process of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.slicer import phantom
from tests.slicer.scripted_server import Scripted, scripted_server
from tests.slicer.stand_in.host import install_host
from tests.slicer.stand_in.qt_binding import run_events


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stand-in for Slicer, with one QApplication."""
    from PySide6 import QtWidgets

    application = install_host(tmp_path_factory.mktemp("settings"))
    application.qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    return application


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as scripted:
        yield scripted


@pytest.fixture
def panel(host: Any, server: Scripted) -> Iterator[Any]:
    """The module's widget, set up as Slicer does it, with the scripted server's address and fresh settings."""
    import qt

    qt.QSettings().clear()
    host.close_scene()
    from MedReasoner import MedReasonerWidget

    widget = MedReasonerWidget()
    widget.setup()
    widget.parent.resize(420, 900)
    widget.parent.show()
    widget.ui.addressBox.setCurrentText(server.address)
    settle()
    yield widget
    widget.cleanup()
    widget.parent.close()
    host.close_scene()


def settle(seconds: float = 0.15) -> None:
    """Let the event loop run for a while, and once more for timers that became due on a busy machine."""
    run_events(round(seconds * 1000))
    run_events(10)


def until(done: Callable[[], Any], seconds: float = 15.0) -> None:
    """Run the event loop until something holds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        run_events(5)


def show(host: Any, panel: Any) -> Any:
    """The phantom in the red view, at a slice through its block."""
    volume = phantom.volume()
    host.show(volume).GetSliceNode().SetSliceOffset(55.5 + 9 * phantom.SPACING[2])
    settle()
    assert panel.ui.drawButton.enabled
    return volume


def ask(panel: Any, question: str, consent: bool = True, wait: bool = True) -> None:
    """Type a question, press Ask, agree to the upload, and wait for the end."""
    panel.ui.questionEdit.plainText = question
    click(panel.ui.askButton)
    if consent and panel.ui.consentFrame.visible:
        click(panel.ui.allowButton)
    assert not panel.ui.consentFrame.visible
    if wait:
        until(lambda: not panel.logic.is_busy)


def click(button: Any) -> None:
    import qt

    assert button.enabled, f"{button.name} is disabled"
    button.click() if isinstance(button, qt.QCheckBox) else qt.QTest.mouseClick(button, qt.Qt.LeftButton)


def nodes(host: Any) -> set[str]:
    return {host.scene.GetNthNode(n).GetID() for n in range(host.scene.GetNumberOfNodes())}
