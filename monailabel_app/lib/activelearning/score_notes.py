"""What is noted of a scored image: of every question that was asked, how far the drawn answers differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from medreasoner.contract.answer import AbsentAnswer
from medreasoner.pipeline import Grounding
from monailabel_app.lib.activelearning.agreement import box_size, disagreement, low_confidence


@dataclass(frozen=True)
class Asked:
    """What the answers drawn to one question about an image gave.

    Attributes:
        question: as asked.
        scores: ``disagreement`` and ``low_confidence``, in [0, 1]: measures, comparable from image to image.
        size: mean share of the picture that the answers' boxes cover, in [0, 1]; 0 where all say "absent".
        boxes: of each answer ``[x_min, y_min, x_max, y_max]`` in picture pixels, null where it says "absent".
    """

    question: str
    scores: dict[str, float]
    size: float
    boxes: list[list[float] | None]

    @classmethod
    def of(cls, drawn: list[Grounding]) -> Asked:
        """Score the answers to one question."""
        answers = [grounding.answer for grounding in drawn]
        return cls(
            drawn[0].question,
            {"disagreement": round(disagreement(drawn), 4), "low_confidence": round(low_confidence(drawn), 4)},
            round(box_size(drawn), 5),
            [None if isinstance(a, AbsentAnswer) else [round(v, 1) for v in a.box.as_list()] for a in answers],
        )


@dataclass(frozen=True)
class Score:
    """What is noted of a scored image.

    Attributes:
        asked: every question, the one whose answers disagree most first; at least one.
        axis, slice_index: where; the slice counts from 0 in stored order.
        reasoner_sha256: of the reasoner that answered.
        questions_sha256: of the worklist; empty where the questions are those of saved labels.
        at: ISO 8601, UTC.
    """

    asked: list[Asked]
    axis: str
    slice_index: int
    reasoner_sha256: str
    questions_sha256: str
    at: str

    def to_note(self) -> dict[str, Any]:
        """Return JSON values: those of the first question beside the rest, the other questions under ``others``."""
        found = asdict(self)
        first, *others = found.pop("asked")
        return {**first, **found, "others": others}


_OF_ONE_QUESTION = [field.name for field in fields(Asked)]


def questions_of(note: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is noted of each question about an image, the first one first; empty where it is not scored.

    Older notes hold one question alone, and no size.
    """
    if "scores" not in note:
        return []
    return [{key: note[key] for key in _OF_ONE_QUESTION if key in note}, *note.get("others", [])]


def with_first(note: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return a note with another of its questions first: the one for which the image was chosen."""
    others = questions_of(note)
    first = others.pop(place)
    return {**{k: v for k, v in note.items() if k not in _OF_ONE_QUESTION}, **first, "others": others}
