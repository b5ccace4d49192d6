"""Masks in the grid of the image they belong to, read back by SimpleITK."""

from __future__ import annotations

from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pydicom.data
import pytest
import SimpleITK as sitk
from nibabel.testing import data_path as NIBABEL
from PIL import Image
from scipy.spatial.transform import Rotation

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import StoredImage, open_image, write_mask, write_volume_mask
from medreasoner.picture import Picture

PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
CT_SERIES = PYDICOM / "dicomdirtests/98892001/CT5N"
MR_VOLUME = NIBABEL / "anatomical.nii"
KNEE_SHAPED = Path("made by volume()")


def volume(tmp_path: Path) -> Path:
    """Sagittal slices of unequal spacing, turned by three angles."""
    image = sitk.GetImageFromArray(np.random.default_rng(2).normal(size=(7, 9, 11)).astype(np.float32))
    image.SetSpacing((0.6, 0.9, 3.0))
    image.SetOrigin((-40.0, 11.0, 205.0))
    image.SetDirection(Rotation.from_euler("xyz", (15, -75, 8), degrees=True).as_matrix().ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "knee.nrrd"))
    return tmp_path / "knee.nrrd"


def drawn(picture: Picture) -> np.ndarray:
    """A mask without symmetry."""
    mask = np.zeros((picture.height, picture.width), bool)
    mask[: picture.height // 3, : picture.width // 2] = True
    mask[picture.height // 2, -2:] = True
    return mask


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored", None])
@pytest.mark.parametrize("source", [CT_SERIES, MR_VOLUME, KNEE_SHAPED], ids=["series", "nifti", "nrrd"])
def test_masks_lie_on_their_image(source: Path, axis: str | None, ending: str, tmp_path: Path) -> None:
    image = open_image(volume(tmp_path) if source is KNEE_SHAPED else source)
    picture = image.picture(axis, 1)
    path = write_mask(drawn(picture), picture, image, tmp_path / f"mask{ending}")
    written = sitk.ReadImage(str(path))

    values = sitk.GetArrayFromImage(written).transpose(2, 1, 0)
    np.testing.assert_array_equal(values, picture.mask_in_volume(drawn(picture)))
    for index in ([0.0, 0.0, 0.0], [3.0, 1.5, 2.0]):
        here = written.TransformContinuousIndexToPhysicalPoint(index)
        np.testing.assert_allclose((image.index_to_lps @ [*index, 1])[:3], here, atol=1e-4)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored"])
def test_whole_slices_keep_their_count(axis: str, tmp_path: Path) -> None:
    """The MR volume has cubic voxels: nothing is resampled, so no pixel may be lost or doubled."""
    image = open_image(MR_VOLUME)
    picture = image.picture(axis, 4)
    path = write_mask(drawn(picture), picture, image, tmp_path / "mask.nii.gz")
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).sum() == drawn(picture).sum()


def test_resampled_masks_cover_the_voxels_they_were_drawn_on(tmp_path: Path) -> None:
    image = open_image(volume(tmp_path))
    picture = image.picture("coronal")
    voxels = np.zeros(image.shape, bool)
    index = np.rint([picture.index_of(p) for p in pixel_centres(picture)]).astype(int)
    chosen = np.random.default_rng(4).random(image.shape) < 0.3
    mask = chosen[tuple(index.T)].reshape(picture.height, picture.width)
    voxels[tuple(index.T)] = chosen[tuple(index.T)]
    np.testing.assert_array_equal(picture.mask_in_volume(mask), voxels)


def pixel_centres(picture: Picture) -> list:
    from medreasoner.contract.answer import Point

    return [Point(x + 0.5, y + 0.5) for y in range(picture.height) for x in range(picture.width)]


def test_an_oblique_mask_stays_within_the_slab(tmp_path: Path) -> None:
    image = open_image(MR_VOLUME)
    normal = np.array([1.0, 2.0, 2.0]) / 3
    right, down = np.array([2.0, 1, -2]) / 3, np.array([-2.0, 2, -1]) / 3
    centre = (image.index_to_lps @ [16, 20, 12, 1])[:3]
    picture = image.oblique_picture(centre, right, down, (30.0, 24.0))
    path = write_mask(np.ones((picture.height, picture.width), bool), picture, image, tmp_path / "mask.nii.gz")
    voxels = np.argwhere(nibabel.load(path).get_fdata())
    away = (np.c_[voxels, np.ones(len(voxels))] @ image.index_to_lps.T)[:, :3] - centre
    assert len(voxels) > 100
    assert np.abs(away @ normal).max() <= 0.5 * 2.0  # half a voxel of 2 mm, at most
    assert np.abs(away @ right).max() <= 15 + 1.0
    assert np.abs(away @ down).max() <= 12 + 1.0


@pytest.mark.parametrize(
    ("path", "size"),
    [
        (PYDICOM / "CT_small.dcm", (128, 128)),
        (PYDICOM / "ExplVR_BigEnd.dcm", (80, 60)),
        (NIBABEL / "0.dcm", (256, 256)),
    ],
)
def test_single_images_get_a_png_of_their_stored_size(path: Path, size: tuple[int, int], tmp_path: Path) -> None:
    image = open_image(path)
    picture = image.picture()
    with Image.open(write_mask(drawn(picture), picture, image, tmp_path / "mask.png")) as written:
        assert (written.size, written.mode) == (size, "L")
        np.testing.assert_array_equal(np.asarray(written), drawn(picture) * 255)


def test_a_png_shows_rows_and_columns_as_stored_even_when_the_view_is_flipped(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 4, 1), np.uint8), affine), tmp_path / "slice.nii")
    image = open_image(tmp_path / "slice.nii")
    picture = image.picture("axial")
    mask = np.zeros((4, 5), bool)
    mask[0, 0] = True  # right and anterior of the patient: the last i and j
    written = np.asarray(Image.open(write_mask(mask, picture, image, tmp_path / "mask.png")))
    assert np.argwhere(written).tolist() == [[3, 4]]


