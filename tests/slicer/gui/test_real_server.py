"""The panel against the real server process with the embedded models: nothing is replaced but Slicer itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import slicer
from PIL import Image

from medreasoner.contract.answer import Box
from medreasoner.geometry import box_iou
from tests.app.server import RunningServer, data_folder, running
from tests.collection import DISC
from tests.slicer.gui.conftest import ask, click, settle, until

SLOW = 120  # seconds: the machine may be busy


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("server")
    (work / "studies").mkdir()
    shutil.copy(data_folder("nibabel") / "tests" / "data" / "anatomical.nii", work / "studies")
    with running(work / "studies", work / "run") as found:
        yield found


@pytest.fixture
def real_panel(panel: Any, real: RunningServer) -> Any:
    panel.ui.addressBox.setCurrentText(real.url)
    return panel


def wait(panel: Any) -> None:
    until(lambda: not panel.logic.is_busy, SLOW)
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
    click(real_panel.ui.volumeButton)
    wait(real_panel)
    assert len(coronal_slices(volume, answer)) > 1


def test_the_next_case_comes_from_the_servers_collection(real_panel: Any, host: Any) -> None:
    click(real_panel.ui.nextButton)
    wait(real_panel)
    assert real_panel.ui.statusLabel.text.startswith("Loaded ")
    assert host.views["Red"].GetBackgroundLayer().GetVolumeNode() is not None
    settle()
    ask(real_panel, "Where is the left kidney?", wait=False)
    assert not real_panel.ui.consentFrame.visible  # nothing has to be uploaded
    wait(real_panel)
    assert real_panel.ui.statusLabel.text.startswith("Answered")


def test_a_question_that_is_too_long_is_explained(real_panel: Any, host: Any) -> None:
    retina(host)
    ask(real_panel, "why " * 600)
    assert "2,400 characters" in real_panel.ui.statusLabel.text or "2,399 characters" in real_panel.ui.statusLabel.text
