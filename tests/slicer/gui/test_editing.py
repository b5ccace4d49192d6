"""Correcting, accepting, going back, saving: what happens after an answer."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import slicer

from medreasoner.contract.label import LabelRecord
from medreasoner.imaging import open_image
from tests.slicer import phantom
from tests.slicer.gui.conftest import ask, click, nodes, settle, show, until
from tests.slicer.scripted_server import Scripted
from tests.slicer.stand_in.application import Application


def models(server: Scripted) -> list[str]:
    return [a["model"] for a in server.asked]


def move(roi: Any, millimetres: float) -> None:
    """Shift a box along its own x axis."""
    centre, axis = np.zeros(3), np.zeros(3)
    roi.GetCenter(centre)
    roi.GetXAxis(axis)
    roi.SetCenter(centre + millimetres * axis)


def refined(panel: Any, server: Scripted, count: int) -> None:
    until(lambda: models(server).count("medreasoner_refine") == count and not panel.logic.is_busy)


def test_moving_the_box_asks_for_the_mask_only_once_and_only_the_mask(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    before, box = answer.mask, answer.record.box
    for _ in range(5):  # a drag is many small movements
        move(answer.box, -1.08)
        settle(0.02)
    refined(panel, server, 1)
    settle(0.6)
    assert models(server) == ["medreasoner", "medreasoner_refine"]
    assert "points" not in server.asked[1]  # one of them lies outside the box now
    np.testing.assert_allclose(server.asked[1]["box"], [box[0] - 6, box[1], box[2] - 6, box[3]], atol=0.05)
    assert server.count("PUT", "/session/") == 1
    assert 0 < answer.mask.count < before.count
    assert panel.ui.statusLabel.text == "New mask."
    assert [edit.what for edit in answer.record.edits] == ["box"]
    click(panel.ui.undoButton)
    assert answer.mask.digest == before.digest
    settle(0.6)
    assert len(server.asked) == 2  # putting the box back asks nothing
    assert not panel.ui.undoButton.enabled


def test_moving_a_point_asks_for_the_mask(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    position = answer.points.GetNthControlPointPosition(0)
    answer.points.SetNthControlPointPosition(0, position[0] + 1.8, *position[1:])
    refined(panel, server, 1)
    assert [edit.what for edit in answer.record.edits] == ["points"]
    assert len(server.asked[1]["points"]) == 2


def test_a_moved_box_does_not_end_a_question(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    ask(panel, "slow", wait=False)
    until(lambda: server.count("POST", "/infer") == 2)
    move(panel.logic.current.box, -1.8)
    settle(0.6)
    assert panel.logic.is_busy
    server.release.set()
    until(lambda: not panel.logic.is_busy)
    assert panel.logic.current.record.question == "slow"
    assert models(server) == ["medreasoner", "medreasoner"]


def test_colours_and_selection_of_the_box_ask_nothing(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    panel.logic.current.box.SetName("my box")
    panel.logic.current.box.GetDisplayNode().SetSelectedColor(1, 0, 0)
    panel.logic.current.box.Modified()
    settle(0.6)
    assert models(server) == ["medreasoner"]


def test_absence_is_an_answer_and_a_box_can_still_be_drawn(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "absent: where is the polyp?")
    assert panel.ui.statusLabel.text == "Answered: not present in this slice."
    assert panel.ui.answerTitle.text == "Not present in this slice · confidence 0.83"
    assert panel.logic.error is None
    assert panel.logic.current.segmentation is None
    panel.ui.questionEdit.plainText = "Where is the block?"
    click(panel.ui.drawButton)
    drawn = panel.logic.current
    assert "Drag the box" in panel.ui.statusLabel.text
    assert panel.ui.historyList.count == 2
    move(drawn.box, 5.0)
    refined(panel, server, 1)
    assert drawn.mask.count > 0
    assert drawn.record.reasoner == {}  # no reasoner has said so
    assert drawn.record.question == "Where is the block?"


def test_a_box_on_nothing_ends_in_words(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    answer.box.SetCenter(phantom.matrix()[:3, :3] @ [35, 28, 9] + phantom.matrix()[:3, 3])
    refined(panel, server, 1)
    assert panel.ui.statusLabel.text == "The mask is empty: move the box."
    assert answer.mask.count == 0


def test_a_deleted_box_or_segmentation_is_survived(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    host.scene.RemoveNode(answer.segmentation)
    move(answer.box, 1.8)
    refined(panel, server, 1)
    assert answer.mask.count > 0
    host.scene.RemoveNode(answer.box)
    click(panel.ui.volumeButton)
    until(lambda: not panel.logic.is_busy)
    assert "box was deleted" in panel.ui.statusLabel.text
    host.scene.RemoveNode(answer.node)
    settle()
    assert panel.ui.answerTitle.text == "No answer yet"


def test_accept_keeps_and_discard_removes(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    before = nodes(host)
    ask(panel, "Where is the block?")
    click(panel.ui.discardButton)
    assert nodes(host) - before <= {"vtkMRMLSubjectHierarchyNode1"}
    ask(panel, "Where is the block?", consent=False)
    click(panel.ui.acceptButton)
    answer = panel.logic.current
    segment = answer.segmentation.GetSegmentation().GetNthSegment(0)
    assert segment.GetName() == "bright block"
    assert (answer.box.GetDisplayVisibility(), answer.box.GetLocked()) == (0, 1)
    assert not panel.ui.acceptButton.enabled
    assert panel.ui.historyList.item(0).text().startswith("✓ Where is the block?")
    move(answer.box, 1.8)
    settle(0.6)
    assert "medreasoner_refine" not in models(server)  # accepted is accepted


def test_hiding_box_points_and_mask(panel: Any, host: Any) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    for name, part in (("showBox", "box"), ("showPoints", "points"), ("showMask", "segmentation")):
        click(getattr(panel.ui, name))
        assert getattr(answer, part).GetDisplayVisibility() == 0
        click(getattr(panel.ui, name))
        assert getattr(answer, part).GetDisplayVisibility() == 1


def test_history_goes_back_to_slice_and_view(panel: Any, host: Any) -> None:
    volume = show(host, panel)
    ask(panel, "Where is the block?")
    first = panel.logic.current
    host.show(volume, "Green")
    panel.ui.viewBox.currentIndex = 3
    settle()
    ask(panel, "And here?", consent=False)
    host.views["Red"].GetSliceNode().SetSliceOffset(70.0)
    settle()
    assert panel.ui.historyList.count == 2
    panel.ui.historyList.currentRow = 1  # newest first
    settle()
    assert panel.logic.current.node is first.node
    from MedReasonerLib.shown_slice import shown_in

    assert shown_in(host.views["Red"]).slice_index == first.record.slice_index == 9


def test_each_answer_keeps_what_it_can_undo(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    first = panel.logic.current
    before = first.mask.digest
    move(first.box, -1.8)
    refined(panel, server, 1)
    ask(panel, "And this?", consent=False)
    assert not panel.ui.undoButton.enabled
    panel.ui.historyList.currentRow = 1
    click(panel.ui.undoButton)
    assert first.mask.digest == before


def test_undo_works_in_a_scene_that_was_saved_and_loaded(
    panel: Any, host: Any, server: Scripted, tmp_path: Path
) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    before = answer.mask.digest
    move(answer.box, -1.8)
    refined(panel, server, 1)
    assert host.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    host.close_scene()
    assert not panel.ui.undoButton.enabled
    assert host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    panel.ui.historyList.currentRow = 0
    click(panel.ui.undoButton)
    assert panel.ui.statusLabel.text == "Undone."
    assert panel.logic.current.mask.digest == before
    assert not panel.ui.undoButton.enabled


def test_whole_volume_can_be_undone(panel: Any, host: Any) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    click(panel.ui.volumeButton)
    until(lambda: not panel.logic.is_busy)
    np.testing.assert_array_equal(answer.mask.full(phantom.SIZE), phantom.block())
    click(panel.ui.undoButton)
    assert answer.mask.voxels.shape[0] == 1


def test_saving_an_uploaded_volume_adds_the_case_once(panel: Any, host: Any, server: Scripted) -> None:
    volume = show(host, panel)
    volume.SetName("Doe^John")  # must not travel
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    click(panel.ui.saveButton)
    until(lambda: not panel.logic.is_busy)
    ((case, (params, mask)),) = server.labels.items()
    assert panel.ui.statusLabel.text == f"Saved on the server as {case}."
    assert "Doe" not in str([r[1] for r in server.requests])
    record = LabelRecord.from_json(json.dumps(params["medreasoner"]))
    assert (record.question, record.target, record.edits) == ("Where is the block?", "bright block", ())
    assert mask.startswith(b"NRRD")
    np.testing.assert_array_equal(open_image(server.images[case]).values.transpose(2, 1, 0), phantom.values())
    # painted by hand, and saved again
    voxels = answer.mask.full(phantom.SIZE)
    voxels[9, 30, 38] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, answer.segmentation, "answer", volume)
    click(panel.ui.saveButton)
    until(lambda: not panel.logic.is_busy)
    assert server.count("PUT", "/datastore/image") == 1
    params, mask = server.labels[case]
    assert [edit["what"] for edit in params["medreasoner"]["edits"]] == ["mask"]
    (server.folder / "label.nrrd").write_bytes(mask)
    saved = open_image(server.folder / "label.nrrd")
    np.testing.assert_array_equal(saved.values.transpose(2, 1, 0), voxels)


def test_the_next_case_is_loaded_and_its_label_saved_there(panel: Any, host: Any, server: Scripted) -> None:
    show(host, panel)
    click(panel.ui.nextButton)
    until(lambda: not panel.logic.is_busy)
    assert panel.ui.statusLabel.text == "No case is left to label."
    ask(panel, "Where is the block?")
    click(panel.ui.saveButton)
    until(lambda: not panel.logic.is_busy)
    (case,) = server.labels
    host.close_scene()
    click(panel.ui.nextButton)
    until(lambda: not panel.logic.is_busy)
    assert panel.ui.statusLabel.text == f"Loaded {case}."
    settle()
    ask(panel, "Where is the block?", consent=False)
    assert panel.ui.statusLabel.text == "Answered."
    server.labels.clear()
    click(panel.ui.saveButton)
    until(lambda: not panel.logic.is_busy)
    assert list(server.labels) == [case]
    assert server.count("PUT", "/datastore/image") == 1


@pytest.mark.parametrize(("scoring", "strategy"), [({}, "first"), ({"answers": {}}, "disagreement")])
def test_a_server_that_scores_images_chooses_the_next_case_by_disagreement(
    panel: Any, server: Scripted, scoring: dict[str, Any], strategy: str
) -> None:
    server.scoring = scoring
    click(panel.ui.nextButton)
    until(lambda: not panel.logic.is_busy)
    assert [path for method, path, _ in server.requests if method == "POST"] == [f"/activelearning/{strategy}"]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("", "Where is the liver?"),
        ("Where is the block?", "Where is the liver?"),  # was asked, so it is in the list
        ("Where is the mass that", "Where is the mass that"),  # is being written
    ],
)
def test_the_question_that_a_case_was_chosen_for_stands_in_the_box(
    panel: Any, host: Any, server: Scripted, written: str, asked: str
) -> None:
    show(host, panel)
    ask(panel, "Where is the block?")
    click(panel.ui.saveButton)
    until(lambda: not panel.logic.is_busy)
    (case,) = server.labels
    host.close_scene()
    server.scoring, server.unsure = {"answers": {}}, "Where is the liver?"
    panel.ui.questionEdit.plainText = written
    click(panel.ui.nextButton)
    until(lambda: not panel.logic.is_busy)
    assert panel.ui.statusLabel.text == f"Loaded {case}. Answers differ about: Where is the liver?"
    assert panel.ui.questionEdit.plainText == asked


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Slicer cannot read the case case"),
        (b"NRRD0004\ntype: short\n\n", "Slicer cannot read the case case"),
        (None, "404"),  # gone meanwhile
    ],
)
def test_a_case_that_cannot_be_loaded_is_explained(
    panel: Any, server: Scripted, content: bytes | None, said: str
) -> None:
    server.images["case"] = server.folder / "case"
    if content is not None:
        server.images["case"].write_bytes(content)
    click(panel.ui.nextButton)
    until(lambda: not panel.logic.is_busy)
    assert said in panel.ui.statusLabel.text
    assert panel.ui.nextButton.enabled


def test_a_large_case_arrives_byte_by_byte_the_same(panel: Any, server: Scripted, tmp_path: Path) -> None:
    from MedReasonerLib import client

    server.images["large"] = server.folder / "large"
    server.images["large"].write_bytes(np.random.default_rng(0).bytes(5_000_001))  # several times Qt's buffer
    into, ended = tmp_path / "large", []

    def steps() -> Any:
        ended.append((yield client.get_case("large", into)))

    panel.logic.server = client.Server(server.address)
    panel.logic._run(steps(), str)
    until(lambda: not panel.logic.is_busy)
    assert panel.logic.error is None, panel.ui.statusLabel.text
    assert ended[0].body == b""
    assert into.read_bytes() == server.images["large"].read_bytes()


@pytest.mark.parametrize("what", ["question", "next case"])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    panel: Any, host: Any, server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Files of the temporary folders lie on /dev/full, which can be opened and never has room."""
    show(host, panel)
    full = tmp_path / "full"
    full.mkdir()
    for name in ("body", "case"):
        (full / name).symlink_to("/dev/full")
    server.images["case"] = server.folder / "case"
    server.images["case"].write_bytes(bytes(100_000))
    with monkeypatch.context() as filled:
        filled.setattr(tempfile, "TemporaryDirectory", lambda **_: contextlib.nullcontext(str(full)))
        filled.setattr(tempfile, "mkdtemp", lambda **_: str(full))
        if what == "question":
            ask(panel, "Where is the block?")
        else:
            click(panel.ui.nextButton)
            until(lambda: not panel.logic.is_busy)
    said = panel.ui.statusLabel.text
    assert "Slicer's temporary folder cannot be written: No space left on device" in said
    assert "make room on its disk" in said and "mistake" not in said
    assert full.exists() == (what == "question"), "half a case is not kept"
    ask(panel, "Where is the block?")
    assert panel.ui.statusLabel.text == "Answered."


