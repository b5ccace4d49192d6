"""NIfTI and NRRD files: forms, units, spaces, colours and scaling, against SimpleITK and on nibabel's own files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.testing import data_path as NIBABEL
from scipy.spatial.transform import Rotation

from medreasoner.contract.answer import Point
from medreasoner.contract.errors import ImageError
from medreasoner.imaging import open_image

SHAPE = (9, 8, 7)  # along i, j, k
LEVELS = np.random.default_rng(7).integers(0, 256, SHAPE).astype(np.uint8)
TURNED = Rotation.from_euler("xyz", (5, 15, 25), degrees=True).as_matrix() * [0.7, 1.3, 2.5]


@pytest.mark.parametrize("space", ["left-posterior-superior", "Right-Anterior-Superior", "LAS", "lps", "Ras"])
def test_nrrd_spaces_agree_with_itk(space: str, tmp_path: Path) -> None:
    header = {"space": space, "space directions": TURNED, "space origin": [1.0, 2.0, 3.0]}
    nrrd.write(str(tmp_path / "volume.nrrd"), LEVELS, header)
    expected = sitk.ReadImage(str(tmp_path / "volume.nrrd"))
    picture = open_image(tmp_path / "volume.nrrd").picture("coronal")
    index = picture.index_of(Point(2, 5)).tolist()
    np.testing.assert_allclose(picture.lps_of(Point(2, 5)), expected.TransformContinuousIndexToPhysicalPoint(index))


@pytest.mark.parametrize(
    ("units", "in_mm"),
    [
        (["mm", "mm", "mm"], (1, 1, 1)),
        (["Millimeter"] * 3, (1, 1, 1)),
        (["cm", "cm", "cm"], (10, 10, 10)),
        (["meter", "Metre", "meters"], (1000, 1000, 1000)),
        (["micron", "microns", "um"], (0.001, 0.001, 0.001)),
        (["cm", "mm", "cm"], (10, 1, 10)),  # one for each axis of space, so that they may differ
        (["", "???", "mm"], (1, 1, 1)),  # "not known" in the format's words: mm, as without the field
    ],
)
def test_nrrd_units_become_mm(units: list[str], in_mm: tuple[float, ...], tmp_path: Path) -> None:
    """The same place in mm by ITK, which does not look at the units."""
    header = {"space": "RAS", "space directions": TURNED, "space origin": [1.0, 2.0, 3.0]}
    nrrd.write(str(tmp_path / "plain.nrrd"), LEVELS, header)
    nrrd.write(str(tmp_path / "volume.nrrd"), LEVELS, {**header, "space units": units})
    plain = sitk.ReadImage(str(tmp_path / "plain.nrrd")).TransformContinuousIndexToPhysicalPoint([1.0, 2.5, 3.0])
    actual = open_image(tmp_path / "volume.nrrd").index_to_lps @ [1.0, 2.5, 3.0, 1.0]
    np.testing.assert_allclose(actual[:3], np.multiply(plain, in_mm), rtol=1e-9)


@pytest.mark.parametrize("unit", ["mm", "micron", "meter"])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1)], ids=["sform", "qform", "both"])
def test_nifti_forms_and_units_agree_with_itk(codes: tuple[int, int], unit: str, tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURNED, (10, 20, 30)
    file = nibabel.Nifti1Image(LEVELS, affine)
    file.set_sform(affine if codes[0] else None, codes[0])
    file.set_qform(affine if codes[1] else None, codes[1])
    file.header.set_xyzt_units(unit)
    nibabel.save(file, tmp_path / "volume.nii")
    expected = sitk.ReadImage(str(tmp_path / "volume.nii")).TransformContinuousIndexToPhysicalPoint([1.0, 2.5, 3.0])
    actual = open_image(tmp_path / "volume.nii").index_to_lps @ [1.0, 2.5, 3.0, 1.0]
    np.testing.assert_allclose(actual[:3], expected, rtol=1e-5)


def test_files_that_do_not_know_the_patient_have_no_geometry(tmp_path: Path) -> None:
    file = nibabel.Nifti1Image(LEVELS, None)
    file.header.set_zooms((1.0, 2.0, 3.0))
    nibabel.save(file, tmp_path / "volume.nii")
    nrrd.write(str(tmp_path / "volume.nrrd"), LEVELS, {"spacings": [1.0, 2.0, 3.0]})
    for name in ("volume.nii", "volume.nrrd"):
        image = open_image(tmp_path / name)
        assert (image.index_to_lps, image.is_volume, image.picture().axis) == (None, False, "stored")
        assert image.picture().pixels.shape == (2 * SHAPE[1], SHAPE[0], 3)  # square pixels still
        with pytest.raises(ImageError, match="stored"):
            image.picture("axial")


def test_colour_volumes_keep_their_colours(tmp_path: Path) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)  # k, j, i
    itk = sitk.GetImageFromArray(colours, isVector=True)
    for ending in (".nrrd", ".nii"):
        sitk.WriteImage(itk, str(tmp_path / f"volume{ending}"))
        image = open_image(tmp_path / f"volume{ending}")
        np.testing.assert_array_equal(image.values, colours.transpose(2, 1, 0, 3))
        np.testing.assert_array_equal(image.picture("stored", 1).pixels, colours[1])
        assert image.picture("stored", 1, (40, 400)).window is None
    parts = colours.transpose(2, 1, 0, 3).copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(parts, np.eye(4)), tmp_path / "rgb.nii.gz")
    np.testing.assert_array_equal(open_image(tmp_path / "rgb.nii.gz").values, colours.transpose(2, 1, 0, 3))


def test_alpha_lies_on_black(tmp_path: Path) -> None:
    colours = np.full((4, 2, 3, 2), 200, np.uint8)
    colours[3] = [[[0, 255]] * 3] * 2
    header = {"kinds": ["RGBA-color", "domain", "domain", "domain"]}
    nrrd.write(str(tmp_path / "rgba.nrrd"), colours, header)
    image = open_image(tmp_path / "rgba.nrrd")
    assert (image.values[:, :, 0] == 0).all()
    assert (image.values[:, :, 1] == 200).all()


@pytest.mark.parametrize(
    ("low", "share", "expected"),
    [(-1000, 1.0, "CT"), (-501, 0.01, "CT"), (-500, 1.0, ""), (-2000, 0.0001, "")],
    ids=["air", "a little air", "just not", "undershoot of an interpolated MR"],
)
def test_hounsfield_units_are_recognised(low: int, share: float, expected: str, tmp_path: Path) -> None:
    values = np.zeros((20, 25, 20), np.int16)
    values.flat[: max(int(share * values.size), 1)] = low
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "volume.nii")
    image = open_image(tmp_path / "volume.nii")
    assert image.modality == expected
    assert (image.picture().window == (40, 400)) == (expected == "CT")


def test_a_trailing_axis_of_one_is_fine(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(LEVELS[..., None], np.eye(4)), tmp_path / "volume.nii")
    assert open_image(tmp_path / "volume.nii").shape == SHAPE


def test_scaled_integers_are_scaled(tmp_path: Path) -> None:
    file = nibabel.Nifti1Image(LEVELS.astype(np.int16), np.eye(4))
    file.header.set_slope_inter(0.5, -10)
    nibabel.save(file, tmp_path / "volume.nii")
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "volume.nii"))).transpose(2, 1, 0)
    np.testing.assert_allclose(open_image(tmp_path / "volume.nii").values, expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["anatomical.nii", "reoriented_anat_moved.nii", "resampled_anat_moved.nii", "standard.nii.gz"]
)
def test_real_nifti_files_agree_with_itk(name: str) -> None:
    """nibabel's own: big-endian int16, float32 in RAS order, NaN background, anisotropic bytes."""
    image, expected = open_image(Path(NIBABEL) / name), sitk.ReadImage(str(Path(NIBABEL) / name))
    known = np.isfinite(nibabel.load(Path(NIBABEL) / name).get_fdata())
    values = sitk.GetArrayFromImage(expected).transpose(2, 1, 0)
    np.testing.assert_allclose(image.values[known], values[known], rtol=1e-6)
    assert (image.values[~known] == values[known].min()).all()
    index = [1.0, 2.0, 1.5]
    np.testing.assert_allclose(
        (image.index_to_lps @ [*index, 1])[:3], expected.TransformContinuousIndexToPhysicalPoint(index), atol=1e-4
    )
