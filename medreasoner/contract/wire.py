"""What travels between a client (3D Slicer, the command line, a script) and the server, as JSON."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Optional

from medreasoner.contract.errors import MedReasonerError, QuestionError

SCHEMA_VERSION = 1
MAX_QUESTION_CHARACTERS = 2000
AXES = ("axial", "coronal", "sagittal", "stored")


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


@dataclass(frozen=True)
class GroundingRequest:
    """A question about one slice. Unset fields mean: let the server choose (middle slice, automatic window)."""

    question: str
    axis: str = "stored"
    slice_index: Optional[int] = None
    window: Optional[tuple[float, float]] = None  # centre and width, in the volume's units (HU for CT)
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, text: str) -> GroundingRequest:
        """Read and check a request; raises `QuestionError` or `MedReasonerError` naming the wrong field."""
        values = _object(text, cls)
        request = cls(**values)
        checked_question(request.question if isinstance(request.question, str) else "")
        if request.axis not in AXES:
            raise MedReasonerError(f"unknown axis {request.axis!r}", f"use one of {', '.join(AXES)}")
        index = request.slice_index
        if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
            raise MedReasonerError(
                f"slice_index {str(index)[:40]!r} is not a slice", "count slices from 0, or leave it out"
            )
        if request.window is None:
            return request
        return cls(**{**values, "window": _checked_window(request.window)})

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)


@dataclass(frozen=True)
class GroundingResult:
    """An answer in every coordinate system a client may need.

    Picture pixels: corner origin, x right, y down, half-open box. IJK: continuous voxel indices of the file,
    whole numbers at voxel centres. LPS: DICOM patient millimetres (left, posterior, superior positive). Corners
    run top-left, top-right, bottom-right, bottom-left of the box. All of these are None when the target is absent;
    LPS is None for an image that does not know where the patient was.
    """

    question: str
    reasoning: str
    absent: bool
    confidence: float  # 0 to 1
    picture_size: tuple[int, int]  # width, height in pixels
    axis: str
    slice_index: int
    box: Optional[list[float]] = None
    points: Optional[list[list[float]]] = None
    box_corners_ijk: Optional[list[list[float]]] = None
    points_ijk: Optional[list[list[float]]] = None
    box_corners_lps: Optional[list[list[float]]] = None
    points_lps: Optional[list[list[float]]] = None
    reasoner: dict[str, str] = field(default_factory=dict)  # name, sha256, instruction
    expert: dict[str, str] = field(default_factory=dict)  # name, sha256
    attempts: int = 1  # 2 when the first text could not be read and the reasoner was asked once more
    timings: dict[str, float] = field(default_factory=dict)  # seconds per stage
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, text: str) -> GroundingResult:
        """Read a result; raises `MedReasonerError` on another schema version or unknown fields."""
        values = _object(text, cls)
        return cls(**{**values, "picture_size": tuple(values["picture_size"])})

    def to_json(self) -> str:
        """Indented JSON that people can read too."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


def _object(text: str, kind: type) -> dict[str, Any]:
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


def _checked_window(window: Any) -> tuple[float, float]:
    """Return centre and width as a tuple; whether the width fits the image is for the image to say."""
    numbers = window if isinstance(window, (list, tuple)) else []
    ok = len(numbers) == 2 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers)
    if not ok or not all(-1e9 < v < 1e9 for v in numbers):  # false for NaN too
        raise MedReasonerError(
            f"the window {str(window)[:80]} is not two numbers", "send [centre, width], or leave it out"
        )
    return numbers[0], numbers[1]
