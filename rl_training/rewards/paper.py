"""The paper's rewards as it means them: true Dice, strict JSON, 0 for anything malformed, 1 for the exact answer.

MedReasoner, https://arxiv.org/abs/2508.08177. Its equations were not at hand: shapes, thresholds and names follow
its figure and the description of the published code, without that code's floors (docs/rewards.md has the list).

Every function takes what TRL passes: `completions` (text or one chat turn each) and the dataset's columns `box`
(``[x_min, y_min, x_max, y_max]``) and `points` (two ``[x, y]``) in picture pixels, None for both where the target is
absent; it returns one unitless float a completion. Unusable truth raises `MedReasonerError`; a completion never does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from medreasoner import geometry, metrics
from medreasoner.contract.answer import Answer, Box, GroundingAnswer, Point
from rl_training.rewards.reading import BoxColumn, Completion, PointsColumn, Truth, pairs, read, scored, text_of

Term = Callable[[GroundingAnswer, Truth], float]
PUBLISHED_SIDE = 840.0  # pixels a side of the published pictures, to which the thresholds of `base` belong


def format_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """1 for a readable answer, 1 more for reasoning that is not empty: 0, 1 or 2."""
    return [_format(read(text_of(completion))) for completion in completions]


def box_iou(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``log_smooth(IoU) * box_validity``, in [0, 1]; 0 for boxes that do not meet."""
    return scored(completions, box, points, lambda a, t: _box_iou(a, t) * _box_validity(a, t))


