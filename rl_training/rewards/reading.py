"""What a reward compares: the completion, read once, and the true box and points of its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from medreasoner.contract.answer import Answer, Box, GroundingAnswer, Point, parse_answer
from medreasoner.contract.errors import AnswerError, MedReasonerError

Completion = str | list[dict[str, Any]]
BoxColumn = Sequence[Sequence[float] | None]
PointsColumn = Sequence[Sequence[Sequence[float]] | None]


@dataclass(frozen=True)
class Truth:
    """True box and points of one row, in picture pixels."""

    box: Box
    points: tuple[Point, Point]


def text_of(completion: Completion) -> str:
    """Return the text of a completion as TRL hands it over: a string, or one chat turn; "" for anything else."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    return content if isinstance(content, str) else ""


@lru_cache(maxsize=16384)  # several rewards score the same completions one after another
def read(text: str) -> Answer | None:
    """Read an answer strictly, keeping the start of its reasoning; None for whatever `parse_answer` refuses."""
    try:
        return parse_answer(_shortened(text))
    except (AnswerError, RecursionError):  # how deep JSON may nest and how deep it may be printed are two limits
        return None


def _shortened(text: str) -> str:
    """Cut reasoning that holds no tag to its first characters: the parser takes 30 ns for each, rewards need none."""
    head, closing, tail = text.partition("</think>")
    before, opening, reasoning = head.partition("<think>")
    if not closing or not opening or "<" in reasoning:
        return text
    return f"{before}<think>{reasoning.strip()[:16]}</think>{tail}"


def truth_of(row: int, box: Sequence[float] | None, points: Sequence[Sequence[float]] | None) -> Truth | None:
    """Type one row's truth; None where the target is absent.

    Raises:
        MedReasonerError: box or points are missing, not finite, or the box has no area; names the row of the batch.
    """
    if box is None and points is None:
        return None
    try:
        if box is None or points is None:
            raise ValueError("only one of box and points is given")
        x_min, y_min, x_max, y_max = map(float, box)
        (x1, y1), (x2, y2) = points
        first, second = Point(float(x1), float(y1)), Point(float(x2), float(y2))
        if not all(abs(v) < 1e9 for v in (x_min, y_min, x_max, y_max, first.x, first.y, second.x, second.y)):
            raise ValueError("a coordinate is not a finite pixel position")
        typed = Box(x_min, y_min, x_max, y_max)
        if typed.area < 1e-9:
            raise ValueError(f"the box {typed.as_list()} has no area")
        return Truth(typed, (first, second))
    except (AnswerError, TypeError, ValueError) as error:
        raise MedReasonerError(
            f"row {row} of the batch has no usable truth: {error}",
            "give box [x_min, y_min, x_max, y_max] and two points in pixels, or None for both if the target is absent",
        ) from error


def pairs(
    completions: Sequence[Completion], box: BoxColumn, points: PointsColumn
) -> Iterator[tuple[Answer | None, Truth | None]]:
    """Yield (answer or None if unreadable, truth or None if absent); raises `MedReasonerError` for unusable truth."""
    for row, (completion, true_box, true_points) in enumerate(zip(completions, box, points, strict=True)):
        yield read(text_of(completion)), truth_of(row, true_box, true_points)


def scored(
    completions: Sequence[Completion],
    box: BoxColumn,
    points: PointsColumn,
    term: Callable[[GroundingAnswer, Truth], float],
) -> list[float]:
    """Score each pair that has both an answer with a box and a true box; 0 for every other."""
    return [
        term(answer, truth) if isinstance(answer, GroundingAnswer) and truth is not None else 0.0
        for answer, truth in pairs(completions, box, points)
    ]
