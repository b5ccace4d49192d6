"""Labels for questions that are unsure and for pictures that do not look alike: the arm `disagreement_spread`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
POOL = 0.3  # of the candidates, the most wanted


def unlike_first(wanted: list[float], looks: Floats, before: Floats) -> list[float]:
    """Of the most wanted candidates, want those most whose pictures look least like each other and like those before.

    Args:
        wanted: of each candidate, more is sooner.
        looks: features of the candidates' pictures, (candidates, channels).
        before: of those whose labels are known, (known, channels).

    Returns:
        The candidates of the pool in the order in which they are chosen, above all others; the others as they were.
    """
    pool = sorted(range(len(wanted)), key=lambda i: -wanted[i])[: round(POOL * len(wanted))]
    centre, spread = looks.mean(0), looks.std(0) + 1e-6
    order = farthest_first((looks[pool] - centre) / spread, (before - centre) / spread)
    found = list(wanted)
    for place, at in enumerate(order):
        found[pool[at]] = max(wanted) + len(pool) - place
    return found


def farthest_first(points: Floats, before: Floats) -> list[int]:
    """Order points so that each is as far as can be from all before it; with none before, the first one comes first.

    The traversal of Gonzalez (1985, doi:10.1016/0304-3975(85)90224-5), by which labels are chosen as a core-set
    (Sener and Savarese, ICLR 2018, arXiv:1708.00489).

    Args:
        points, before: (points, channels) and (others, channels).
    """
    nearest = np.full(len(points), np.inf)
    for other in before:
        nearest = np.minimum(nearest, _squares(points, other))
    order: list[int] = []
    for _ in range(len(points)):
        order.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _squares(points, points[order[-1]]))
        nearest[order] = -1  # not again, though others may be equal to it
    return order


def _squares(points: Floats, other: Floats) -> Floats:
    """Squared Euclidean distances of points to another one."""
    squares: Floats = np.square(points - other).sum(1)
    return squares
