"""Masks cut to their target, put together, packed: always the same voxels of the whole grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from MedReasonerLib.mask import Mask

from medreasoner.contract.errors import MedReasonerError
from tests.slicer.steps import finish

SHAPE = (5, 4, 7)  # i, j, k
GRIDS = arrays(np.uint8, SHAPE[::-1], elements=st.sampled_from([0, 0, 0, 1]))


@settings(deadline=None)  # the machine may be busy
@given(GRIDS)
def test_a_cut_mask_fills_the_grid_as_before(grid: np.ndarray) -> None:
    mask = Mask.cropped(grid)
    np.testing.assert_array_equal(mask.full(SHAPE), grid)
    assert mask.count == grid.sum()
    if mask.count:
        assert all(mask.voxels.any(axis=axis).any() for axis in range(3))
        assert mask.voxels.shape == tuple(np.ptp(found) + 1 for found in np.nonzero(grid))


@settings(deadline=None)  # the machine may be busy
@given(GRIDS, st.integers(1, 7))
def test_pieces_are_joined_to_the_whole(grid: np.ndarray, at_once: int) -> None:
    pieces = [Mask.cropped(grid[first : first + at_once], first_k=first) for first in range(0, SHAPE[2], at_once)]
    whole = finish(Mask.joined([piece for piece in pieces if piece.count]))
    assert (whole.offset, whole.digest) == (Mask.cropped(grid).offset, Mask.cropped(grid).digest)
    np.testing.assert_array_equal(whole.full(SHAPE), grid)


@settings(deadline=None)  # the machine may be busy
@given(GRIDS)
def test_voxels_by_their_indices_make_the_same_mask(grid: np.ndarray) -> None:
    np.testing.assert_array_equal(Mask.at(np.argwhere(grid)[:, ::-1]).full(SHAPE), grid)


@settings(deadline=None)  # the machine may be busy
@given(GRIDS)
def test_packed_masks_come_back_through_json(grid: np.ndarray) -> None:
    mask = Mask.cropped(grid)
    again = Mask.unpacked(json.loads(json.dumps(mask.packed())))
    assert (again.offset, again.digest) == (mask.offset, mask.digest)
    np.testing.assert_array_equal(again.voxels, mask.voxels)


def test_digests_tell_shape_place_and_voxels_apart() -> None:
    masks = [
        Mask(np.ones((1, 2, 4), np.uint8)),
        Mask(np.ones((2, 1, 4), np.uint8)),
        Mask(np.ones((1, 2, 4), np.uint8), (1, 0, 0)),
        Mask(np.array([[[1, 0, 1, 1], [1, 1, 1, 1]]], np.uint8)),
        Mask.empty(),
    ]
    assert len({mask.digest for mask in masks}) == len(masks)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": "AAAA"},  # no zlib stream
        {"bits": "x"},  # no base64
        {"shape": [9, 9, 9]},  # more voxels than there are bits
        {"offset": [1, 2]},  # of a picture
        {"bits": None},
    ],
)
def test_what_was_not_packed_is_refused(change: dict[str, object]) -> None:
    packed = Mask(np.ones((2, 3, 4), np.uint8)).packed()
    with pytest.raises(MedReasonerError, match="kept for Undo"):
        Mask.unpacked({**packed, **change})
