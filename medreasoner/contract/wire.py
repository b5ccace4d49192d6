"""What travels between a client (3D Slicer, the command line, a script) and the server, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from medreasoner.contract.checks import (
    AXES,
    MAX_QUESTION_CHARACTERS,
    SCHEMA_VERSION,
    check_axis,
    check_slice,
    checked_box,
    checked_points,
    checked_question,
    checked_window,
    read_object,
)
from medreasoner.contract.errors import MedReasonerError

__all__ = [
    "AXES",
    "MAX_QUESTION_CHARACTERS",
    "SCHEMA_VERSION",
    "GroundingRequest",
    "GroundingResult",
    "RegionRequest",
    "checked_question",
]
ADDED_BY_THE_SERVER = ("label_names", "latencies")  # MONAI Label's own fields, which its clients read


@dataclass(frozen=True)
class GroundingRequest:
    """A question about one slice. Unset fields mean: let the server choose.

    It takes the acquired plane of DICOM and the plane of finest resolution of NIfTI and NRRD, the middle slice, and
    the file's own window or an automatic one. The result says which axis and slice that was.
    """

    question: str
    axis: Optional[str] = None  # one of AXES
    slice_index: Optional[int] = None
    window: Optional[tuple[float, float]] = None  # centre and width, in the volume's units (HU for CT)
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, text: str) -> GroundingRequest:
        """Read and check a request; raises `QuestionError` or `MedReasonerError` naming the wrong field."""
        values = read_object(text, cls)
        checked_question(values["question"] if isinstance(values["question"], str) else "")
        return cls(**_checked_view(values))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)


@dataclass(frozen=True)
class RegionRequest:
    """A region of one slice, drawn or edited by a person: a box, points in it, or both, in picture pixels.

    The picture is the one that the same axis, slice and window give for a question. `question` may be there or not:
    no reasoner reads it here.
    """

    box: Optional[list[float]] = None
    points: Optional[list[list[float]]] = None
    question: str = ""
    axis: Optional[str] = None
    slice_index: Optional[int] = None
    window: Optional[tuple[float, float]] = None
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, text: str) -> RegionRequest:
        """Read and check a request; raises `MedReasonerError` naming the wrong field, `AnswerError` for a flat box."""
        values = read_object(text, cls)
        if values.get("question", "") != "":
            checked_question(values["question"] if isinstance(values["question"], str) else "")
        box, points = checked_box(values.get("box")), checked_points(values.get("points")) or None
        if box is None and points is None:
            raise MedReasonerError("there is neither a box nor a point", "draw a box around the target, or click on it")
        return cls(**{**_checked_view(values), "box": box, "points": points})

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)


@dataclass(frozen=True)
class GroundingResult:
    """An answer in every coordinate system a client may need.

    Picture pixels: corner origin, x right, y down, half-open box. IJK: continuous voxel indices of the file,
    whole numbers at voxel centres. LPS: DICOM patient millimetres (left, posterior, superior positive). Corners
    run top-left, top-right, bottom-right, bottom-left of the box. All of these are None when the target is absent;
    LPS is None for an image that does not know where the patient was. A region that a person drew comes back with an
    empty reasoning, and without box or points where there were none.
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
    target: str = ""  # short name of what was found, for a segment; empty where the reasoning gives none
    reasoner: dict[str, str] = field(default_factory=dict)  # name, sha256, instruction
    expert: dict[str, str] = field(default_factory=dict)  # name, sha256
    attempts: int = 1  # 2 when the first text could not be read; 0 when a person drew the box and no reasoner looked
    timings: dict[str, float] = field(default_factory=dict)  # seconds per stage
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, text: str) -> GroundingResult:
        """Read a result; raises `MedReasonerError` on another schema version or unknown fields."""
        values = read_object(text, cls)
        return cls(**{**values, "picture_size": tuple(values["picture_size"])})

    @classmethod
    def from_reply(cls, params: dict[str, Any]) -> GroundingResult:
        """Read the decoded `params` of a server's reply: a result and what `ADDED_BY_THE_SERVER` names."""
        return cls.from_json(json.dumps({k: v for k, v in params.items() if k not in ADDED_BY_THE_SERVER}))

    def to_json(self) -> str:
        """Indented JSON that people can read too."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


def _checked_view(values: dict[str, Any]) -> dict[str, Any]:
    """The same values with axis, slice and window checked, as every request has them."""
    if values.get("axis") is not None:
        check_axis(values["axis"])
    if values.get("slice_index") is not None:
        check_slice(values["slice_index"])
    return {**values, "window": checked_window(values.get("window"))}
