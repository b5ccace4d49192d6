"""Files that the server's reader and SimpleITK read, and masks that they write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from MedReasonerLib.mask import Mask
from MedReasonerLib.multipart import Form, parse
from MedReasonerLib.nrrd_file import compressed_file, header, read_mask, write_form

from medreasoner.contract.errors import MedReasonerError
from medreasoner.imaging import open_image
from medreasoner.imaging.mask_file import write_mask
from tests.slicer.steps import finish

TILTED = np.array([[0.6, -0.4, 0.1, -20], [0.5, 0.7, 0.2, 31], [-0.1, 0.1, 2.9, 7], [0, 0, 0, 1.0]])
SHAPE = (12, 9, 7)


def small_file(values: np.ndarray, to_ras: np.ndarray) -> bytes:
    return finish(compressed_file(values, to_ras))


def uploaded(values: np.ndarray, folder: Path) -> Path:
    """The file inside the form that is sent."""
    form, body, file = Form(), folder / "body", folder / "volume.nrrd"
    finish(write_form(values, TILTED, form, "files", "volume.nrrd", body))
    part = parse(body.read_bytes(), form.content_type)["files"]
    assert part.filename == "volume.nrrd"
    file.write_bytes(part.content)
    return file


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64", ">i2"])
def test_uploaded_volumes_are_read_by_the_server_and_by_itk(kind: str, tmp_path: Path) -> None:
    values = (np.arange(np.prod(SHAPE)) % 120).reshape(SHAPE[::-1]).astype(kind)
    file = uploaded(values, tmp_path)
    itk = sitk.ReadImage(str(file))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), values)
    lps = [itk.TransformContinuousIndexToPhysicalPoint(p) for p in np.vstack([np.zeros(3), np.eye(3)])]
    expected = np.diag([-1, -1, 1]) @ (TILTED[:3, :3] @ np.vstack([np.zeros(3), np.eye(3)]).T + TILTED[:3, 3:])
    # ITK makes the axes unit vectors and keeps the spacing apart; the products agree
    np.testing.assert_allclose(np.transpose(lps), expected, atol=1e-9)
    image = open_image(file)
    np.testing.assert_array_equal(image.values, values.transpose(2, 1, 0))
    np.testing.assert_allclose(image.index_to_lps, np.diag([-1, -1, 1, 1]) @ TILTED, atol=1e-12)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_volumes_are_read_by_the_server(channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (*SHAPE[::-1], channels), np.uint8)
    values[..., 3:] = 255  # opaque
    image = open_image(uploaded(values, tmp_path))
    np.testing.assert_array_equal(image.values, values[..., :3].transpose(2, 1, 0, 3))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((2, 3, 4, 6), np.float32), "6 numbers of type float32"),  # a diffusion volume
        (np.zeros((2, 3, 4, 3), np.float32), "3 numbers of type float32"),  # a displacement field
        (np.zeros((2, 3, 4), np.complex64), "one number of type complex64"),
    ],
)
def test_what_is_no_picture_is_refused_before_anything_is_sent(values: np.ndarray, reason: str) -> None:
    with pytest.raises(MedReasonerError, match=reason):
        header(values, TILTED)


def test_masks_from_the_core_and_from_itk_are_read_cropped(tmp_path: Path) -> None:
    image = open_image(uploaded(np.zeros(SHAPE[::-1], np.int16), tmp_path))
    picture = image.picture("stored", 4)
    drawn = np.zeros((picture.height, picture.width), bool)
    drawn[2:5, 3:9] = True
    file = write_mask(drawn, picture, image, tmp_path / "mask.nrrd")
    mask = finish(read_mask(file.read_bytes(), SHAPE, TILTED))
    np.testing.assert_array_equal(mask.full(SHAPE).transpose(2, 1, 0), picture.mask_in_volume(drawn))
    assert mask.offset[2] == 4
    assert mask.voxels.shape[0] == 1  # only the slice that was asked about
    itk = sitk.ReadImage(str(file))
    for compressed in (True, False):
        sitk.WriteImage(itk, str(tmp_path / "itk.nrrd"), compressed)
        again = finish(read_mask((tmp_path / "itk.nrrd").read_bytes(), SHAPE, TILTED))
        np.testing.assert_array_equal(again.voxels, mask.voxels)
    written = small_file(mask.full(SHAPE), TILTED)
    assert finish(read_mask(written, SHAPE, TILTED)).offset == mask.offset


def test_an_empty_mask_has_no_voxels() -> None:
    mask = finish(read_mask(small_file(np.zeros(SHAPE[::-1], np.uint8), TILTED), SHAPE, TILTED))
    assert isinstance(mask, Mask)
    assert mask.count == 0
    assert not mask.full(SHAPE).any()


def test_masks_of_another_grid_or_damaged_are_refused() -> None:
    good = small_file(np.ones(SHAPE[::-1], np.uint8), TILTED)
    moved = TILTED.copy()
    moved[0, 3] += 1.0
    cases = [
        (good, (12, 9, 8), TILTED, "voxels, the volume"),
        (good, SHAPE, moved, "lies elsewhere"),
        (good[:-30], SHAPE, TILTED, "cannot be read"),
        (b"<html>", SHAPE, TILTED, "not an attached NRRD"),
        (small_file(np.ones(SHAPE[::-1], np.float32), TILTED), SHAPE, TILTED, "type float"),
    ]
    for data, shape, matrix, reason in cases:
        with pytest.raises(MedReasonerError, match=reason):
            finish(read_mask(data, shape, matrix))
