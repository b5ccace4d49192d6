"""Prompts as a reasoner gives them: boxes true, nearly right or loose, points that may move along with a loose box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medreasoner.expert.litemedsam import CANVAS
from rl_training.expert.config import ExpertConfig
from rl_training.expert.targets import Target

Floats = NDArray[np.float32]
_SMALLEST = 2.0  # canvas pixels: a side of a jittered box


def draw_prompt(target: Target, config: ExpertConfig, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw a box and two points for a target.

    Returns:
        (4,) x_min, y_min, x_max, y_max and (2, 2) x and y, in pixels of the network's canvas.
    """
    kind = rng.random()
    points = target.pairs[rng.integers(2)]
    if kind < config.true_boxes:
        box = target.box
    elif kind < config.true_boxes + config.near_boxes:
        box = near_box(target.box, 0.1, rng)
    else:
        box = loose_box(target.box, rng)
        if rng.random() < config.shifted_points:
            points = carried_along(points, target.box, box)
    diagonal = float(np.hypot(*(target.box[2:] - target.box[:2])))
    points = points + rng.normal(0, config.point_jitter * diagonal, points.shape)
    return box, np.clip(points, 0, CANVAS - 1).astype(np.float32)


def near_box(box: Floats, share: float, rng: np.random.Generator) -> Floats:
    """Move each edge by up to so large a share of the side, evenly distributed, outwards or inwards."""
    sides = np.tile(box[2:] - box[:2], 2)
    return _usable(box + rng.uniform(-share, share, 4) * sides)


def loose_box(box: Floats, rng: np.random.Generator) -> Floats:
    """Shift and scale as a weak reasoner does: mean IoU with the true box about 0.6, with a long tail (Student's t)."""
    centre, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    centre = centre + 0.12 * rng.standard_t(4, 2) * sides
    sides = sides * np.exp(np.clip(0.05 + 0.2 * rng.standard_t(4, 2), -1.0, 1.0))
    return _usable(np.concatenate([centre - sides / 2, centre + sides / 2]))


def carried_along(points: Floats, old: Floats, new: Floats) -> Floats:
    """Keep the points' places relative to the box while it moves."""
    relative = (points - old[:2]) / (old[2:] - old[:2])
    return np.asarray(new[:2] + relative * (new[2:] - new[:2]), np.float32)


def _usable(box: NDArray[np.float64] | Floats) -> Floats:
    """Cut a box to the canvas, sides no shorter than `_SMALLEST`."""
    low = np.clip(box[:2], 0, CANVAS - _SMALLEST)
    high = np.clip(np.maximum(box[2:], low + _SMALLEST), 0, CANVAS)
    return np.asarray(np.concatenate([low, high]), np.float32)
