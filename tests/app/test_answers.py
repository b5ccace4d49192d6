"""Questions to a real server with the embedded models, asked by MONAI Label's own client as its plug-in does.

An oblique volume whose middle slice is a fundus photograph is uploaded; SimpleITK says where its voxels lie.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom.data
import pytest
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from PIL import Image
from scipy.spatial.transform import Rotation

from medreasoner.contract.wire import GroundingResult
from medreasoner.imaging import open_image
from tests.app.server import RunningServer, data_folder

CT_SERIES = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests" / "98892001" / "CT5N"
DISC = np.array([115, 560, 295, 770]) * 384 / 1411  # the optic disc in the photograph, read off by eye
SLICE = 1
TABLE = {"result_extension": ".nrrd", "result_dtype": "uint8"}  # what the plug-in adds to every request
WHERE = "Where do the nerve fibres leave the eye as one bundle?"


@dataclass
class Uploaded:
    """A volume in a session of the server."""

    client: MONAILabelClient
    session: str
    file: Path

    def ask(self, model: str, **params: object) -> tuple[sitk.Image, GroundingResult, dict]:
        file, reply = self.client.infer(model, "", {**TABLE, **params}, session_id=self.session)
        return sitk.ReadImage(file), GroundingResult.from_reply(reply), reply


@pytest.fixture(scope="module")
def uploaded(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uploaded]:
    folder = tmp_path_factory.mktemp("answers")
    eye = np.asarray(Image.open(data_folder("skimage") / "data" / "retina.jpg").convert("RGB").resize((384, 384)))
    values = np.zeros((384, 384, 3, 3), np.uint8)
    values[:, :, SLICE] = eye.swapaxes(0, 1)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (12, -20, 35), degrees=True).as_matrix() @ np.diag([0.05, 0.05, 1.5])
    affine[:3, 3] = (-12, 30, 700)
    colours = np.ascontiguousarray(values).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(colours, affine), folder / "eye.nii.gz")
    client = MONAILabelClient(server.url, tmpdir=str(folder))
    session = client.create_session(str(folder / "eye.nii.gz"))["session_id"]
    yield Uploaded(client, session, folder / "eye.nii.gz")
    client.remove_session(session)


def test_a_question_about_an_oblique_volume(uploaded: Uploaded) -> None:
    mask, result, reply = uploaded.ask("medreasoner", question=WHERE, slice=str(SLICE), axis="stored")
    source = sitk.ReadImage(str(uploaded.file))
    assert (mask.GetSize(), mask.GetPixelID()) == (source.GetSize(), sitk.sitkUInt8)
    np.testing.assert_allclose(mask.GetOrigin(), source.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(mask.GetDirection(), source.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(mask.GetSpacing(), source.GetSpacing(), atol=1e-6)
    values = sitk.GetArrayFromImage(mask)
    assert np.unique(values.nonzero()[0]).tolist() == [SLICE]
    _, rows, columns = values.nonzero()
    inside = (columns > DISC[0] - 12) & (columns < DISC[2] + 12) & (rows > DISC[1] - 12) & (rows < DISC[3] + 12)
    assert inside.mean() > 0.9
    assert (result.target, reply["label_names"]) == ("optic disc", {"optic disc": 1})
    corner = source.TransformContinuousIndexToPhysicalPoint([result.box[0] - 0.5, result.box[1] - 0.5, float(SLICE)])
    np.testing.assert_allclose(result.box_corners_lps[0], corner, atol=2e-3)


def test_what_is_absent_comes_with_an_empty_mask_of_the_whole_volume(uploaded: Uploaded) -> None:
    question = "Which pear-shaped sac hides the gallstone?"
    mask, result, _ = uploaded.ask("medreasoner", question=question, slice=str(SLICE), axis="stored")
    assert result.absent
    assert mask.GetSize() == sitk.ReadImage(str(uploaded.file)).GetSize()
    assert not sitk.GetArrayFromImage(mask).any()


def test_an_edited_box_is_answered_quickly(uploaded: Uploaded, record_property: pytest.RecordProperty) -> None:
    """The time is recorded, not asserted: the machine may be busy."""
    view = {"axis": "stored", "slice_index": SLICE}
    seconds = []
    for shift in range(4):
        start = time.perf_counter()
        mask, result, _ = uploaded.ask("medreasoner_refine", box=[*DISC[:2], *(DISC[2:] + shift)], **view)
        seconds.append(time.perf_counter() - start)
    record_property("refine_seconds_after_the_first", min(seconds[1:]))
    assert result.timings["encode"] < 0.05  # seen before: the picture is not encoded again
    assert result.reasoner == {}
    marked = sitk.GetArrayFromImage(mask)[SLICE]
    disc = np.zeros_like(marked)
    disc[int(DISC[1]) : int(DISC[3]), int(DISC[0]) : int(DISC[2])] = 1
    assert (marked & disc).sum() > 0.9 * marked.sum() > 0


def test_smart_edit_with_a_region_of_voxels(uploaded: Uploaded) -> None:
    left, top, right, bottom = DISC.round().astype(int).tolist()
    clicks = {"label": "target", "foreground": [], "background": [], "reset_state": True, "slice": SLICE}
    mask, result, reply = uploaded.ask("medreasoner_refine", roi=[right, left, top, bottom, 0, 2], **clicks)
    assert result.box == [left + 0.5, top + 0.5, right + 0.5, bottom + 0.5]
    assert reply["label_names"] == {"target": 1}
    assert np.unique(sitk.GetArrayFromImage(mask).nonzero()[0]).tolist() == [SLICE]


def test_a_session_of_dicom_files(server: RunningServer, tmp_path: Path) -> None:
    with server.client() as http:
        files = [("files", (file.name, file.read_bytes())) for file in sorted(CT_SERIES.iterdir())]
        session = http.put("/session/", files=files).json()["session_id"]
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path))
        params = {"box": [2, 3, 12, 12], "slice_index": 2, **TABLE}
        file, reply = client.infer("medreasoner_refine", "", params, session_id=session)
        http.delete(f"/session/{session}")
    image, mask = open_image(CT_SERIES), open_image(Path(file))
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.index_to_lps, image.index_to_lps, atol=1e-4)
    assert set(mask.values.nonzero()[2]) <= {2}
    assert (reply["axis"], reply["slice_index"]) == ("stored", 2)


def test_the_plug_in_finds_its_models_where_it_looks_for_them(server: RunningServer) -> None:
    models = MONAILabelClient(server.url).info()["models"]
    assert (models["medreasoner"]["type"], models["medreasoner_volume"]["type"]) == ("segmentation", "segmentation")
    assert (models["medreasoner_refine"]["type"], models["medreasoner_refine"]["dimension"]) == ("deepgrow", 2)
    assert {"question", "slice", "axis"} <= models["medreasoner"]["config"].keys()
    assert models["medreasoner"]["labels"] == ["target"]  # SmartEdit needs a segment to begin with


@pytest.mark.parametrize(
    ("model", "params", "why"),
    [
        ("medreasoner", {"question": ""}, "type what you look for"),
        ("medreasoner", {"question": WHERE, "slice": "9", "axis": "stored"}, "choose a stored slice from 0 to 2"),
        ("medreasoner_refine", {"foreground": [[3, 4, 1]], "background": [[9, 9, 1]], "slice": 1}, "draw an ROI"),
        ("medreasoner_refine", {"box": [900, 900, 950, 950], "axis": "stored"}, "no area"),
        ("medreasoner_volume", {"question": ""}, "type what you look for"),
    ],
)
def test_what_went_wrong_reaches_the_user_of_the_plug_in(
    uploaded: Uploaded, model: str, params: dict, why: str
) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        uploaded.client.infer(model, "", {**TABLE, **params}, session_id=uploaded.session)
    assert "Status: 4" in caught.value.msg
    said = json.loads(caught.value.msg.partition("Response: ")[2])
    assert why in said["detail"] + said["hint"]
