"""The panel against the real server process with the embedded models: nothing is replaced but Slicer itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import slicer
from MedReasonerLib.shown_slice import ijk_to_ras
from PIL import Image

from medreasoner.contract.answer import Box
from medreasoner.geometry import box_iou
from medreasoner.imaging import open_image
from tests.app.server import RunningServer, data_folder, running
from tests.collection import DISC
from tests.dicom_files import series
from tests.slicer.gui.conftest import ask, click, settle, until

SLOW = 120  # seconds: the machine may be busy


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("server")
    (work / "studies").mkdir()
    shutil.copy(data_folder("nibabel") / "tests" / "data" / "anatomical.nii", work / "studies")
    series(work / "studies" / "scan")  # oblique, its files named against their order
    with running(work / "studies", work / "run") as found:
        yield found


@pytest.fixture
def real_panel(panel: Any, real: RunningServer) -> Any:
    panel.ui.addressBox.setCurrentText(real.url)
    return panel


def wait(panel: Any, seconds: float = SLOW) -> None:
    until(lambda: not panel.logic.is_busy, seconds)
    assert panel.logic.error is None, panel.ui.statusLabel.text


def retina(host: Any) -> Any:
    """scikit-image's fundus photograph, 512 x 512, as Slicer loads a picture."""
    picture = Image.open(data_folder("skimage") / "data" / "retina.jpg").convert("RGB").resize((512, 512))
    colours = np.asarray(picture)[None]
    volume = slicer.util.addVolumeFromArray(colours, np.diag([-1.0, -1, 1, 1]), "retina", "vtkMRMLVectorVolumeNode")
    volume.CreateDefaultDisplayNodes()
    host.show(volume)
    settle()
    return volume


def head(host: Any) -> Any:
    """nibabel's head MR, loaded from its file."""
    file = data_folder("nibabel") / "tests" / "data" / "anatomical.nii"
    volume = slicer.util.loadVolume(str(file), {"name": "head"})
    host.show(volume)
    settle()
    return volume


def test_the_server_is_recognised(real_panel: Any) -> None:
    click(real_panel.ui.testButton)
    wait(real_panel)
    assert real_panel.ui.statusLabel.text.startswith("Connected to ")


def test_the_optic_disc_is_found_refined_and_saved(real_panel: Any, host: Any, real: RunningServer) -> None:
    retina(host)
    ask(real_panel, "Where do the nerve fibres leave the eye as one bundle?", wait=False)
    wait(real_panel)
    answer = real_panel.logic.current
    assert not answer.record.absent
    assert "disc" in answer.record.target
    assert len(answer.record.reasoning) > 40
    truth = Box(*(v * 512 / 1411 for v in DISC))
    assert box_iou(Box(*answer.record.box), truth) > 0.5
    rows, columns = np.nonzero(answer.mask.full((512, 512, 1))[0])
    assert truth.x_min - 40 < columns.mean() < truth.x_max + 40
    assert truth.y_min - 40 < rows.mean() < truth.y_max + 40
    before = answer.mask.digest
    size = answer.box.GetSize()
    answer.box.SetSize(size[0] * 0.6, size[1] * 0.6, size[2])
    until(lambda: answer.record.edits and not real_panel.logic.is_busy, SLOW)
    assert answer.mask.digest != before
    click(real_panel.ui.saveButton)
    wait(real_panel)
    case = real_panel.ui.statusLabel.text.split()[-1].rstrip(".")
    with real.client() as http:
        record = http.get("/datastore/label/info", params={"label": case, "tag": "final"}).json()
    assert "nerve fibres" in str(record)
    assert "box" in str(record)


def region_on_head(panel: Any, host: Any) -> tuple[Any, Any]:
    """Draw a box on a coronal slice, without the reasoner."""
    volume = head(host)
    host.show(volume, "Green")
    panel.ui.viewBox.currentIndex = 3
    settle()
    click(panel.ui.drawButton)
    if panel.ui.consentFrame.visible:
        click(panel.ui.allowButton)
    answer = panel.logic.current
    size = answer.box.GetSize()
    answer.box.SetSize(size[0] * 1.2, size[1], size[2])
    until(lambda: answer.record.edits and not panel.logic.is_busy, SLOW)
    assert panel.logic.error is None, panel.ui.statusLabel.text
    return volume, answer


def coronal_slices(volume: Any, answer: Any) -> list[int]:
    return np.flatnonzero(answer.mask.full(volume.GetImageData().GetDimensions()).any(axis=(0, 2))).tolist()


