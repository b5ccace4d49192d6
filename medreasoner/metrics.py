"""How good answers are: mask overlap, point overlap, intervals. Pure functions; pixels in, ratios out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Point
from medreasoner.geometry import disc_overlap


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice coefficient ``2|A and B| / (|A| + |B|)``, in [0, 1]; 1 when both are empty."""
    total = int(mask.sum()) + int(truth.sum())
    return 2.0 * int((mask & truth).sum()) / total if total else 1.0


def mask_iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union, in [0, 1]; 1 when both are empty."""
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 1.0


def point_dice(points: tuple[Point, Point], truth: tuple[Point, Point]) -> float:
    """pDice as the paper defines it: Dice of the two discs whose diameters join each pair of points, in [0, 1].

    Order within a pair does not matter. Two pairs without extent count as 1 where they coincide, else as 0.
    """
    overlap, first, second = disc_overlap(points, truth)
    if first + second == 0:
        return 1.0 if set(points) == set(truth) else 0.0
    return 2 * overlap / (first + second)


def point_dice_over_union(points: tuple[Point, Point], truth: tuple[Point, Point]) -> float:
    """pDice as the published evaluation code computes it: ``2|A and B| / |A or B|``, in [0, 2].

    Only for comparing with published tables: a perfect pair scores 2 (docs/evaluation.md).
    """
    overlap, first, second = disc_overlap(points, truth)
    union = first + second - overlap
    return 2 * overlap / (union + 1e-5)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[[NDArray[np.float64]], float] = lambda v: float(np.mean(v)),
    level: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic (Efron and Tibshirani, 1993, chapter 13).

    Args:
        values: one figure a case; (0, 0) is returned for none.
        statistic: from a resampled array to one figure.
        level: coverage.
        repeats: resamples.
        seed: of the resampling, so that a table can be made again.
    """
    if not len(values):
        return 0.0, 0.0
    array, rng = np.asarray(values, float), np.random.default_rng(seed)
    found = [statistic(array[rng.integers(0, len(array), len(array))]) for _ in range(repeats)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