@pytest.mark.parametrize("left_handed", [False, True])
def test_slices_of_a_case_are_numbered_as_in_its_file(
    panel: Any, host: Any, server: Scripted, left_handed: bool
) -> None:
    affine = np.diag([-1.0, 1.0, 2.0 if left_handed else -2.0, 1.0])
    nifti = nibabel.Nifti1Image(phantom.values().transpose(2, 1, 0), affine)
    server.images["case"] = server.folder / "case.nii.gz"
    nibabel.save(nifti, server.images["case"])
    click(panel.ui.nextButton)
    until(lambda: not panel.logic.is_busy)
    volume = panel.panel.views.logic("Red").GetBackgroundLayer().GetVolumeNode()
    stored = slicer.util.arrayFromVolume(volume)
    assert np.array_equal(stored, phantom.values()[::-1] if left_handed else phantom.values())  # what Slicer does
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(400, 200)
    host.views["Red"].GetSliceNode().SetSliceOffset(6 * affine[2, 2])
    settle()
    ask(panel, "Where is the block?")
    assert panel.logic.current.mask.count > 0
    click(panel.ui.saveButton)
    until(lambda: not panel.logic.is_busy)
    params, _ = server.labels["case"]
    assert params["medreasoner"]["slice_index"] == 6


def test_oblique_slices_are_refined_on_their_own_plane(panel: Any, host: Application, server: Scripted) -> None:
    volume = phantom.volume(tilt=25.0)
    logic = host.show(volume)
    logic.GetSliceNode().JumpSliceByOffsetting(*(phantom.matrix(25.0) @ [8, 8, 9, 1])[:3])
    settle()
    assert "oblique slice" in panel.ui.shownLabel.text
    ask(panel, "Where is the block?")
    answer = panel.logic.current
    before = answer.mask.count
    move(answer.box, 3.6)
    refined(panel, server, 1)
    assert 0 < answer.mask.count < before
    assert server.count("PUT", "/session/") == 1  # the same plane: the same upload
    click(panel.ui.volumeButton)
    until(lambda: not panel.logic.is_busy)
    assert "oblique slice has no neighbours" in panel.ui.statusLabel.text
    click(panel.ui.saveButton)
    until(lambda: not panel.logic.is_busy)
    ((_, (params, _)),) = server.labels.items()
    assert (params["medreasoner"]["axis"], params["medreasoner"]["box"]) == ("oblique", None)
