"""NIfTI and NRRD: where every pixel lies in the patient, against SimpleITK; and which way up the views are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medreasoner.contract.answer import Point
from medreasoner.contract.errors import ImageError
from medreasoner.imaging import StoredImage, open_image
from medreasoner.imaging.planes import VIEWS
from medreasoner.picture import Picture

SHAPE = (9, 8, 7)  # along i, j, k
LEVELS = np.random.default_rng(7).integers(0, 256, SHAPE).astype(np.uint8)
IDENTITY_WINDOW = (128.0, 256.0)  # under LINEAR, grey levels are the stored bytes
MIRRORED = np.diag([-1.0, 1.0, 1.0])


def itk_volume(direction: np.ndarray, spacing: tuple[float, float, float], values: np.ndarray = LEVELS) -> sitk.Image:
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(spacing)
    image.SetOrigin((-31.5, 12.25, 700.0))
    return image


def euler(*degrees: float) -> np.ndarray:
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


GRIDS = {  # direction cosines (columns: i, j, k in LPS) and spacing in mm, with the reason
    "aligned": (np.eye(3), (1.0, 1.0, 1.0)),
    "unequal spacing": (np.eye(3), (0.7, 1.3, 2.5)),
    "flipped i and j, as RAS files": (np.diag([-1.0, -1.0, 1.0]), (0.7, 1.3, 2.5)),
    "left-handed": (MIRRORED, (1.0, 1.0, 3.0)),
    "sagittal storage": (np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]), (0.8, 0.8, 4.0)),
    "oblique": (euler(12, -20, 31), (0.7, 1.3, 2.5)),
    "oblique and left-handed": (euler(25, 10, -20) @ MIRRORED, (1.1, 0.6, 0.9)),
}


@pytest.fixture(params=GRIDS, ids=str)
def grid(request: pytest.FixtureRequest) -> sitk.Image:
    return itk_volume(*GRIDS[request.param])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored", None])
def test_every_pixel_lies_where_itk_puts_it(grid: sitk.Image, ending: str, axis: str | None, tmp_path: Path) -> None:
    sitk.WriteImage(grid, str(tmp_path / f"volume{ending}"))
    picture = open_image(tmp_path / f"volume{ending}").picture(axis, slice_index=2)
    for x, y in [(0.5, 0.5), (picture.width, 0.0), (3.25, 4.75)]:
        expected = grid.TransformContinuousIndexToPhysicalPoint(picture.index_of(Point(x, y)).tolist())
        np.testing.assert_allclose(picture.lps_of(Point(x, y)), expected, atol=1e-4)  # NIfTI headers are float32


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored"])
@pytest.mark.parametrize("name", ["aligned", "left-handed", "oblique"])
def test_pixels_show_the_voxels_they_point_to(name: str, axis: str, tmp_path: Path) -> None:
    direction, _ = GRIDS[name]
    sitk.WriteImage(itk_volume(direction, (1.0, 1.0, 1.0)), str(tmp_path / "volume.nrrd"))
    picture = open_image(tmp_path / "volume.nrrd").picture(axis, 3, IDENTITY_WINDOW)
    for row in range(picture.height):
        for column in range(picture.width):
            index = np.rint(picture.index_of(Point(column + 0.5, row + 0.5))).astype(int)
            assert picture.pixels[row, column, 0] == LEVELS[tuple(index)]


@pytest.mark.parametrize("axis", VIEWS)
def test_views_are_radiological(grid: sitk.Image, axis: str, tmp_path: Path) -> None:
    """Axial: left of the patient on the right, posterior down. Coronal, sagittal: inferior down."""
    sitk.WriteImage(grid, str(tmp_path / "volume.nrrd"))
    picture = open_image(tmp_path / "volume.nrrd").picture(axis)
    corner = picture.lps_of(Point(0, 0))
    for (patient_axis, sign), end in zip(VIEWS[axis], (Point(1, 0), Point(0, 1)), strict=True):
        step = picture.lps_of(end) - corner
        assert np.argmax(np.abs(step)) == patient_axis
        assert np.sign(step[patient_axis]) == sign


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored"])
def test_pixels_are_square(grid: sitk.Image, axis: str, tmp_path: Path) -> None:
    sitk.WriteImage(grid, str(tmp_path / "volume.nrrd"))
    assert_square(open_image(tmp_path / "volume.nrrd").picture(axis))


def assert_square(picture: Picture) -> None:
    steps = (picture.index_to_lps[:3, :3] @ picture.to_index)[:, :2]
    width, height = np.linalg.norm(steps, axis=0)
    assert width == pytest.approx(height, rel=0.01)


def ramp_image(direction: np.ndarray, spacing: tuple[float, float, float]) -> StoredImage:
    """A volume whose value at every LPS position p is ``slope . p``: linear resampling must reproduce it."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, (-31.5, 12.25, 700.0)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    values = (index @ affine[:3, :3].T + affine[:3, 3]) @ SLOPE
    return StoredImage(Path("ramp"), values.astype(np.float32), affine, is_volume=True)


SLOPE = np.array([0.9, -0.5, 0.4])


def assert_shows_ramp(picture: Picture) -> None:
    """Inside the outer voxel centres, grey levels follow ``SLOPE`` to half a level."""
    centre, width = picture.window
    for row in range(picture.height):
        for column in range(picture.width):
            here = Point(column + 0.5, row + 0.5)
            index = picture.index_of(here)
            if (index < 0).any() or (index > np.array(SHAPE) - 1).any():
                continue
            level = np.clip((picture.lps_of(here) @ SLOPE - centre) / width + 0.5, 0, 1) * 255
            assert picture.pixels[row, column, 0] == pytest.approx(level, abs=0.51)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("name", ["unequal spacing", "flipped i and j, as RAS files", "oblique and left-handed"])
