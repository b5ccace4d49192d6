"""The rewards as the published code computes them, defects included, for comparing results with its own.

Written anew from a description of that code (https://github.com/PRIS-CV/MedReasoner has no licence, so none of it is
here); docs/rewards.md lists the defects. Train with `paper_soft` instead. Two differences, both on purpose: nothing
raises, and an answer that holds NaN or Infinity, whose score would be NaN, earns 0. Parameters are those of `paper`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from medreasoner.contract.answer import Point
from medreasoner.metrics import point_dice_over_union
from rl_training.rewards.reading import BoxColumn, Completion, PointsColumn, Truth, text_of, truth_of

Corners = Sequence[float]
Pair = Sequence[Sequence[float]]


def seed_soft(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """Think, segmentation format, IoU, pDice; in [0, 4]; 2.17 for a well-formed answer that misses everything."""
    return _scores(completions, box, points, _box_terms_soft, _point_terms_soft)


def seed_hard(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float]:
    """`seed_soft` with box alignment and scale, point alignment and angle; in [0, 8]; 4.54 where all is missed."""
    return _scores(completions, box, points, _box_terms_hard, _point_terms_hard)


def _scores(
    completions: Sequence[Completion],
    box: BoxColumn,
    points: PointsColumn,
    box_terms: Callable[[Corners, Truth], float],
    point_terms: Callable[[Pair, Truth], float],
) -> list[float]:
    scores = []
    for row, (completion, true_box, true_points) in enumerate(zip(completions, box, points, strict=True)):
        text, truth = text_of(completion), truth_of(row, true_box, true_points)
        found, found_box, found_points = _segmentation(_first_block(text, "answer"))
        score = _think(_first_block(text, "think")) + found
        if _has_nan(found_box or ()) or any(map(_has_nan, found_points or ())):
            score = 0.0  # the published score is NaN, which spoils the group's mean and spread
        elif truth is not None:
            score += 0.0 if found_box is None else _or_nothing(box_terms, found_box, truth)
            score += 0.0 if found_points is None else _or_nothing(point_terms, found_points, truth)
        scores.append(score)
    return scores


def _has_nan(numbers: Sequence[Any]) -> bool:
    return any(isinstance(v, float) and not math.isfinite(v) for v in numbers)


def _first_block(text: str, tag: str) -> str | None:
    """Return what the regular expression ``<tag>(.*?)</tag>`` finds first, in linear time."""
    start = text.find(f"<{tag}>")
    end = text.find(f"</{tag}>", start + len(tag) + 2) if start >= 0 else -1
    return text[start + len(tag) + 2 : end] if end >= 0 else None


def _think(block: str | None) -> float:
    if block is None:
        return 0.0
    return 1.0 if block.strip() else 0.2


def _segmentation(block: str | None) -> tuple[float, Corners | None, Pair | None]:
    """Return the format's mark, and box and points where each is well formed. JSON's true, NaN and Infinity pass."""
    if block is None:
        return 0.0, None, None
    try:
        fields = json.loads(block.strip().replace("'", '"'))
    except (ValueError, RecursionError):
        return 0.2, None, None
    if not isinstance(fields, dict):
        return 0.2, None, None
    box, points = fields.get("bbox"), [fields.get("points_1"), fields.get("points_2")]
    box_ok = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
    points_ok = all(isinstance(p, list) and len(p) == 2 for p in points)
    complete = fields.keys() >= {"bbox", "points_1", "points_2"}
    mark = (0.4, 0.6, 1.0)[box_ok + points_ok] if complete else 0.4
    return mark, box if box_ok else None, points if points_ok else None  # type: ignore[return-value]


def _or_nothing(terms: Callable[[Any, Truth], float], found: Any, truth: Truth) -> float:
    """One exception takes all terms of its half to 0: a flat box does so in hard mode."""
    try:
        return terms(found, truth)
    except (ArithmeticError, TypeError, ValueError):
        return 0.0


def _box_terms_soft(box: Corners, truth: Truth) -> float:
    return _penalised(_smooth_log(_iou(box, truth)), *_box_validity(box, truth))


def _box_terms_hard(box: Corners, truth: Truth) -> float:
    validity, true = _box_validity(box, truth), truth.box
    edges = sum(abs(a - b) for a, b in zip(box, true.as_list(), strict=True)) / 4
    width, height, true_width, true_height = *_sides(box), *_sides(true.as_list())
    area = math.log(width * height) - math.log(true_width * true_height)
    aspect = math.log(width / height) - math.log(true_width / true_height)
    align = _smooth_exp(_normalised(edges, truth), centre=1.0)
    scale = _smooth_exp(min(math.sqrt(area**2 + aspect**2), 1.0), centre=0.5)
    return _box_terms_soft(box, truth) + _penalised(align, *validity) + _penalised(scale, *validity)


def _point_terms_soft(points: Pair, truth: Truth) -> float:
    first, second = points
    typed = Point(first[0] + 0.0, first[1] + 0.0), Point(second[0] + 0.0, second[1] + 0.0)
    pdice = point_dice_over_union(typed, truth.points)
    return _penalised(_smooth_log(pdice), *_point_validity(points, truth))


def _point_terms_hard(points: Pair, truth: Truth) -> float:
    validity = _point_validity(points, truth)
    (ax, ay), (bx, by) = points
    p, q = truth.points
    straight = (abs(ax - p.x) + abs(ay - p.y)) / 2 + (abs(bx - q.x) + abs(by - q.y)) / 2
    swapped = (abs(ax - q.x) + abs(ay - q.y)) / 2 + (abs(bx - p.x) + abs(by - p.y)) / 2
    align = _smooth_exp(_normalised(min(straight, swapped) / 2, truth), centre=1.0)
    lengths = math.hypot(bx - ax, by - ay) * math.hypot(q.x - p.x, q.y - p.y)
    cosine = abs((bx - ax) * (q.x - p.x) + (by - ay) * (q.y - p.y)) / lengths if lengths else 0.0
    angle = _smooth_log(cosine)
    return _point_terms_soft(points, truth) + _penalised(align, *validity) + _penalised(angle, *validity)


def _smooth_log(value: float) -> float:
    """``0.9 ln(3 v + 1) / ln 4 + 0.1``: never below 0.1; pDice may pass 1 and so leaves [0, 1]."""
    return 0.9 * math.log(3 * value + 1) / math.log(4) + 0.1


def _smooth_exp(value: float, centre: float) -> float:
    at, near, far = (1 / (1 + math.exp(3 * (v - centre))) for v in (value, 0.0, 2.0))
    return 0.9 * (at - far) / (near - far + 1e-8) + 0.1


def _normalised(distance: float, truth: Truth) -> float:
    return min(max(distance / (math.hypot(*_sides(truth.box.as_list())) + 1e-5), 0.0), 2.0)


def _penalised(reward: float, position: float, other: float) -> float:
    return round(min(max(0.7 * reward + 0.3 * reward * (position + other) / 2, 0.0), 1.0), 4)


def _box_validity(box: Corners, truth: Truth) -> tuple[float, float]:
    """True points inside the answered box; area within a factor 2, where an inverted side counts 0."""
    p, q = truth.points
    area, true_area = math.prod(max(0.0, side) for side in _sides(box)), truth.box.area
    position = _inside(p.x, p.y, box) * _inside(q.x, q.y, box)
    return position, 1.0 if 0.5 * true_area < area < 2 * true_area else 0.5


def _point_validity(points: Pair, truth: Truth) -> tuple[float, float]:
    """Answered points inside the true box; more than 10 px apart, whatever the picture's size."""
    (ax, ay), (bx, by) = points
    box = truth.box.as_list()
    return _inside(ax, ay, box) * _inside(bx, by, box), 1.0 if math.hypot(ax - bx, ay - by) > 10 else 0.5


def _inside(x: float, y: float, box: Corners) -> float:
    return 1.0 if box[0] <= x <= box[2] and box[1] <= y <= box[3] else 0.5


def _sides(box: Corners) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _iou(box: Corners, truth: Truth) -> float:
    true = truth.box
    width = min(box[2], true.x_max) - max(box[0], true.x_min)
    height = min(box[3], true.y_max) - max(box[1], true.y_min)
    overlap = max(0.0, width) * max(0.0, height)
    return overlap / (math.prod(_sides(box)) + true.area - overlap) if overlap else 0.0
