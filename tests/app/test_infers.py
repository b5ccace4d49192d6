"""What a question or a drawn region becomes: which slice, which voxels, which file, and plain JSON beside it.

SimpleITK says where a voxel lies in the patient; the models are ones whose answers are known beforehand.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom.data
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy.spatial.transform import Rotation

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import AnswerError, ImageError, MedReasonerError, QuestionError
from medreasoner.contract.wire import GroundingResult
from medreasoner.expert.protocol import BOX_AND_POINTS
from medreasoner.imaging import open_image
from monailabel_app.lib import images as images_module
from monailabel_app.lib.images import OpenedImages
from monailabel_app.lib.infers.ground import Ground
from monailabel_app.lib.infers.refine import Refine
from tests.app.plain_models import ABSENT, BrightInBox, found, pipeline

CT_SERIES = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests" / "98892001" / "CT5N"
ASKED = {"question": "Where is the liver?"}


@pytest.fixture(scope="module")
def knee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sagittal slices of unequal spacing, turned by three angles."""
    image = sitk.GetImageFromArray(np.random.default_rng(2).normal(size=(7, 24, 30)).astype(np.float32))
    image.SetSpacing((0.6, 0.9, 3.0))
    image.SetOrigin((-40.0, 11.0, 205.0))
    image.SetDirection(Rotation.from_euler("xyz", (15, -75, 8), degrees=True).as_matrix().ravel().tolist())
    path = tmp_path_factory.mktemp("knee") / "knee.nrrd"
    sitk.WriteImage(image, str(path))
    return path


def ask(path: Path, answer=None, **wish) -> tuple[sitk.Image, dict]:
    return run(Ground(pipeline(answer or found(Box(2, 3, 12, 9))), OpenedImages()), path, **{**ASKED, **wish})


def run(task, path: Path, **wish) -> tuple[sitk.Image, dict]:
    mask, params = task({"model": "any", "image": str(path), "client_id": None, "result_extension": ".nrrd", **wish})
    try:
        return sitk.ReadImage(mask), json.loads(json.dumps(params, allow_nan=False))
    finally:
        Path(mask).unlink()


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".nii", ".seg.nrrd"])
@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored", None])
def test_the_mask_lies_where_the_reply_says_that_the_box_is(knee: Path, axis: str | None, ending: str) -> None:
    source = sitk.ReadImage(str(knee))
    mask, params = ask(knee, axis=axis, slice_index=2, result_extension=ending)
    assert mask.GetSize() == source.GetSize()
    for theirs, ours in [(source.GetOrigin(), mask.GetOrigin()), (source.GetDirection(), mask.GetDirection())]:
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(mask.GetSpacing(), source.GetSpacing(), atol=1e-5)

    corner, right, _, down = np.array(params["box_corners_lps"])
    edges = np.stack([right - corner, down - corner, np.cross(right - corner, down - corner)], axis=1)
    edges[:, 2] /= np.linalg.norm(edges[:, 2])
    values = sitk.GetArrayFromImage(mask)
    everywhere = np.argwhere(values >= 0)[:, ::-1]
    places = np.array([mask.TransformIndexToPhysicalPoint(index) for index in everywhere.tolist()])
    along = np.linalg.solve(edges, (places - corner).T).T  # shares of the box's sides, and mm off its plane
    inside = ((along[:, :2] > 0) & (along[:, :2] < 1)).all(axis=1) & (np.abs(along[:, 2]) < 0.1)
    assert inside.sum() > 10
    np.testing.assert_array_equal(values[values >= 0] > 0, inside)


def test_absent_gives_an_empty_mask_of_the_whole_volume(knee: Path) -> None:
    mask, params = ask(knee, ABSENT, axis="coronal")
    assert mask.GetSize() == sitk.ReadImage(str(knee)).GetSize()
    assert not sitk.GetArrayFromImage(mask).any()
    result = GroundingResult.from_reply(params)
    assert (result.absent, result.box, result.points, result.target) == (True, None, None, "")