def test_resampling_to_square_pixels_moves_nothing(name: str, axis: str) -> None:
    assert_shows_ramp(ramp_image(*GRIDS[name]).picture(axis))


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(0.5, 4)] * 3), st.floats(-180, 180))
def test_an_oblique_picture_shows_what_lies_at_its_place(
    angles: tuple[float, float, float], spacing: tuple[float, float, float], turn: float
) -> None:
    image = ramp_image(euler(10, 20, turn), spacing)
    centre = (image.index_to_lps @ [*(n / 2 for n in SHAPE), 1])[:3]
    right, down, _ = euler(*angles).T
    picture = image.oblique_picture(centre, right * 3, down, (14.0, 9.0), spacing_mm=0.75)
    assert (picture.width, picture.height, picture.axis) == (19, 12, "oblique")
    np.testing.assert_allclose(picture.lps_of(Point(9.5, 6)), centre, atol=1e-6)
    np.testing.assert_allclose(picture.lps_of(Point(10.5, 6)) - centre, right * 0.75, atol=1e-6)
    assert_shows_ramp(picture)


def test_oblique_pictures_are_black_outside_and_as_fine_as_the_volume() -> None:
    image = ramp_image(np.eye(3), (0.5, 1.0, 2.0))
    edge = image.index_to_lps[:3, 3] + [0, 3, 6]
    picture = image.oblique_picture(edge, (1, 0, 0), (0, 0, 1), (4.0, 4.0))
    assert picture.pixels.shape == (8, 8, 3)
    assert (picture.pixels[:, :3] == 0).all()
    assert picture.pixels[:, 4:].any()


@pytest.mark.parametrize(
    ("centre", "right", "down", "size", "spacing"),
    [
        ((-30, 15, 705), (1, 0, 0), (1, 1, 0), (9.0, 9.0), None),  # not perpendicular
        ((-30, 15, 705), (0, 0, 0), (0, 1, 0), (9.0, 9.0), None),  # no direction
        ((-30, 15, np.nan), (1, 0, 0), (0, 1, 0), (9.0, 9.0), None),
        ((-30, 15, 705), (1, 0, 0), (0, 1, 0), (0.0, 9.0), None),  # no area
        ((-30, 15, 705), (1, 0, 0), (0, 1, 0), (9.0, 9.0), -1.0),
        ((-30, 15, 705), (1, 0, 0), (0, 1, 0), (9e6, 9e6), 0.1),  # more pixels than memory
        ((-30, 15, 9000), (1, 0, 0), (0, 1, 0), (9.0, 9.0), None),  # beside the volume
        ((-30, 15), (1, 0, 0), (0, 1, 0), (9.0, 9.0), None),  # two numbers
    ],
)
def test_impossible_planes_are_refused(
    centre: tuple[float, ...], right: tuple[float, ...], down: tuple[float, ...], size: tuple, spacing: float | None
) -> None:
    with pytest.raises(ImageError, match="->"):
        ramp_image(np.eye(3), (1.0, 1.0, 1.0)).oblique_picture(centre, right, down, size, spacing)


@pytest.mark.parametrize(
    ("spacing", "shape", "direction", "expected"),
    [
        ((1, 1, 1), (8, 8, 8), np.eye(3), "axial"),
        ((0.5, 0.5, 5), (8, 8, 8), np.eye(3), "axial"),  # thick axial slices
        ((3, 0.4, 0.4), (8, 8, 8), np.eye(3), "sagittal"),  # a knee
        ((0.4, 0.4, 3), (8, 8, 8), GRIDS["sagittal storage"][0], "sagittal"),
        ((1, 4, 1), (8, 8, 8), np.eye(3), "coronal"),
        ((1.2, 1, 1), (8, 8, 8), np.eye(3), "axial"),  # not thick enough to matter
        ((1, 1, 1), (8, 1, 8), np.eye(3), "coronal"),  # one slice
        ((1, 1, 1), (8, 8, 1), np.eye(3), "axial"),
    ],
)
def test_without_a_wish_the_finest_plane_is_shown(
    spacing: tuple[float, float, float], shape: tuple[int, ...], direction: np.ndarray, expected: str, tmp_path: Path
) -> None:
    sitk.WriteImage(itk_volume(direction, spacing, np.zeros(shape, np.int16)), str(tmp_path / "volume.nrrd"))
    assert open_image(tmp_path / "volume.nrrd").picture().axis == expected


def test_slices_are_counted_in_stored_order_and_the_middle_is_the_default(tmp_path: Path) -> None:
    sitk.WriteImage(itk_volume(np.diag([1.0, -1.0, -1.0]), (1.0, 1.0, 1.0)), str(tmp_path / "volume.nii"))
    image = open_image(tmp_path / "volume.nii")
    assert [image.slice_count(axis) for axis in ("sagittal", "coronal", "axial", "stored")] == [9, 8, 7, 7]
    assert image.picture("axial").slice_index == 3
    assert image.picture("axial", 6).index_of(Point(1, 1))[2] == 6
    for wrong in (-1, 7):
        with pytest.raises(ImageError, match="0 to 6"):
            image.picture("axial", wrong)


def test_an_unknown_view_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(itk_volume(np.eye(3), (1.0, 1.0, 1.0)), str(tmp_path / "volume.nii"))
    with pytest.raises(ImageError, match="axial, coronal, sagittal, stored"):
        open_image(tmp_path / "volume.nii").picture("transversal")
