"""Boxes and discs against closed forms and against counted pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medreasoner.contract.answer import Box, Point
from medreasoner.geometry import box_iou, disc_of, disc_overlap

FEW = settings(max_examples=100, deadline=None)
PLACES = st.integers(0, 40)
BOXES = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), PLACES, PLACES, st.integers(1, 30), st.integers(1, 30))
PAIRS = st.tuples(st.builds(Point, PLACES, PLACES), st.builds(Point, PLACES, PLACES))


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        (Box(0, 0, 10, 10), Box(0, 0, 10, 10), 1.0),
        (Box(0, 0, 10, 10), Box(5, 0, 15, 10), 1 / 3),
        (Box(0, 0, 10, 10), Box(5, 5, 15, 15), 25 / 175),
        (Box(0, 0, 10, 10), Box(2, 2, 4, 4), 4 / 100),
        (Box(0, 0, 10, 10), Box(10, 0, 20, 10), 0.0),
        (Box(0, 0, 10, 10), Box(10, 10, 20, 20), 0.0),
        (Box(0, 0, 10, 10), Box(30, 30, 40, 40), 0.0),
        (Box(0, 4, 10, 6), Box(4, 0, 6, 10), 4 / 36),
    ],
    ids=["same", "half", "corner", "inside", "edge", "vertex", "apart", "cross"],
)
def test_box_iou(a: Box, b: Box, iou: float) -> None:
    assert box_iou(a, b) == pytest.approx(iou)


@FEW
@given(BOXES, BOXES)
def test_box_iou_counts_pixels(a: Box, b: Box) -> None:
    first, second = np.zeros((2, 80, 80), bool)
    for mask, box in ((first, a), (second, b)):
        mask[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)] = True
    assert box_iou(a, b) == pytest.approx((first & second).sum() / (first | second).sum())
    assert box_iou(a, b) == box_iou(b, a)


def test_the_disc_has_the_points_at_the_ends_of_a_diameter() -> None:
    assert disc_of((Point(1, 1), Point(7, 9))) == (Point(4, 5), 5.0)


def disc(x: float, y: float, radius: float) -> tuple[Point, Point]:
    return Point(x - radius, y), Point(x + radius, y)


@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        (disc(0, 0, 2), disc(0, 0, 2), 4 * math.pi),
        (disc(0, 0, 5), disc(1, 1, 2), 4 * math.pi),
        (disc(0, 0, 1), disc(2, 0, 1), 0.0),
        (disc(0, 0, 1), disc(9, 9, 1), 0.0),
        (disc(0, 0, 1), disc(1, 0, 1), 2 * math.pi / 3 - math.sqrt(3) / 2),
        (disc(0, 0, 3), disc(0, 2, 1), math.pi),
        (disc(0, 0, 0), disc(0, 0, 1), 0.0),
        (disc(0, 0, 0), disc(0, 0, 0), 0.0),
    ],
    ids=["same", "inside", "touching", "apart", "vesica piscis", "touching inside", "a point", "two points"],
)
def test_disc_overlap_in_closed_form(a: tuple[Point, Point], b: tuple[Point, Point], overlap: float) -> None:
    found, first, second = disc_overlap(a, b)
    assert found == pytest.approx(overlap, abs=1e-12)
    assert (first, second) == pytest.approx(tuple(math.pi * disc_of(pair)[1] ** 2 for pair in (a, b)))


@FEW
@given(PAIRS, PAIRS)
def test_disc_overlap_is_symmetric_and_no_larger_than_either(a: tuple[Point, Point], b: tuple[Point, Point]) -> None:
    overlap, first, second = disc_overlap(a, b)
    assert 0 <= overlap <= min(first, second)
    assert disc_overlap((b[1], b[0]), a) == pytest.approx((overlap, second, first), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(PAIRS, PAIRS)
def test_disc_overlap_counts_pixels(a: tuple[Point, Point], b: tuple[Point, Point]) -> None:
    step = 0.125
    xs, ys = np.meshgrid(*[np.arange(-20, 60, step) + step / 2] * 2)
    inside = [np.hypot(xs - c.x, ys - c.y) <= r for c, r in (disc_of(a), disc_of(b))]
    overlap, first, second = disc_overlap(a, b)
    tolerance = 1.0 + 0.01 * max(first, second)
    assert overlap == pytest.approx((inside[0] & inside[1]).sum() * step**2, abs=tolerance)
    assert first == pytest.approx(inside[0].sum() * step**2, abs=tolerance)