def test_the_reply_holds_what_the_contract_and_monai_labels_clients_want(knee: Path) -> None:
    _, params = ask(knee, slice_index=1)
    result = GroundingResult.from_reply(params)
    assert result.question == ASKED["question"]
    assert (result.target, params["label_names"]) == ("liver", {"liver": 1})
    assert result.reasoner == {"name": "told", "sha256": "a" * 64, "instruction_sha256": "b" * 64}
    assert set(params["latencies"]) == {"pre", "infer", "post", "total"}


@pytest.mark.parametrize(
    ("wish", "slice_index"),
    [
        ({}, 3),  # the middle one
        ({"slice": ""}, 3),  # an empty cell of the plug-in's table
        ({"slice": " 5 "}, 5),  # a cell is text
        ({"slice": 5}, 5),
        ({"slice_index": 6, "slice": "1"}, 6),  # the contract's own name wins
        ({"slice_index": 0}, 0),
    ],
)
def test_which_slice_is_asked_about(knee: Path, wish: dict, slice_index: int) -> None:
    mask, params = ask(knee, axis="stored", **wish)
    assert params["slice_index"] == slice_index
    assert np.unique(sitk.GetArrayFromImage(mask).nonzero()[0]).tolist() == [slice_index]


@pytest.mark.parametrize(
    ("wish", "kind", "why"),
    [
        ({"question": ""}, QuestionError, "is empty"),
        ({"question": 5}, QuestionError, "is empty"),
        ({"slice": "first"}, MedReasonerError, "is not a slice"),
        ({"slice_index": -1}, MedReasonerError, "is not a slice"),
        ({"slice_index": 7, "axis": "stored"}, ImageError, "slice 7 of knee.nrrd does not exist"),
        ({"axis": "transverse"}, MedReasonerError, "unknown axis"),
        ({"window": [40]}, MedReasonerError, "not two numbers"),
        ({"window": [40, float("nan")]}, MedReasonerError, "not two numbers"),
        ({"result_extension": ".exe"}, MedReasonerError, "not written as '.exe'"),
        ({"result_extension": ".png"}, ImageError, "cannot hold a mask of the volume"),
        ({"result_dtype": "complex64"}, MedReasonerError, "of type 'complex64'"),
        ({"image": ""}, ImageError, "no such image or session"),
    ],
)
def test_a_wish_that_cannot_be_granted_says_why_and_leaves_no_file(
    knee: Path, wish: dict, kind: type, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(kind, match=why):
        ask(knee, **wish)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("numbers", ["uint8", "int16", "uint16", "int32", "uint32"])
def test_the_masks_numbers_are_of_the_wished_type(knee: Path, numbers: str) -> None:
    mask, _ = ask(knee, result_dtype=numbers)
    assert sitk.GetArrayFromImage(mask).dtype == numbers


def test_kinds_of_images_and_the_file_that_each_gets_without_a_wish(knee: Path, tmp_path: Path) -> None:
    colour = np.random.default_rng(3).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "mole.jpg")
    Image.fromarray(colour).save(tmp_path / "film.tif", save_all=True, append_images=[Image.fromarray(colour)] * 2)
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 21, 5), np.int16), np.eye(4)), tmp_path / "zeros.nii.gz")
    task = Ground(pipeline(found(Box(2, 3, 12, 9))), OpenedImages())
    for path, ending, shape in [
        (knee, ".nrrd", (30, 24, 7)),
        (tmp_path / "zeros.nii.gz", ".nii.gz", (20, 21, 5)),
        (CT_SERIES, ".nii.gz", (16, 16, 5)),  # a folder of DICOM files
        (tmp_path / "film.tif", ".nii.gz", (40, 24, 3)),
        (tmp_path / "mole.jpg", ".png", (40, 24)),
    ]:
        mask, _ = task({"image": str(path), **ASKED})
        assert mask.endswith(ending)
        read = sitk.ReadImage(mask)
        assert read.GetSize() == shape
        assert sitk.GetArrayFromImage(read).any()
        Path(mask).unlink()


