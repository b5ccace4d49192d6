"""The client's idea of a picture's place against the server's own code, and the oblique mask against the core's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from MedReasonerLib.geometry import (
    RAS_TO_LPS,
    PicturePlane,
    box_corners,
    box_round,
    stored_plane,
    stored_slice,
    voxels_under,
)
from MedReasonerLib.mask import Mask
from scipy.spatial.transform import Rotation

from medreasoner.contract.answer import Point
from medreasoner.imaging import StoredImage
from medreasoner.picture import Picture

SHAPE = (30, 44, 17)
FLIPS = [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)]
ORDERS = [(0, 1, 2), (2, 0, 1), (1, 2, 0)]  # which patient axis i, j, k run along


def affine(order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...], tilt: float) -> np.ndarray:
    """IJK to RAS of a volume whose axes run along patient axes in some order, tilted by some degrees."""
    matrix = np.eye(4)
    steps = np.eye(3)[:, order] * signs * spacing
    matrix[:3, :3] = Rotation.from_euler("xyz", [tilt, tilt / 2, -tilt], degrees=True).as_matrix() @ steps
    matrix[:3, 3] = [-31.5, 12.25, 70.0]
    return matrix


@pytest.mark.parametrize("tilt", [0.0, 12.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.7, 3.0), (2.5, 0.8, 0.8), (1.0, 1.005, 2.0)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("signs", FLIPS)
def test_pictures_lie_where_the_server_cuts_them(
    order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...], tilt: float
) -> None:
    ijk_to_ras = affine(order, signs, spacing, tilt)
    image = StoredImage(Path("v"), np.zeros(SHAPE, np.int16), RAS_TO_LPS @ ijk_to_ras, is_volume=True)
    for axis in ("axial", "coronal", "sagittal"):
        number = image.slice_count(axis) // 3
        picture = image.picture(axis, number)
        plane = stored_plane(axis, number, ijk_to_ras, SHAPE)
        assert plane.size == (picture.width, picture.height)
        np.testing.assert_allclose(plane.to_ijk, picture.to_index, atol=1e-9)
        corners = box_corners([3.0, 4.0, 9.5, 11.0])
        np.testing.assert_allclose(plane.ijk_of(corners), [picture.index_of(Point(*c)) for c in corners], atol=1e-9)
        np.testing.assert_allclose(plane.pixels_of(plane.ijk_of(corners)), corners, atol=1e-9)
        # any zoom, pan and turn in the plane shows the same stored slice
        turn = np.array([[0.3, -0.2, 0, 5.0], [0.2, 0.3, 0, 8.0], [0, 0, 1, 0], [0, 0, 0, 1]])
        view = np.eye(4)
        view[:3, 0], view[:3, 1] = plane.to_ijk[:, 0], plane.to_ijk[:, 1]
        view[:3, 2], view[:3, 3] = np.cross(view[:3, 0], view[:3, 1]), plane.to_ijk[:, 2]
        assert stored_slice(view @ turn, ijk_to_ras, SHAPE) == (axis, number)


@pytest.mark.parametrize(
    ("degrees", "found"),
    [
        (0.0, ("axial", 9)),
        (0.5, ("axial", 9)),  # leaves the slice by 0.1 voxel at the edge: still that slice
        (5.0, None),  # by 1.3 voxels: oblique
        (90.0, ("coronal", 22)),
    ],
)
def test_tilted_views_are_told_from_stored_slices(degrees: float, found: object) -> None:
    ijk_to_ras = np.diag([-1.0, -1.0, 1.5, 1.0])
    view = np.eye(4)
    view[:3, :3] = np.diag([1, 1, 1 / 1.5]) @ Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    view[:3, 3] = [15, 22, 9]
    assert stored_slice(view, ijk_to_ras, SHAPE) == found


def test_a_view_beside_the_volume_shows_nothing() -> None:
    view = np.eye(4)
    view[2, 3] = 17.0
    with pytest.raises(ValueError, match="outside"):
        stored_slice(view, np.eye(4), SHAPE)


@pytest.mark.parametrize("degrees", [20.0, 44.0, 70.0])
def test_oblique_masks_reach_the_same_voxels_as_in_the_core(degrees: float) -> None:
    turn = Rotation.from_euler("xy", [degrees, 10.0], degrees=True).as_matrix()
    to_ijk = np.column_stack([turn[:, 0] * 0.8, turn[:, 1] * 0.8, [-2.0, 1.0, 4.0]])
    mask = np.random.default_rng(1).random((50, 40)) > 0.5
    picture = Picture(np.zeros((50, 40, 3), np.uint8), to_ijk, np.eye(4), SHAPE, "oblique")
    expected = picture.mask_in_volume(mask)
    assert expected.sum() > 100
    found = Mask.at(voxels_under(mask, PicturePlane(to_ijk, (40, 50)), SHAPE))
    np.testing.assert_array_equal(found.full(SHAPE).transpose(2, 1, 0), expected)


def test_boxes_round_corners() -> None:
    assert box_round(box_corners([1.0, 2.0, 5.5, 9.0])) == [1.0, 2.0, 5.5, 9.0]
    assert box_round([[4, 1], [1, 5], [-2, 3]]) == [-2.0, 1.0, 4.0, 5.0]