def test_a_drawn_box_gets_its_mask_on_the_slice_shown(real_panel: Any, host: Any) -> None:
    volume, answer = region_on_head(real_panel, host)
    assert coronal_slices(volume, answer) == [answer.record.slice_index]


@pytest.mark.nightly
def test_a_region_is_followed_through_the_volume(real_panel: Any, host: Any) -> None:
    volume, answer = region_on_head(real_panel, host)
    key, before = answer.record.slice_index, answer.mask.digest
    click(real_panel.ui.volumeButton)
    wait(real_panel, 5 * SLOW)  # 41 slices of a second or more
    assert real_panel.ui.statusLabel.text == "New mask."
    found = coronal_slices(volume, answer)
    assert found[0] < key < found[-1]  # both ways
    assert found == list(range(found[0], found[-1] + 1))  # without a gap
    assert [edit.what for edit in answer.record.edits] == ["box", "mask"]
    click(real_panel.ui.undoButton)
    assert coronal_slices(volume, answer) == [key]
    assert answer.mask.digest == before


def next_case(panel: Any, host: Any) -> tuple[str, Any]:
    """Press Next case; returns its name and the volume in the red view."""
    click(panel.ui.nextButton)
    wait(panel)
    words = panel.ui.statusLabel.text.split()
    assert words[0] == "Loaded"
    settle()
    return words[1].rstrip("."), host.views["Red"].GetBackgroundLayer().GetVolumeNode()


def test_a_dicom_series_is_the_next_case_is_labelled_and_followed_by_another(
    real_panel: Any, host: Any, real: RunningServer, tmp_path: Path
) -> None:
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(real.studies / "scan"))
    expected = sitk.ReadImage(files)
    case, volume = next_case(real_panel, host)
    assert case == pydicom.dcmread(files[0]).SeriesInstanceUID
    assert_same_place(volume, expected)
    # a box on the series' own slice, without asking: the server has the image already
    host.views["Red"].RotateSliceToLowestVolumeAxes()
    settle()
    assert "oblique" not in real_panel.ui.shownLabel.text
    real_panel.ui.questionEdit.plainText = "Where is the bright band?"
    click(real_panel.ui.drawButton)
    assert not real_panel.ui.consentFrame.visible
    answer = real_panel.logic.current
    size = answer.box.GetSize()
    answer.box.SetSize(size[0] * 1.4, size[1], size[2])
    until(lambda: answer.record.edits and not real_panel.logic.is_busy, SLOW)
    assert answer.mask.count > 0, real_panel.ui.statusLabel.text
    click(real_panel.ui.saveButton)
    wait(real_panel)
    assert real_panel.ui.statusLabel.text == f"Saved on the server as {case}."
    with real.client() as http:
        record = http.get("/datastore/label/info", params={"label": case, "tag": "final"}).json()["medreasoner"]
        (tmp_path / "label").write_bytes(http.get("/datastore/label", params={"label": case, "tag": "final"}).content)
    assert (record["question"], record["slice_index"]) == ("Where is the bright band?", answer.record.slice_index)
    saved = open_image(tmp_path / "label").values.transpose(2, 1, 0)
    np.testing.assert_array_equal(saved != 0, answer.mask.full(expected.GetSize()) != 0)
    # another one now, and a question about it
    other, _ = next_case(real_panel, host)
    assert other == "anatomical"
    ask(real_panel, "Where is the left kidney?", wait=False)
    assert not real_panel.ui.consentFrame.visible
    wait(real_panel)
    assert real_panel.ui.statusLabel.text.startswith("Answered")


def assert_same_place(volume: Any, expected: sitk.Image) -> None:
    """Voxels and their positions in the patient, as ITK reads the files."""
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), sitk.GetArrayFromImage(expected))
    corners = [
        (0, 0, 0),
        (expected.GetWidth() - 1, 0, 0),
        (0, expected.GetHeight() - 1, 0),
        (0, 0, expected.GetDepth() - 1),
    ]
    lps = np.array([expected.TransformIndexToPhysicalPoint(corner) for corner in corners])
    found = np.column_stack([corners, np.ones(4)]) @ ijk_to_ras(volume).T
    np.testing.assert_allclose(found[:, :3] * [-1, -1, 1], lps, atol=1e-3)


def test_a_question_that_is_too_long_is_explained(real_panel: Any, host: Any) -> None:
    retina(host)
    ask(real_panel, "why " * 600)
    assert "2,400 characters" in real_panel.ui.statusLabel.text or "2,399 characters" in real_panel.ui.statusLabel.text