def test_the_axis_of_a_reply_can_be_asked_for_again() -> None:
    """DICOM opens as stored; the axial view of a patient who lies prone or feet first would be a flipped one."""
    asking = pipeline(found(Box(2, 3, 12, 9)))
    first, params = run(Ground(asking, OpenedImages()), CT_SERIES, **ASKED)
    assert params["axis"] == "stored"
    view = {name: params[name] for name in ("axis", "slice_index", "box")}
    again, _ = run(Refine(asking, OpenedImages()), CT_SERIES, **view)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(first))


def test_refining_asks_no_reasoner(knee: Path) -> None:
    asking = pipeline(ABSENT, BrightInBox())
    mask, params = run(
        Refine(asking, OpenedImages()), knee, box=[1, 2, 6, 8], axis="stored", slice_index=4, question="Where?"
    )
    result = GroundingResult.from_reply(params)
    assert asking.reasoner.asked == []
    assert (result.question, result.box, result.reasoner) == ("Where?", [1, 2, 6, 8], {})
    assert sitk.GetArrayFromImage(mask).any()


@pytest.mark.parametrize(
    ("wish", "kind", "why"),
    [
        ({}, MedReasonerError, "neither a box nor a point"),
        ({"box": [1, 2, 1, 4]}, AnswerError, "no area"),
        ({"box": [500, 500, 600, 600]}, AnswerError, "no area"),  # outside the picture
        ({"box": [1, 2, 3]}, MedReasonerError, "four numbers"),
        ({"foreground": [[3, 4, 2]]}, MedReasonerError, "span no box"),  # one click, and the expert takes boxes only
        ({"foreground": [[3, 4, 2], [9, 4, 2]]}, MedReasonerError, "span no box"),  # on one line
        ({"foreground": [[3, 4, 2], [9, 12, 5]]}, MedReasonerError, "span no box"),  # on two slices
        ({"foreground": [[3, 4]]}, MedReasonerError, "3 voxel indices"),
        ({"foreground": "3,4,2"}, MedReasonerError, "list of clicks"),
        ({"roi": [1, 2, 3]}, MedReasonerError, "6 voxel indices"),
        ({"roi": [1, 9, 1, 9, 0, 6], "slice": 99}, ImageError, "slice 99"),
        (
            {"foreground": [[3, 4, 2], [9, 12, 2]], "background": [[1, 1, 2]]},
            MedReasonerError,
            "background clicks cannot",
        ),
    ],
)
def test_a_region_that_means_nothing_says_what_to_draw(knee: Path, wish: dict, kind: type, why: str) -> None:
    with pytest.raises(kind, match=why) as caught:
        run(Refine(pipeline(ABSENT), OpenedImages()), knee, **wish)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("wish", "slice_index", "box"),
    [
        ({"roi": [4, 10, 6, 12, 0, 6], "slice": 3}, 3, [4.5, 6.5, 10.5, 12.5]),
        ({"roi": [10, 4, 12, 6, 6, 0], "slice": 3}, 3, [4.5, 6.5, 10.5, 12.5]),  # either end first
        ({"foreground": [[4, 9, 2], [10, 8, 2], [7, 6, 2], [6, 12, 2]], "slice": 2}, 2, [4, 6, 11, 13]),
        ({"foreground": [[0, 0, 6], [4, 6, 2], [10, 12, 2]], "background": []}, 2, [4, 6, 11, 13]),  # the last
    ],
)
def test_smart_edit_draws_a_box_with_voxels(tmp_path: Path, wish: dict, slice_index: int, box: list) -> None:
    """Cubic voxels stored as they are shown, so that a voxel's centre is its picture pixel's."""
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 22, 7), np.int16), np.eye(4)), tmp_path / "cube.nii")
    mask, params = run(
        Refine(pipeline(ABSENT), OpenedImages()),
        tmp_path / "cube.nii",
        **{**wish, "label": "mine", "reset_state": True},
    )
    assert (params["slice_index"], params["axis"], params["box"]) == (slice_index, "stored", box)
    assert params["label_names"] == {"mine": 1}
    marked = np.argwhere(sitk.GetArrayFromImage(mask))
    assert np.unique(marked[:, 0]).tolist() == [slice_index]
    centres = np.unique(marked[:, 1:], axis=0)[:, ::-1] + 0.5  # of the picture's pixels, which these voxels are
    assert (centres.min(axis=0) - 1 <= box[:2]).all() and (centres.min(axis=0) > box[:2]).all()
    assert (centres.max(axis=0) + 1 >= box[2:]).all() and (centres.max(axis=0) < box[2:]).all()