def box_align(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``exp_smooth(mean |edge difference| / true diagonal; centre 1, end 2) * box_validity``, in [0, 1]."""
    return scored(completions, box, points, lambda a, t: _box_align(a, t) * _box_validity(a, t))


def box_scale(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``exp_smooth(hypot(difference of ln area, of ln aspect); centre 0.5, end 1) * box_validity``, in [0, 1]."""
    return scored(completions, box, points, lambda a, t: _box_scale(a, t) * _box_validity(a, t))


def point_dice(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``log_smooth(pDice) * point_validity``, in [0, 1]; pDice is the Dice of the discs on the pairs as diameters."""
    return scored(completions, box, points, lambda a, t: _point_dice(a, t) * _point_validity(a, t))


def point_align(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``exp_smooth(mean |coordinate difference| / true diagonal; centre 1, end 2) * point_validity``, in [0, 1].

    Points are matched in the better of the two orders.
    """
    return scored(completions, box, points, lambda a, t: _point_align(a, t) * _point_validity(a, t))


def point_angle(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``log_smooth(|cosine of the angle between the pairs' lines|) * point_validity``, in [0, 1].

    A pair that coincides has no direction: 1 if both the true and the answered pair do, 0 if only one does.
    """
    return scored(completions, box, points, lambda a, t: _point_angle(a, t) * _point_validity(a, t))


def paper_soft(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``format + box_iou + point_dice``, in [0, 4]; the paper's best mode."""
    return [_total(answer, truth, (_box_iou,), (_point_dice,)) for answer, truth in pairs(completions, box, points)]


def paper_hard(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """``format`` and all six box and point terms, in [0, 8]."""
    boxes, pairs_of_points = (_box_iou, _box_align, _box_scale), (_point_dice, _point_align, _point_angle)
    return [_total(answer, truth, boxes, pairs_of_points) for answer, truth in pairs(completions, box, points)]


def base(
    completions: Sequence[Completion],
    box: BoxColumn,
    points: PointsColumn,
    side: Sequence[float] | None = None,
    **_: Any,
) -> list[float]:
    """``format`` and three thresholds of 1 each, in [0, 5], after Seg-Zero (https://arxiv.org/abs/2503.06520).

    IoU above 0.5; mean edge difference below 10 px; both points in the answered box and their mean distance to the
    true ones, in the better order, below 100 px.

    Args:
        completions: see the module.
        box: see the module.
        points: see the module.
        side: longer side of each picture in pixels; both distances grow with it from 840, which None stands for.
    """
    sides = [PUBLISHED_SIDE] * len(completions) if side is None else side
    return [
        _format(answer) + (_thresholds(answer, truth, longer / PUBLISHED_SIDE) if truth else 0.0)
        for (answer, truth), longer in zip(pairs(completions, box, points), sides, strict=True)
    ]


def log_smooth(value: float) -> float:
    """``ln(1 + 3 v) / ln 4``: [0, 1] to [0, 1], steep near 0, where a weak policy needs a gradient."""
    return math.log(1 + 3 * min(1.0, value)) / math.log(4)


def exp_smooth(distance: float, centre: float, end: float) -> float:
    """Falling logistic of steepness 3, stretched to 1 at distance 0 and to 0 at `end` and beyond."""
    low = _logistic(end - centre)
    return (_logistic(min(distance, end) - centre) - low) / (_logistic(-centre) - low)


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(3 * value))


def _format(answer: Answer | None) -> float:
    return 0.0 if answer is None else 1.0 + bool(answer.reasoning)


def _total(answer: Answer | None, truth: Truth | None, boxes: Sequence[Term], points: Sequence[Term]) -> float:
    if not isinstance(answer, GroundingAnswer) or truth is None:
        return _format(answer)
    on_box, on_points = (sum(term(answer, truth) for term in terms) for terms in (boxes, points))
    return _format(answer) + on_box * _box_validity(answer, truth) + on_points * _point_validity(answer, truth)


def _box_iou(answer: GroundingAnswer, truth: Truth) -> float:
    return log_smooth(geometry.box_iou(answer.box, truth.box))


def _box_align(answer: GroundingAnswer, truth: Truth) -> float:
    distance = _edge_difference(answer.box, truth.box) / _diagonal(truth.box)
    return exp_smooth(distance, 1.0, 2.0)


def _box_scale(answer: GroundingAnswer, truth: Truth) -> float:
    wider, higher = (math.log(a) - math.log(b) for a, b in zip(_sides(answer.box), _sides(truth.box), strict=True))
    return exp_smooth(math.hypot(wider + higher, wider - higher), 0.5, 1.0)


def _point_dice(answer: GroundingAnswer, truth: Truth) -> float:
    return log_smooth(metrics.point_dice(answer.points, truth.points))


def _point_align(answer: GroundingAnswer, truth: Truth) -> float:
    (a, b), (p, q) = answer.points, truth.points
    distance = min(_off(a, p) + _off(b, q), _off(a, q) + _off(b, p)) / 4 / _diagonal(truth.box)
    return exp_smooth(distance, 1.0, 2.0)


def _point_angle(answer: GroundingAnswer, truth: Truth) -> float:
    (a, b), (p, q) = answer.points, truth.points
    found, wanted = _distance(a, b), _distance(p, q)
    if found == 0 or wanted == 0:
        return float(found == wanted)
    cosine = abs((b.x - a.x) / found * ((q.x - p.x) / wanted) + (b.y - a.y) / found * ((q.y - p.y) / wanted))
    return log_smooth(cosine)


def _thresholds(answer: Answer | None, truth: Truth, scale: float) -> float:
    if not isinstance(answer, GroundingAnswer):
        return 0.0
    (a, b), (p, q) = answer.points, truth.points
    apart = min(_distance(a, p) + _distance(b, q), _distance(a, q) + _distance(b, p)) / 2
    return float(
        (geometry.box_iou(answer.box, truth.box) > 0.5)
        + (_edge_difference(answer.box, truth.box) < 10 * scale)
        + (_inside(a, answer.box) and _inside(b, answer.box) and apart < 100 * scale)
    )


def _box_validity(answer: GroundingAnswer, truth: Truth) -> float:
    """Between 0.8125 and 1: half a mark each for a true point outside the box, and for an area off by a factor 2."""
    first, second = truth.points
    position = _half_unless(_inside(first, answer.box)) * _half_unless(_inside(second, answer.box))
    return _weight(position, _half_unless(0.5 * truth.box.area < answer.box.area < 2 * truth.box.area))


def _point_validity(answer: GroundingAnswer, truth: Truth) -> float:
    """Between 0.8125 and 1: half a mark each for a point outside the true box, and for points too close together.

    Too close is under half the true points' distance: 10 px, as published, would punish small targets' exact answers.
    """
    (a, b), (p, q) = answer.points, truth.points
    position = _half_unless(_inside(a, truth.box)) * _half_unless(_inside(b, truth.box))
    return _weight(position, _half_unless(_distance(a, b) >= 0.5 * _distance(p, q)))


def _weight(one: float, other: float) -> float:
    return 0.7 + 0.3 * (one + other) / 2


def _half_unless(valid: bool) -> float:
    return 1.0 if valid else 0.5


def _inside(point: Point, box: Box) -> bool:
    return box.x_min <= point.x <= box.x_max and box.y_min <= point.y <= box.y_max


def _sides(box: Box) -> tuple[float, float]:
    return box.x_max - box.x_min, box.y_max - box.y_min


def _diagonal(box: Box) -> float:
    return math.hypot(*_sides(box))


def _edge_difference(a: Box, b: Box) -> float:
    return (abs(a.x_min - b.x_min) + abs(a.y_min - b.y_min) + abs(a.x_max - b.x_max) + abs(a.y_max - b.y_max)) / 4


def _off(a: Point, b: Point) -> float:
    return abs(a.x - b.x) + abs(a.y - b.y)


def _distance(a: Point, b: Point) -> float:
    return math.hypot(a.x - b.x, a.y - b.y)
