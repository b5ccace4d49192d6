"""Overlap of masks and points, and how sure a mean is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medreasoner.contract.answer import Point
from medreasoner.metrics import bootstrap_interval, dice, mask_iou, point_dice, point_dice_over_union

FEW = settings(max_examples=60, deadline=None)
MASKS = arrays(bool, (5, 6))
PAIRS = st.tuples(*[st.builds(Point, st.integers(0, 30), st.integers(0, 30))] * 2)
EMPTY, FULL = np.zeros((4, 4), bool), np.ones((4, 4), bool)
TOP = np.arange(4)[:, None] < [2] * 4


@pytest.mark.parametrize(
    ("a", "b", "as_dice", "as_iou"),
    [
        (FULL, FULL, 1.0, 1.0),
        (EMPTY, EMPTY, 1.0, 1.0),
        (FULL, EMPTY, 0.0, 0.0),
        (TOP, ~TOP, 0.0, 0.0),
        (TOP, FULL, 16 / 24, 0.5),
        (TOP, TOP.T, 8 / 16, 4 / 12),
    ],
    ids=["same", "both empty", "one empty", "apart", "half", "quarter"],
)
def test_mask_overlap(a: np.ndarray, b: np.ndarray, as_dice: float, as_iou: float) -> None:
    assert dice(a, b) == pytest.approx(as_dice)
    assert mask_iou(a, b) == pytest.approx(as_iou)


@FEW
@given(MASKS, MASKS)
def test_mask_overlap_is_symmetric_and_dice_follows_from_iou(a: np.ndarray, b: np.ndarray) -> None:
    assert dice(a, b) == dice(b, a)
    assert mask_iou(a, b) == mask_iou(b, a)
    assert dice(a, b) == pytest.approx(2 * mask_iou(a, b) / (1 + mask_iou(a, b)))


LENS = 2 * math.pi / 3 - math.sqrt(3) / 2  # of two unit discs through each other's centre
UNIT, SHIFTED = (Point(-1, 0), Point(1, 0)), (Point(0, 0), Point(2, 0))


@pytest.mark.parametrize(
    ("points", "truth", "score"),
    [
        (UNIT, UNIT, 1.0),
        (UNIT, (Point(1, 0), Point(-1, 0)), 1.0),
        (UNIT, (Point(0, -1), Point(0, 1)), 1.0),
        (UNIT, SHIFTED, LENS / math.pi),
        (UNIT, (Point(9, 9), Point(11, 9)), 0.0),
        ((Point(3, 3), Point(3, 3)), (Point(3, 3), Point(3, 3)), 1.0),
        ((Point(3, 3), Point(3, 3)), (Point(4, 3), Point(4, 3)), 0.0),
        ((Point(0, 0), Point(0, 0)), UNIT, 0.0),
    ],
    ids=["same", "swapped", "turned", "shifted", "apart", "same dot", "other dot", "a dot"],
)
def test_point_dice(points: tuple[Point, Point], truth: tuple[Point, Point], score: float) -> None:
    assert point_dice(points, truth) == pytest.approx(score)


def test_point_dice_over_union_is_the_published_figure() -> None:
    assert point_dice_over_union(UNIT, UNIT) == pytest.approx(2.0, abs=1e-4)
    assert point_dice_over_union(UNIT, SHIFTED) == pytest.approx(2 * LENS / (2 * math.pi - LENS), abs=1e-4)
    dot = (Point(3, 3), Point(3, 3))
    assert point_dice_over_union(dot, dot) == 0.0


@FEW
@given(PAIRS, PAIRS)
def test_point_scores_are_symmetric_and_in_range(a: tuple[Point, Point], b: tuple[Point, Point]) -> None:
    assert point_dice(a, b) == pytest.approx(point_dice(b, a), abs=1e-9)
    assert 0 <= point_dice(a, b) <= 1 + 1e-12
    assert 0 <= point_dice_over_union(a, b) <= 2
    assert point_dice(a, a) == 1.0


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(list(rng.normal(0.6, 0.2, 60)), repeats=200) for _ in range(150)]
    covered = np.mean([low <= 0.6 <= high for low, high in intervals])
    assert 0.87 <= covered <= 0.99


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    error = values.std() / math.sqrt(400)
    expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
    assert bootstrap_interval(list(values)) == pytest.approx(expected, abs=0.25 * error)


def test_the_interval_is_the_same_every_time_and_takes_any_statistic() -> None:
    values = [0.1, 0.9, 0.4, 0.7]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    low, high = bootstrap_interval(values, statistic=lambda v: float(v.max()))
    assert low <= high == 0.9


@pytest.mark.parametrize(("values", "interval"), [([], (0.0, 0.0)), ([0.3], (0.3, 0.3)), ([0.5] * 9, (0.5, 0.5))])
def test_intervals_without_spread(values: list[float], interval: tuple[float, float]) -> None:
    assert bootstrap_interval(values) == pytest.approx(interval)
