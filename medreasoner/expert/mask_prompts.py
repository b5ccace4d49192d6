"""From a mask back to the prompts that would mean it: the next slice's box and points, and those of training."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point

POINT_SPREAD = 1.0  # standard deviations from the centre of mass, along the long axis


def box_around(mask: NDArray[np.bool_], margin: float = 0.0) -> Box:
    """Return the tight box of a mask that is not empty, grown on each side by a share of its own width and height.

    Args:
        mask: (height, width) bool.
        margin: 0.1 grows each side by a tenth, at least by one pixel; 0 leaves the box tight.

    Returns:
        the half-open box in picture pixels, cut to the picture.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x_min, x_max, y_min, y_max = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    across, down = ((max(1.0, margin * side) if margin else 0.0) for side in (x_max - x_min, y_max - y_min))
    return Box(max(x_min - across, 0.0), max(y_min - down, 0.0), min(x_max + across, width), min(y_max + down, height))


def points_on(mask: NDArray[np.bool_]) -> tuple[Point, Point]:
    """Return two points on a mask that is not empty, as the embedded reasoner was taught to place them.

    They are the centres of the mask's pixels nearest to one standard deviation from its centre of mass on both sides
    along its long axis: on the target, apart from each other, on both halves of it.
    """
    rows, columns = np.nonzero(mask)
    x, y = columns - columns.mean(), rows - rows.mean()
    xx, xy, yy = (x * x).mean(), (x * y).mean(), (y * y).mean()
    reach = POINT_SPREAD * math.sqrt((xx + yy) / 2 + math.sqrt((xx - yy) ** 2 / 4 + xy**2))
    angle = 0.5 * math.atan2(2 * xy, xx - yy)
    found = []
    for sign in (-1, 1):
        off = (x - sign * reach * math.cos(angle)) ** 2 + (y - sign * reach * math.sin(angle)) ** 2
        nearest = int(off.argmin())
        found.append(Point(float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5))
    return found[0], found[1]