@pytest.mark.parametrize(
    ("wish", "box", "points"),
    [
        ({"foreground": [[4, 6, 2], [9, 9, 5]]}, None, [Point(4.5, 6.5)]),  # one click on this slice
        ({"foreground": [[4, 6, 2]], "roi": [1, 9, 2, 9, 0, 6]}, Box(1.5, 2.5, 9.5, 9.5), [Point(4.5, 6.5)]),
        ({"foreground": [[4, 6, 2], [9, 9, 2]]}, Box(4, 6, 10, 10), []),  # on the edges of the target, not on it
    ],
)
def test_what_an_expert_that_takes_points_is_given(tmp_path: Path, wish: dict, box: Box | None, points: list) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 22, 7), np.int16), np.eye(4)), tmp_path / "cube.nii")
    expert = BrightInBox(takes=BOX_AND_POINTS)
    _, params = run(Refine(pipeline(ABSENT, expert), OpenedImages()), tmp_path / "cube.nii", slice=2, **wish)
    assert expert.given == [(box, tuple(points))]
    assert params["box"] == (box and box.as_list())
    assert params["points_ijk"] == ([[4.0, 6.0, 2.0]] if points else None)


def test_the_second_question_does_not_read_the_file_again(
    knee: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    monkeypatch.setattr(images_module, "open_image", lambda path: reads.append(path) or open_image(path))
    copy = tmp_path / "knee.nrrd"
    copy.write_bytes(knee.read_bytes())
    images = OpenedImages(2)
    task = Ground(pipeline(ABSENT), images)
    for _ in range(3):
        run(task, copy, **ASKED)
    assert reads == [copy]
    sitk.WriteImage(sitk.ReadImage(str(knee)) + 1, str(copy))
    run(task, copy, **ASKED)
    assert reads == [copy] * 2  # it has changed
    run(task, CT_SERIES, **ASKED)
    run(task, knee, **ASKED)
    assert len(images) == 2
    run(task, CT_SERIES, **ASKED)
    assert reads[2:] == [CT_SERIES, knee]  # a folder is known again by its files


def test_what_tells_a_series_from_a_changed_one_is_short(tmp_path: Path) -> None:
    """The server keeps one beside each of hundreds of small pictures, and a list of all files is larger than those."""
    (tmp_path / "series").mkdir()
    for number in range(300):
        (tmp_path / "series" / f"{number}.dcm").touch()
    before = images_module.state_of(tmp_path / "series")
    assert len(before) == 64
    assert images_module.state_of(tmp_path / "series") == before
    (tmp_path / "series" / "7.dcm").write_bytes(b"more")
    assert images_module.state_of(tmp_path / "series") != before


def test_two_questions_at_once_read_the_file_once(knee: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def slowly(path: Path):
        reads.append(path)
        time.sleep(0.2)
        return open_image(path)

    monkeypatch.setattr(images_module, "open_image", slowly)
    images, opened = OpenedImages(), []
    threads = [threading.Thread(target=lambda: opened.append(images.get(knee))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(reads) == 1
    assert len(opened) == 4
    assert all(image is opened[0] for image in opened)


def test_an_image_that_could_not_be_opened_is_tried_again(knee: Path, tmp_path: Path) -> None:
    images = OpenedImages()
    for _ in range(2):
        with pytest.raises(ImageError, match="no file or folder"):
            images.get(tmp_path / "late.nrrd")
    (tmp_path / "late.nrrd").write_bytes(knee.read_bytes())
    assert images.get(tmp_path / "late.nrrd").shape == (30, 24, 7)
