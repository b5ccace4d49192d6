"""Typing, asking, cancelling, errors: the module's real file and .ui, driven by keys and clicks, over real HTTP."""

from __future__ import annotations

import re
import socket
from typing import Any

import numpy as np
import pytest
import slicer

from tests.slicer import phantom
from tests.slicer.gui.conftest import ask, click, nodes, settle, show, until
from tests.slicer.scripted_server import REASONING, Scripted, scripted_server


def test_ctrl_return_asks_and_the_answer_is_drawn(panel: Any, host: Any, server: Scripted) -> None:
    import qt

    show(host, panel)
    panel.ui.questionEdit.setFocus()
    qt.QTest.keyClicks(panel.ui.questionEdit, "Where is the block?")
    qt.QTest.keyClick(panel.ui.questionEdit, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    click(panel.ui.allowButton)
    until(lambda: not panel.logic.is_busy)
    assert panel.ui.statusLabel.text == "Answered."
    assert panel.ui.answerTitle.text == "bright block · confidence 0.83"
    assert REASONING in panel.ui.reasoningBrowser.plainText
    answer = panel.logic.current
    on_slice = phantom.block().copy()
    on_slice[:9] = on_slice[10:] = 0
    np.testing.assert_array_equal(answer.mask.full(phantom.SIZE), on_slice)
    assert (answer.box.GetDisplayVisibility(), answer.points.GetNumberOfControlPoints()) == (1, 2)
    assert server.asked[0]["question"] == "Where is the block?"
    assert (server.asked[0]["axis"], server.asked[0]["slice_index"]) == ("axial", 9)
    assert panel.ui.questionEdit.plainText == "Where is the block?"  # no stray line break


def test_the_shortcut_works_in_the_question_box_only(panel: Any, host: Any, server: Scripted) -> None:
    import qt

    show(host, panel)
    panel.ui.questionEdit.plainText = "Where?"
    panel.ui.tokenEdit.setFocus()
    qt.QTest.keyClick(panel.ui.tokenEdit, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    settle()
    assert server.requests == []
    assert panel.logic.job is None


def test_ask_says_what_is_missing(panel: Any, host: Any) -> None:
    assert not panel.ui.askButton.enabled
    assert panel.ui.askButton.toolTip == "Show a volume in the view"
    assert panel.ui.shownLabel.text == "the Red view shows no volume"
    show(host, panel)
    assert panel.ui.askButton.toolTip == "Type a question"
    panel.ui.questionEdit.plainText = "   "
    assert not panel.ui.askButton.enabled
    panel.ui.questionEdit.plainText = "Where?"
    assert panel.ui.askButton.enabled
    assert panel.ui.shownLabel.text == "phantom · axial 9 · Red"


def test_a_volume_is_uploaded_once_until_it_changes(panel: Any, host: Any, server: Scripted) -> None:
    volume = show(host, panel)
    for question in ("Where is the block?", "And where is it now?"):
        ask(panel, question)
    assert server.count("PUT", "/session/") == 1
    slicer.util.arrayFromVolume(volume)[9, 20, 20] = 7
    slicer.util.arrayFromVolumeModified(volume)
    ask(panel, "And after the change?")
    assert server.count("PUT", "/session/") == 2
    until(lambda: server.count("DELETE", "/session/session-1") == 1)
    volume.SetSpacing(1.0, 1.0, 3.0)
    ask(panel, "And in another geometry?")
    assert server.count("PUT", "/session/") == 3
    assert panel.logic.error is None


def test_a_session_that_the_server_forgot_is_opened_again(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    server.images.clear()
    ask(panel, "Where is it?")
    assert server.count("PUT", "/session/") == 2
    assert panel.ui.statusLabel.text == "Answered."


def test_nothing_is_sent_without_consent(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    panel.ui.questionEdit.plainText = "Where?"
    click(panel.ui.askButton)
    assert panel.ui.consentFrame.visible
    assert server.address in panel.ui.consentLabel.text
    click(panel.ui.refuseButton)
    settle()
    assert server.requests == []
    assert panel.ui.statusLabel.text == "Nothing was sent."
    click(panel.ui.askButton)
    click(panel.ui.allowButton)
    until(lambda: not panel.logic.is_busy)
    ask(panel, "Where again?", consent=False)  # remembered for this address
    assert server.count("POST", "/infer/medreasoner") == 2


def test_plain_http_to_another_machine_is_warned_of(panel: Any) -> None:
    assert not panel.ui.plainHttpLabel.visible
    panel.ui.addressBox.setCurrentText("http://gpu-box:8000")
    assert panel.ui.plainHttpLabel.visible
    panel.ui.addressBox.setCurrentText("https://gpu-box")
    assert not panel.ui.plainHttpLabel.visible


def test_the_test_button_tells_a_medreasoner_server_from_others(panel: Any, server: Scripted) -> None:
    panel.ui.addressBox.setCurrentText(server.address + "/")
    click(panel.ui.testButton)
    until(lambda: not panel.logic.is_busy)
    assert panel.ui.statusLabel.text == "Connected to MedReasoner."
    panel.ui.addressBox.setCurrentText("ftp://x")
    click(panel.ui.testButton)
    assert "not the address of a server" in panel.ui.statusLabel.text


def test_addresses_are_remembered_tokens_are_not(panel: Any, host: Any) -> None:
    from MedReasonerLib.preferences import MAX_ADDRESSES, Preferences

    with scripted_server(token="s3cret") as guarded:
        panel.ui.addressBox.setCurrentText(guarded.address)
        show(host, panel)
        ask(panel, "Where is the block?")
        assert "401" in panel.ui.statusLabel.text
        assert "access token" in panel.ui.statusLabel.text
        panel.ui.tokenEdit.text = "s3cret"
        ask(panel, "Where is the block?", consent=False)
        assert panel.ui.statusLabel.text == "Answered."
    assert Preferences().addresses[0] == guarded.address
    for number in range(20):
        Preferences().used_address(f"http://server-{number}")
    assert len(Preferences().addresses) == MAX_ADDRESSES
    import qt

    settings = qt.QSettings()
    assert "s3cret" not in str([settings.value(key) for key in settings.allKeys()])
    scene = host.scene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    scene.SetSaveToXMLString(0)  # left on, it would keep later tests' scenes out of their files
    assert "s3cret" not in scene.GetSceneXMLString()


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("broken", ["500", "the expert ran out of memory", "restart the server with a smaller expert"]),
        ("refused", ["422", "the question cannot be asked", "ask about one thing"]),
        ("busy", ["503", "the queue is full", "ask again"]),
        ("nonsense", ["not a form", "check that the address"]),
    ],
)
def test_errors_show_address_status_reason_and_advice(
    panel: Any, host: Any, server: Scripted, question: str, shown: list[str]
) -> None:
    show(host, panel)
    before = nodes(host)
    ask(panel, question)
    for words in shown:
        assert words in panel.ui.statusLabel.text
    if question != "nonsense":
        assert server.address in panel.ui.statusLabel.text
    assert nodes(host) == before
    assert panel.ui.askButton.enabled
    ask(panel, "Where is the block?", consent=False)
    assert panel.ui.statusLabel.text == "Answered."


def test_a_server_that_is_away_is_named(panel: Any, host: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    panel.ui.addressBox.setCurrentText(address)
    show(host, panel)
    ask(panel, "Where?")
    assert f"no answer from {address}" in panel.ui.statusLabel.text
    assert "the server is running" in panel.ui.statusLabel.text


def test_a_server_that_never_answers_is_given_up(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedReasonerLib import client

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        panel.ui.addressBox.setCurrentText(f"127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setattr(client, "info", lambda: client.Call("GET", "/info/", seconds=0.3))
        click(panel.ui.testButton)
        until(lambda: not panel.logic.is_busy, 5)
    assert "none within 0 s" in panel.ui.statusLabel.text


def test_cancel_leaves_the_queue_and_draws_nothing(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    before = nodes(host)
    ask(panel, "slow", wait=False)
    until(lambda: server.count("POST", "/infer"))
    assert not panel.ui.askButton.enabled
    assert panel.ui.progressBar.visible
    until(lambda: "2 before it in the queue" in panel.ui.statusLabel.text)
    assert re.search(r"· [1-9]\d* s$", panel.ui.statusLabel.text)
    click(panel.ui.cancelButton)
    assert panel.ui.statusLabel.text == "Cancelled."
    until(lambda: server.left_queue)
    (_, _, headers) = next(r for r in server.requests if r[1].startswith("/infer"))
    assert server.left_queue == [headers["X-Request-ID"]]
    server.release.set()
    settle(0.3)
    assert nodes(host) == before
    assert panel.ui.statusLabel.text == "Cancelled."
    ask(panel, "Where is the block?", consent=False)
    assert panel.ui.statusLabel.text == "Answered."


def test_upload_and_waiting_are_shown(panel: Any, host: Any) -> None:
    seen, refresh = [], panel.logic.changed

    def watch() -> None:
        if panel.logic.progress is not None:
            seen.append(panel.logic.progress)
        refresh()

    panel.logic.changed = watch
    show(host, panel)
    ask(panel, "Where is the block?")
    assert list(dict.fromkeys(p.stage for p in seen)) == ["preparing", "uploading", "waiting", "reading"]
    assert any(p.fraction == 0 for p in seen)
    assert not panel.ui.progressBar.visible


def test_answers_to_a_closed_scene_are_dropped(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "slow", wait=False)
    until(lambda: server.count("POST", "/infer"))
    host.close_scene()
    before = nodes(host)
    server.release.set()
    settle(0.4)
    assert nodes(host) == before
    assert not panel.logic.is_busy
    assert panel.ui.historyList.count == 0
    assert panel.ui.answerTitle.text == "No answer yet"


def test_answers_about_a_deleted_volume_are_dropped(panel: Any, host: Any, server: Scripted) -> None:
    volume = show(host, panel)
    ask(panel, "slow", wait=False)
    until(lambda: server.count("POST", "/infer"))
    host.scene.RemoveNode(volume)
    server.release.set()
    until(lambda: not panel.logic.is_busy)
    assert "the volume was removed" in panel.ui.statusLabel.text
    assert panel.ui.historyList.count == 0


def test_the_chosen_or_last_clicked_view_is_asked_about(panel: Any, host: Any, server: Scripted) -> None:
    volume = show(host, panel)
    for name in ("Yellow", "Green"):
        host.show(volume, name)
    host.widgets["Green"].click()
    settle()
    assert "coronal" in panel.ui.shownLabel.text
    ask(panel, "Where is the block?")
    panel.ui.viewBox.currentIndex = 2  # Yellow
    settle()
    ask(panel, "Where is it?", consent=False)
    assert [a["axis"] for a in server.asked] == ["coronal", "sagittal"]


def test_a_view_is_read_when_it_changes_and_not_again_and_again(panel: Any, host: Any) -> None:
    show(host, panel)
    read, times = panel.panel.face.show_slice, []

    def counted(*arguments: Any) -> None:
        times.append(1)
        read(*arguments)

    panel.panel.face.show_slice = counted
    settle(0.5)
    assert times == []
    host.views["Red"].GetSliceNode().SetSliceOffset(60.0)
    settle(0.5)
    assert times == [1]


def test_examples_and_earlier_questions_can_be_chosen(panel: Any, host: Any) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    settle()
    box = panel.ui.suggestionBox
    panel.enter()
    settle()
    texts = [box.itemText(n) for n in range(box.count)]
    assert texts[0] == "Examples and earlier questions"
    assert texts[-1] == "Where is the block?"
    assert len(texts) > 4
    panel.ui.questionEdit.plainText = ""
    box.currentIndex = len(texts) - 1
    box.activated.emit(len(texts) - 1)
    assert panel.ui.questionEdit.plainText == "Where is the block?"


def test_volumes_that_are_no_pictures_are_refused(panel: Any, host: Any, server: Scripted) -> None:
    field = np.zeros((3, 4, 5, 3), np.float32)
    volume = slicer.util.addVolumeFromArray(field, None, "field", "vtkMRMLVectorVolumeNode")
    volume.CreateDefaultDisplayNodes()
    host.show(volume)
    settle()
    ask(panel, "Where?")
    assert "neither a grey value nor a colour" in panel.ui.statusLabel.text
    assert server.requests == []


@pytest.mark.usefixtures("host")
def test_a_failed_set_up_breaks_neither_enter_nor_cleanup() -> None:
    from MedReasoner import MedReasonerWidget

    widget = MedReasonerWidget()
    widget.enter()
    widget.cleanup()
    assert widget.panel is None


def test_the_self_test_passes(host: Any) -> None:
    from MedReasoner import MedReasonerTest

    MedReasonerTest("runTest").runTest()
    host.close_scene()