def test_a_png_of_a_film_holds_the_shown_frame(tmp_path: Path) -> None:
    image = open_image(PYDICOM / "SC_rgb_rle_2frame.dcm")
    picture = image.picture(slice_index=1)
    written = np.asarray(Image.open(write_mask(drawn(picture), picture, image, tmp_path / "mask.png")))
    np.testing.assert_array_equal(written > 0, drawn(picture))


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_images_without_geometry_get_masks_without_geometry(ending: str, tmp_path: Path) -> None:
    image = open_image(PYDICOM / "JPEG2000.dcm")
    picture = image.picture()
    mask = open_image(write_mask(drawn(picture), picture, image, tmp_path / f"mask{ending}"))
    assert (mask.index_to_lps, mask.shape, mask.spacing) == (None, image.shape, pytest.approx(image.spacing))


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_mask_of_many_slices_keeps_its_place_and_its_type(ending: str, tmp_path: Path) -> None:
    image = open_image(volume(tmp_path))
    chosen = np.random.default_rng(5).random(image.shape) < 0.3
    path = write_volume_mask(chosen.astype(np.uint16), image, tmp_path / f"mask{ending}")
    written = sitk.ReadImage(str(path))
    assert written.GetPixelID() == sitk.sitkUInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written).transpose(2, 1, 0), chosen)
    here = written.TransformContinuousIndexToPhysicalPoint([3.0, 1.5, 2.0])
    np.testing.assert_allclose((image.index_to_lps @ [3.0, 1.5, 2.0, 1])[:3], here, atol=1e-4)
    with pytest.raises(ImageError, match="does not fit"):
        write_volume_mask(chosen[:-1], image, tmp_path / f"mask{ending}")


def test_a_segmentation_of_slicer_names_its_segment(tmp_path: Path) -> None:
    image = open_image(volume(tmp_path))
    path = write_volume_mask(np.ones(image.shape, np.uint8), image, tmp_path / "mask.seg.nrrd", segment="optic\ndisc")
    header = nrrd.read_header(str(path))
    assert (header["Segment0_Name"], header["Segment0_LabelValue"]) == ("optic disc", "1")
    assert header["Segment0_Extent"] == "0 10 0 8 0 6"
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).all()


def opened_with_picture(path: Path) -> tuple[StoredImage, Picture]:
    image = open_image(path)
    return image, image.picture()


def test_masks_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    image, picture = opened_with_picture(CT_SERIES)
    other, _ = opened_with_picture(MR_VOLUME)
    for mask, whose, path, message in [
        (np.ones((3, 3), bool), image, tmp_path / "mask.nii", "does not fit"),
        (drawn(picture), other, tmp_path / "mask.nii", "does not fit"),
        (drawn(picture), image, tmp_path / "mask.png", ".nii.gz or .nrrd"),  # a volume
        (drawn(picture), image, tmp_path / "mask.jpg", ".nii.gz or .nrrd"),
        (drawn(picture), image, tmp_path / "mask", "without ending"),
        (drawn(picture), image, tmp_path / "nowhere" / "mask.nii", "cannot be written"),
        (drawn(picture), image, tmp_path / "nowhere" / "mask.nrrd", "cannot be written"),
    ]:
        with pytest.raises(ImageError, match=f"(?s){message}"):
            write_mask(mask, picture, whose, path)
