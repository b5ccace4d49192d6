"""What is known of a saved mask: the question it answers, who drew what, and with which models.

A record lies beside each label, so that a saved label can train the next reasoner. Standard library only: the Slicer
extension writes records too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Optional

from medreasoner.contract.checks import (
    SCHEMA_VERSION,
    check_axis,
    check_slice,
    checked_box,
    checked_moment,
    checked_points,
    checked_question,
    checked_window,
    read_object,
)
from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.wire import GroundingResult

EDITABLE = ("box", "points", "mask", "question")
MAX_TEXT_CHARACTERS = 20_000


@dataclass(frozen=True)
class LabelEdit:
    """One change that a person made to the answer."""

    what: str  # one of EDITABLE
    at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class LabelRecord:
    """One labelled slice or volume. Box and points are in picture pixels of this axis, slice and window.

    Box and points are None when the target is absent, and where a person drew the mask without them.
    """

    question: str  # empty where nobody asked, as for a mask drawn by hand
    absent: bool
    axis: str
    slice_index: int
    reasoning: str = ""
    target: str = ""
    window: Optional[tuple[float, float]] = None  # centre and width, in the volume's units
    box: Optional[list[float]] = None
    points: Optional[list[list[float]]] = None
    reasoner: dict[str, str] = field(default_factory=dict)  # name, sha256, instruction_sha256
    expert: dict[str, str] = field(default_factory=dict)  # name, sha256
    author: str = ""  # empty where the server knows no users
    saved_at: str = ""  # ISO 8601, UTC; the server writes it
    edits: tuple[LabelEdit, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, result: GroundingResult, window: Optional[tuple[float, float]] = None) -> LabelRecord:
        """Begin the record of an answer that nobody has edited yet."""
        return cls(
            question=result.question,
            absent=result.absent,
            axis=result.axis,
            slice_index=result.slice_index,
            reasoning=result.reasoning,
            target=result.target,
            window=window,
            box=result.box,
            points=result.points,
            reasoner=result.reasoner,
            expert=result.expert,
        )

    @classmethod
    def from_json(cls, text: str) -> LabelRecord:
        """Read and check a record.

        Raises:
            MedReasonerError: a field is unknown, missing, of another type, or contradicts another; the error names it.
        """
        values = read_object(text, cls)
        if _text(values, "question"):
            checked_question(values["question"])
        if not isinstance(values["absent"], bool):
            raise MedReasonerError(f"absent is {str(values['absent'])[:40]!r}", "send true or false")
        if values["axis"] != "oblique":  # an acquired plane may be; a request cannot ask for one
            check_axis(values["axis"])
        check_slice(values["slice_index"])
        record = cls(
            question=values["question"],
            absent=values["absent"],
            axis=values["axis"],
            slice_index=values["slice_index"],
            reasoning=_text(values, "reasoning"),
            target=_text(values, "target"),
            window=checked_window(values.get("window")),
            box=checked_box(values.get("box")),
            points=checked_points(values.get("points")) or None,
            reasoner=_texts(values, "reasoner"),
            expert=_texts(values, "expert"),
            author=_text(values, "author"),
            saved_at=checked_moment(values["saved_at"], "saved_at") if values.get("saved_at") else "",
            edits=_edits(values.get("edits", [])),
        )
        if record.absent and (record.box is not None or record.points is not None):
            raise MedReasonerError("the target is absent and yet has a box or points", "send one or the other")
        return record

    def to_json(self) -> str:
        """Indented JSON that people can read too."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)

    def edited(self, what: str) -> LabelRecord:
        """The record with one more change, made now; raises `MedReasonerError` unless `what` is in `EDITABLE`."""
        return replace(self, edits=(*self.edits, *_edits([{"what": what, "at": now()}])))

    def signed(self, author: str) -> LabelRecord:
        """The record as the server keeps it: who, and when, whatever the client wrote there."""
        return replace(self, author=author, saved_at=now())


def now() -> str:
    """This moment, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _text(values: dict[str, Any], name: str) -> str:
    text = values.get(name, "")
    if not isinstance(text, str) or len(text) > MAX_TEXT_CHARACTERS:
        raise MedReasonerError(
            f"{name} is {str(text)[:40]!r}", f"send a text of at most {MAX_TEXT_CHARACTERS:,} characters"
        )
    return text


def _texts(values: dict[str, Any], name: str) -> dict[str, str]:
    found = values.get(name, {})
    if not isinstance(found, dict) or len(found) > 20:
        raise MedReasonerError(f"{name} is {str(found)[:40]!r}", "send an object of texts, such as name and sha256")
    return {key: _text(found, key) for key in found}


def _edits(values: Any) -> tuple[LabelEdit, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > 10_000:
        raise MedReasonerError(f"edits is {str(values)[:40]!r}", "send a list of objects with what and at")
    for edit in values:
        if not isinstance(edit, dict) or edit.keys() != {"what", "at"} or edit["what"] not in EDITABLE:
            raise MedReasonerError(
                f"{str(edit)[:80]} is not an edit", f"send what, one of {', '.join(EDITABLE)}, and at, a time"
            )
    return tuple(LabelEdit(edit["what"], checked_moment(edit["at"], "at")) for edit in values)
