"""The way from picture pixels to voxels and back, and masks into the volume's grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import AnswerError
from medreasoner.picture import Picture, plane_to_index

FEW = settings(max_examples=60, deadline=None)
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
STEPS = st.tuples(st.floats(0.3, 3), st.floats(0.3, 3))


def blank(width: int, height: int, **fields: object) -> Picture:
    return Picture(np.zeros((height, width, 3), np.uint8), **fields)


def turned(angles: tuple[float, float, float], steps: tuple[float, float], shape: tuple[int, int, int]) -> Picture:
    """A picture of 12 x 9 pixels through the middle of a volume, turned by Euler angles in degrees."""
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    right, down = axes[:, 0] * steps[0], axes[:, 1] * steps[1]
    middle = (np.array(shape) - 1) / 2
    return blank(12, 9, to_index=plane_to_index(middle - 5.5 * right - 4 * down, right, down), shape=shape)


def test_the_centre_of_the_first_pixel_is_the_first_voxel_and_its_corner_lies_half_a_voxel_before() -> None:
    picture = blank(4, 3)
    np.testing.assert_allclose(picture.index_of(Point(0.5, 0.5)), [0, 0, 0])
    np.testing.assert_allclose(picture.index_of(Point(0, 0)), [-0.5, -0.5, 0])
    np.testing.assert_allclose(picture.index_of(Point(4, 3)), [3.5, 2.5, 0])


def test_a_picture_without_a_shape_is_one_slice_of_its_own_size() -> None:
    assert blank(4, 3).shape == (4, 3, 1)


def test_lps_is_unknown_without_an_affine() -> None:
    assert blank(4, 3).lps_of(Point(1, 1)) is None


def test_lps_follows_the_affine() -> None:
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = -10, 20, 30
    np.testing.assert_allclose(blank(4, 3, index_to_lps=affine).lps_of(Point(2.5, 1.5)), [-9, 22, 30])


@FEW
@given(ANGLES, STEPS, st.floats(-5, 20), st.floats(-5, 20))
def test_point_to_voxel_to_point_comes_back(
    angles: tuple[float, float, float], steps: tuple[float, float], x: float, y: float
) -> None:
    picture = turned(angles, steps, (20, 22, 24))
    back = picture.point_at(picture.index_of(Point(x, y)))
    assert (back.x, back.y) == pytest.approx((x, y), abs=1e-9)


@FEW
@given(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1, 1])] * 2), st.integers(0, 4), st.randoms())
def test_each_true_pixel_of_a_whole_slice_lands_in_exactly_one_voxel(
    axes: list[int], signs: tuple[int, int], level: int, random: object
) -> None:
    shape = (5, 6, 7)
    right_axis, down_axis, through = axes
    origin, right, down = np.zeros((3, 3))
    right[right_axis], down[down_axis], origin[through] = signs[0], signs[1], level
    origin[right_axis] = 0 if signs[0] > 0 else shape[right_axis] - 1
    origin[down_axis] = 0 if signs[1] > 0 else shape[down_axis] - 1
    picture = blank(shape[right_axis], shape[down_axis], to_index=plane_to_index(origin, right, down), shape=shape)
    mask = np.array([[random.random() < 0.4 for _ in range(picture.width)] for _ in range(picture.height)])

    volume = picture.mask_in_volume(mask)

    assert volume.sum() == mask.sum()
    for row, column in np.argwhere(mask):
        assert volume[tuple(np.rint(picture.index_of(Point(column + 0.5, row + 0.5))).astype(int))] == 1


@FEW
@given(ANGLES, STEPS)
def test_oblique_mask_hits_the_voxels_whose_centres_lie_in_the_slab_under_a_true_pixel(
    angles: tuple[float, float, float], steps: tuple[float, float]
) -> None:
    picture = turned(angles, steps, (14, 15, 16))
    mask = np.zeros((picture.height, picture.width), bool)
    mask[2:7, 3:10] = True

    volume = picture.mask_in_volume(mask)

    depth, x, y = slab_coordinates(picture)
    sure, possible = (
        (np.abs(depth) < 0.5 + edge) & (x > 3 - edge) & (x < 10 + edge) & (y > 2 - edge) & (y < 7 + edge)
        for edge in (-1e-4, 1e-4)
    )
    assert (volume[sure] == 1).all()
    assert (volume[~possible] == 0).all()


def slab_coordinates(picture: Picture) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For every voxel: distance to the plane along the most perpendicular index axis, and the x, y it meets there."""
    right, down, corner = picture.to_index.T
    through = int(np.argmax(np.abs(np.cross(right, down))))
    along = np.eye(3)[through]
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in picture.shape), indexing="ij"), axis=-1)
    x, y, depth = np.linalg.solve(np.stack([right, down, along], axis=1), (voxels - corner)[..., None])[..., 0].T
    return depth.T, x.T, y.T


def test_resampled_pixels_share_voxels() -> None:
    """Rows half as high as the voxels: two picture rows for each stored one."""
    to_index = plane_to_index((0, -0.25, 0), (1, 0, 0), (0, 0.5, 0))
    picture = blank(4, 6, to_index=to_index, shape=(4, 3, 1))
    mask = np.zeros((6, 4), bool)
    mask[2:4, 1] = True
    np.testing.assert_array_equal(np.argwhere(picture.mask_in_volume(mask)), [[1, 1, 0]])


def test_what_lies_beside_the_volume_is_dropped() -> None:
    picture = blank(4, 3, to_index=plane_to_index((-2, 0, 0), (1, 0, 0), (0, 1, 0)), shape=(4, 3, 1))
    assert picture.mask_in_volume(np.ones((3, 4), bool)).sum() == 2 * 3


def test_clip_cuts_a_box_and_refuses_one_outside() -> None:
    assert blank(4, 3).clip(Box(-1, 1, 9, 9)) == Box(0, 1, 4, 3)
    with pytest.raises(AnswerError):
        blank(4, 3).clip(Box(5, 1, 6, 2))


def test_clip_point_moves_onto_the_outer_pixel_centres() -> None:
    assert blank(4, 3).clip_point(Point(-1, 9)) == Point(0.5, 2.5)


def test_content_hash_knows_shape_and_pixels_but_not_where_they_came_from() -> None:
    assert blank(4, 3).content_hash == blank(4, 3, modality="CT", slice_index=7).content_hash
    assert blank(4, 3).content_hash != blank(3, 4).content_hash
    assert blank(4, 3).content_hash != Picture(np.ones((3, 4, 3), np.uint8)).content_hash
