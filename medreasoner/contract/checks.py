"""What may come over the wire: one check for each field, shared by every message. Standard library only."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields
from datetime import datetime, timedelta
from typing import Any, Optional

from medreasoner.contract.answer import Box
from medreasoner.contract.errors import MedReasonerError, QuestionError

SCHEMA_VERSION = 1
MAX_QUESTION_CHARACTERS = 2000
AXES = ("axial", "coronal", "sagittal", "stored")


def read_object(text: str, kind: type) -> dict[str, Any]:
    """Decode one JSON object whose keys are fields of the dataclass `kind`, with none missing that has no default.

    Raises:
        MedReasonerError: other JSON, unknown or missing fields, or another schema version.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # JSON may nest 100,000 brackets
        raise MedReasonerError(f"not JSON: {str(error)[:200]}", "send one JSON object") from error
    known = {f.name for f in fields(kind)}
    if not isinstance(values, dict) or not values.keys() <= known:
        raise MedReasonerError(
            f"not a {kind.__name__}", f"send a JSON object with keys among {', '.join(sorted(known))}"
        )
    if values.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise MedReasonerError(
            f"schema version {values['schema_version']} is not {SCHEMA_VERSION}",
            "update the older of client and server",
        )
    missing = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in values]
    if missing:
        raise MedReasonerError(
            f"a {kind.__name__} without {', '.join(missing)}", "send every field that has no default"
        )
    return values


def checked_question(question: str) -> str:
    """Return the question with white space tidied.

    Raises:
        QuestionError: nothing is left, or more than `MAX_QUESTION_CHARACTERS` characters are.
    """
    tidy = " ".join(question.split())
    if not tidy:
        raise QuestionError(
            "the question is empty", 'type what you look for, such as "Which organ clears old red cells?"'
        )
    if len(tidy) > MAX_QUESTION_CHARACTERS:
        raise QuestionError(
            f"the question has {len(tidy):,} characters",
            f"shorten it to at most {MAX_QUESTION_CHARACTERS:,} characters",
        )
    return tidy


def check_axis(axis: Any) -> None:
    """Raise `MedReasonerError` unless this is one of `AXES`."""
    if axis not in AXES:
        raise MedReasonerError(f"unknown axis {str(axis)[:40]!r}", f"use one of {', '.join(AXES)}")


def check_slice(index: Any) -> None:
    """Raise `MedReasonerError` unless this is a whole number from 0 on; whether the slice exists, the image knows."""
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise MedReasonerError(
            f"slice_index {str(index)[:40]!r} is not a slice", "count slices from 0, or leave it out"
        )


def checked_window(window: Any) -> Optional[tuple[float, float]]:
    """Return centre and width, in the image's units, or None as it came; whether the width fits, the image knows."""
    if window is None:
        return None
    if not _are_numbers(window, 2):
        raise MedReasonerError(
            f"the window {str(window)[:80]} is not two numbers", "send [centre, width], or leave it out"
        )
    return window[0], window[1]


def checked_box(box: Any) -> Optional[list[float]]:
    """Return ``[x_min, y_min, x_max, y_max]`` in picture pixels, or None as it came.

    Raises:
        MedReasonerError: not four finite numbers.
        AnswerError: a box without area.
    """
    if box is None:
        return None
    if not _are_numbers(box, 4):
        raise MedReasonerError(
            f"the box {str(box)[:80]} is not four numbers", "send [x_min, y_min, x_max, y_max] in picture pixels"
        )
    return Box(*(float(v) for v in box)).as_list()


def checked_points(points: Any) -> Optional[list[list[float]]]:
    """Return ``[[x, y], ...]`` in picture pixels, or None as it came; raises `MedReasonerError` on anything else."""
    if points is None:
        return None
    if not isinstance(points, (list, tuple)) or len(points) > 100 or not all(_are_numbers(p, 2) for p in points):
        raise MedReasonerError(
            f"the points {str(points)[:80]} are not pairs of numbers", "send [[x, y], ...] in picture pixels"
        )
    return [[float(x), float(y)] for x, y in points]


def checked_moment(value: Any, name: str) -> str:
    """The time as it came, once it reads as ISO 8601 in UTC (a final Z, Python reads from 3.11 on only)."""
    try:
        moment = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
    except (ValueError, TypeError, AttributeError) as error:
        raise MedReasonerError(f"{name} is {str(value)[:40]!r}", "send a time such as 2026-01-31T12:00:00Z") from error
    if moment.utcoffset() != timedelta(0):
        raise MedReasonerError(f"{name}, {value}, is not in UTC", "send a time such as 2026-01-31T12:00:00Z")
    return str(value)


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return False
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        return False
    return all(-1e9 < v < 1e9 and math.isfinite(v) for v in values)
