"""Box and two points of a mask: one rule for training, prepared collections and saved labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medreasoner.contract.answer import Box, Point
from rl_training.dataset.example import Points
from rl_training.warp import boxes_and_points

PIECES = 4


def box_of(mask: NDArray[Any]) -> Box | None:
    """Return the tight half-open box of a (height, width) mask, or None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def is_dispersed(mask: NDArray[Any]) -> bool:
    """Say whether a mask lies in `PIECES` or more pieces of which none is half of it (nuclei, glands, teeth).

    Of umrg-mini's targets that are marked so by hand, this finds those in many pieces, and two teeth too many; vessels,
    which hang together, have to be marked by hand.
    """
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return bool(count >= PIECES and 2 * np.bincount(pieces.ravel())[1:].max() < np.count_nonzero(mask))


def place_of(mask: NDArray[Any]) -> tuple[Box, Points] | None:
    """Return box and points of a (height, width) mask by the rule of `rl_training.warp.boxes_and_points`.

    The points are the mask's pixels nearest to one standard deviation from its centre of mass, on both sides along its
    long axis. Only the part inside the box is looked at: the rule does not depend on where the target lies.

    Returns:
        The half-open box and the corners of two pixels, in whole picture pixels; None where the mask is empty.
    """
    box = box_of(mask)
    if box is None:
        return None
    left, top, right, bottom = map(int, box.as_list())
    side = max(right - left, bottom - top)
    board = np.zeros((side, side), bool)
    board[: bottom - top, : right - left] = mask[top:bottom, left:right]
    _, found = boxes_and_points(torch.from_numpy(board)[None])
    first, second = (Point(float(x + left), float(y + top)) for x, y in found[0].tolist())
    return box, (first, second)
