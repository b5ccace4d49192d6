"""A target through the volume: which slices, which voxels, and what stops it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from medreasoner.contract.answer import Box
from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.wire import GroundingResult
from medreasoner.expert.volume import open_volume_expert
from medreasoner.imaging import open_image
from monailabel_app.lib.images import OpenedImages
from monailabel_app.lib.infers.volume import Volume
from monailabel_app.lib.slices import Slices
from tests.app.plain_models import ABSENT, BrightInBox, found, pipeline
from tests.app.server import RunningServer
from tests.dicom_files import projection

CENTRE, RADIUS = np.array([20.0, 18.0, 9.0]), 10.0  # of a bright ball, in voxels


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of 200 on 50 with noise, and another one that must not be reached; turned by three angles."""
    i, j, k = np.mgrid[:40, :36, :30]
    values = np.random.default_rng(5).normal(50, 5, i.shape)
    values[_ball(i, j, k, CENTRE, RADIUS)] += 150
    values[_ball(i, j, k, CENTRE + np.array([0, 0, 17]), 3.0)] += 150
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0).astype(np.float32))
    image.SetSpacing((0.8, 0.8, 0.8))
    image.SetDirection(Rotation.from_euler("xyz", (10, -20, 8), degrees=True).as_matrix().ravel().tolist())
    path = tmp_path_factory.mktemp("ball") / "ball.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def _ball(i, j, k, centre, radius):
    return (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2 <= radius**2


def follow(path: Path, answer, **wish) -> tuple[np.ndarray, dict]:
    """The mask as (i, j, k), and the reply."""
    asking = pipeline(answer, BrightInBox(above=120))
    task = Volume(asking, OpenedImages(), open_volume_expert(asking.expert))
    mask, params = task({"image": str(path), "result_extension": ".nrrd", **wish})
    read = sitk.GetArrayFromImage(sitk.ReadImage(mask)).T
    Path(mask).unlink()
    return read > 0, json.loads(json.dumps(params, allow_nan=False))


@pytest.mark.parametrize(("axis", "key"), [("axial", 9), ("coronal", 18), ("sagittal", 20), ("stored", 9)])
def test_the_whole_ball_and_nothing_else_is_found_from_its_middle(ball: Path, axis: str, key: int) -> None:
    picture = open_image(ball).picture(axis, key)
    marks = [picture.point_at(CENTRE + offset) for offset in np.array([-12, 12])[:, None] * np.ones(3)]
    (x0, x1), (y0, y1) = sorted(p.x for p in marks), sorted(p.y for p in marks)
    mask, params = follow(ball, ABSENT, box=[x0, y0, x1, y1], axis=axis, slice_index=key)
    truth = _ball(*np.mgrid[:40, :36, :30], CENTRE, RADIUS)
    missed = truth & ~mask  # the last slices, where the ball shrinks too fast to follow
    assert not (mask & ~truth).any()
    assert missed.sum() < 0.08 * truth.sum()
    assert (params["axis"], params["slice_index"], params["expert"]["name"]) == (axis, key, "bright")
    assert params["timings"]["propagate"] >= 0


def test_a_question_finds_the_key_slice_s_box(ball: Path) -> None:
    picture = open_image(ball).picture("stored", 9)
    middle = picture.point_at(CENTRE)
    answer = found(Box(middle.x - 12, middle.y - 12, middle.x + 12, middle.y + 12))
    mask, params = follow(ball, answer, question="Where is the ball?", axis="stored", slice="9")
    result = GroundingResult.from_reply(params)
    assert (result.question, result.target, result.reasoner["name"]) == ("Where is the ball?", "liver", "told")
    assert result.box == answer.box.as_list()
    assert mask.any(axis=(0, 1)).sum() > 15


def test_what_is_absent_is_followed_nowhere(ball: Path) -> None:
    mask, params = follow(ball, ABSENT, question="Where is the moon?")
    assert params["absent"]
    assert mask.shape == (40, 36, 30)
    assert not mask.any()


def test_a_picture_holds_the_key_frame_of_a_film(tmp_path: Path) -> None:
    film = projection(tmp_path, "US", frames=3)
    mask, params = follow(film, ABSENT, box=[4, 6, 30, 30], slice_index=2, result_extension=".png")
    assert params["slice_index"] == 2
    frame = open_image(film).picture("stored", 2).pixels[..., 0].T
    np.testing.assert_array_equal(mask[4:30, 6:30], frame[4:30, 6:30] > 120)


@pytest.mark.parametrize(
    ("wish", "why"), [({}, "is empty"), ({"points": [[3, 4]]}, "points alone"), ({"box": [1, 1, 2]}, "four numbers")]
)
def test_a_start_is_needed(ball: Path, wish: dict, why: str) -> None:
    with pytest.raises(MedReasonerError, match=why):
        follow(ball, ABSENT, **wish)


def test_it_tells_the_log_and_can_be_stopped(ball: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 10

    box = {"box": [4, 4, 36, 32], "axis": "stored", "slice_index": 9}
    with caplog.at_level(logging.INFO):
        mask, _ = follow(ball, ABSENT, **box, cancelled=cancelled)
    assert mask.any(axis=(0, 1)).sum() == 11  # the key slice and ten more
    assert "10 of at most 30 slices" in caplog.text
    assert "cancelled" in caplog.text


def test_one_window_for_all_slices_unless_the_file_has_its_own(ball: Path) -> None:
    image = open_image(ball)
    key = image.picture("stored", 9)
    empty = Slices(image, key)[21]  # noise alone: a window of its own would stretch it
    assert empty.window == key.window
    assert np.ptp(empty.pixels) < 80
    assert Slices(image, image.picture("stored", 9, (100.0, 300.0)), (100.0, 300.0))[3].window == (100.0, 300.0)
    assert [p.slice_index for p in Slices(image, key)[2:8:3]] == [2, 5]


def test_the_real_expert_through_a_real_volume(server: RunningServer, tmp_path: Path) -> None:
    source = nibabel.load(Path(server.studies) / "oblique.nii.gz").slicer[:, :, 10:15]
    nibabel.save(source, tmp_path / "five.nii.gz")
    params = {"box": [8, 8, 26, 30], "axis": "axial", "slice_index": 2, "result_extension": ".nii.gz"}
    with server.client() as client, (tmp_path / "five.nii.gz").open("rb") as upload:
        session = client.put("/session/", files={"files": ("five.nii.gz", upload)}).json()["session_id"]
        reply = client.post(f"/infer/medreasoner_volume?session_id={session}", data={"params": json.dumps(params)})
    answered, mask = parts(reply)
    (tmp_path / "mask.nii.gz").write_bytes(mask)
    read = nibabel.load(tmp_path / "mask.nii.gz")
    assert read.shape == source.shape
    np.testing.assert_allclose(read.affine, source.affine, atol=1e-4)
    marked = np.asarray(read.dataobj).any(axis=(0, 1)).nonzero()[0].tolist()
    assert 2 in marked
    assert len(marked) > 1
    assert marked == list(range(marked[0], marked[-1] + 1))  # no gap
    assert "propagate" in answered["timings"]


def parts(reply: httpx.Response) -> tuple[dict, bytes]:
    from requests_toolbelt import MultipartDecoder

    assert reply.status_code == 200, reply.text
    params, mask = MultipartDecoder(reply.content, reply.headers["content-type"]).parts
    return json.loads(params.text), mask.content
