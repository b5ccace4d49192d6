"""The answer: what the reasoner writes, what every other part reads.

``<think>reasoning</think><answer>{"bbox": [x_min, y_min, x_max, y_max], "points_1": [x, y],
"points_2": [x, y]}</answer>`` or, where a checkpoint's card allows it,
``<think>reasoning</think><answer>{"absent": true}</answer>``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Union

from medreasoner.contract.errors import AnswerError

_TEXT = r"((?:(?!</?(?:think|answer)>).)*)"  # no tag of ours inside: a second block must not hide in the first
_ANSWER = re.compile(rf"\s*<think>{_TEXT}</think>\s*<answer>{_TEXT}</answer>\s*", re.DOTALL)
_HINT = "ask again in other words, or draw the box by hand"
_KEYS = {"bbox", "points_1", "points_2"}


@dataclass(frozen=True)
class Point:
    """Position in picture pixels: x to the right, y down, (0, 0) the outer corner of the top-left pixel."""

    x: float
    y: float


@dataclass(frozen=True)
class Box:
    """Axis-aligned half-open box in the same pixels as `Point`; width is ``x_max - x_min`` (no +1)."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    def __post_init__(self) -> None:
        if not (self.x_min < self.x_max and self.y_min < self.y_max):
            raise AnswerError(f"the box {self.as_list()} has no area", _HINT)

    @property
    def area(self) -> float:
        """Square pixels, always positive."""
        return (self.x_max - self.x_min) * (self.y_max - self.y_min)

    def as_list(self) -> list[float]:
        """Return ``[x_min, y_min, x_max, y_max]``."""
        return [self.x_min, self.y_min, self.x_max, self.y_max]


@dataclass(frozen=True)
class GroundingAnswer:
    """One localised region: a tight box, two points on the region, and why."""

    box: Box
    points: tuple[Point, Point]
    reasoning: str = ""

    @classmethod
    def from_text(cls, text: str) -> GroundingAnswer:
        """Parse a reasoner's text that must point at something; raises `AnswerError` on anything else."""
        answer = parse_answer(text)
        if isinstance(answer, AbsentAnswer):
            raise AnswerError("this reasoner may not answer 'absent'", _HINT)
        return answer

    def to_text(self) -> str:
        """Write the one canonical form that `parse_answer` reads, in whole pixels; the box is rounded outwards."""
        box = self.box
        corners = [math.floor(box.x_min), math.floor(box.y_min), math.ceil(box.x_max), math.ceil(box.y_max)]
        first, second = ([round(p.x), round(p.y)] for p in self.points)
        fields = {"bbox": corners, "points_1": first, "points_2": second}
        return f"<think>{self.reasoning}</think><answer>{json.dumps(fields)}</answer>"


@dataclass(frozen=True)
class AbsentAnswer:
    """What the question asks for is not present in this image, and why."""

    reasoning: str = ""

    def to_text(self) -> str:
        """Write the one canonical form that `parse_answer` reads."""
        return f'<think>{self.reasoning}</think><answer>{{"absent": true}}</answer>'


Answer = Union[GroundingAnswer, AbsentAnswer]


def parse_answer(text: str) -> Answer:
    """Read exactly one ``<think>`` block followed by exactly one ``<answer>`` block of strict JSON.

    Raises:
        AnswerError: anything else, such as a second block, a missing or extra or repeated key, a number that is
            not finite, a box without area.
    """
    match = _ANSWER.fullmatch(text)
    if match is None:
        raise AnswerError("expected exactly one <think> block, then one <answer> block", _HINT)
    reasoning = match[1].strip()
    try:
        fields = json.loads(match[2], object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:  # bad text is data here; JSON may nest 100,000 brackets
        raise AnswerError(f"the <answer> block is not JSON: {str(error)[:200]}", _HINT) from error
    return answer_from_fields(fields, reasoning)


def answer_from_fields(fields: Any, reasoning: str) -> Answer:
    """Check decoded JSON and type it: ``{"absent": true}``, or the three keys of a grounding.

    Raises:
        AnswerError: other keys or values of another type, count or size.
    """
    if not isinstance(fields, dict):
        raise AnswerError("the <answer> block does not hold a JSON object", _HINT)
    if fields == {"absent": True} and fields["absent"] is True:
        return AbsentAnswer(reasoning)
    if fields.keys() != _KEYS:
        raise AnswerError(f"expected the keys {sorted(_KEYS)}, got {sorted(map(str, fields))[:8]}", _HINT)
    box = Box(*_numbers(fields["bbox"], 4))
    first, second = (Point(*_numbers(fields[key], 2)) for key in ("points_1", "points_2"))
    return GroundingAnswer(box, (first, second), reasoning)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is repeated")
    return fields


def _numbers(values: Any, count: int) -> list[float]:
    ok = isinstance(values, list) and len(values) == count
    if not ok or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise AnswerError(f"expected {count} numbers, got {str(values)[:80]}", _HINT)
    if any(not -1e9 < v < 1e9 or not math.isfinite(v) for v in values):
        raise AnswerError(f"expected {count} finite pixel positions, got {str(values)[:80]}", _HINT)
    return [float(v) for v in values]
