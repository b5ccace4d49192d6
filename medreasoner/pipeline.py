"""A question and a picture become a grounding: reasoning, box, two points, mask and confidence."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import AbsentAnswer, Answer, Box, Point
from medreasoner.contract.target import named_target
from medreasoner.contract.wire import GroundingResult, checked_question
from medreasoner.expert import Segmentation, SegmentationExpert
from medreasoner.picture import Picture
from medreasoner.reasoner.protocol import Reasoner, Reply, sampling


@dataclass(frozen=True)
class Grounding:
    """The whole answer to one question, in picture pixels.

    Attributes:
        mask: (height, width) bool; all False when the target is absent.
        confidence: 0 to 1: the geometric mean of the reasoner's own likelihood, where known, and the expert's
            estimate of its mask; a ranking, not a probability (README, "Limits").
        timings: seconds by stage.
        reasoner: name and hashes of the one that answered; the pipeline may have another by now.
    """

    question: str
    answer: Answer
    mask: NDArray[np.bool_]
    confidence: float
    attempts: int
    timings: dict[str, float] = field(default_factory=dict)
    reasoner: dict[str, str] = field(default_factory=dict)

    @property
    def absent(self) -> bool:
        """Whether the reasoner says that the target is not in the picture."""
        return isinstance(self.answer, AbsentAnswer)


class GroundingPipeline:
    """Reasoner, then expert. Both are loaded once and used for many questions."""

    def __init__(self, reasoner: Reasoner, expert: SegmentationExpert) -> None:
        self.reasoner, self.expert = reasoner, expert

    def ground(self, question: str, picture: Picture) -> Grounding:
        """Answer one question.

        Raises:
            QuestionError: the question is empty or too long.
            AnswerError, ReasonerError: the reasoner gave no usable answer.
        """
        question, start = checked_question(question), time.perf_counter()
        reasoner = self.reasoner  # one to the end: another may be put in its place meanwhile
        grounding = self._completed(question, picture, reasoner, reasoner.answer(question, picture))
        grounding.timings["total"] = time.perf_counter() - start
        return grounding

    def samples(
        self, question: str, picture: Picture, count: int, seed: int = 0, temperature: float = 1.0
    ) -> Iterator[Grounding]:
        """Draw answers to one question, each when it is asked for; arguments as for `SamplingReasoner.samples`.

        Raises:
            QuestionError: the question is empty or too long.
            ReasonerError: the reasoner cannot draw answers, or gave none.
            AnswerError: a draw cannot be used.
        """
        question = checked_question(question)
        reasoner = sampling(self.reasoner)
        replies = reasoner.samples(question, picture, count, seed, temperature)
        return (self._completed(question, picture, reasoner, reply) for reply in replies)

    def _completed(self, question: str, picture: Picture, reasoner: Reasoner, reply: Reply) -> Grounding:
        """Let the expert draw what the reasoner has found."""
        timings, known = dict(reply.timings), identity(reasoner)
        if isinstance(reply.answer, AbsentAnswer):
            empty = np.zeros((picture.height, picture.width), bool)
            sure = 1.0 if reply.confidence is None else reply.confidence
            return Grounding(question, reply.answer, empty, sure, reply.attempts, timings, known)
        found = self.refine(picture, reply.answer.box, reply.answer.points, timings)
        sure = found.quality if reply.confidence is None else math.sqrt(reply.confidence * found.quality)
        return Grounding(question, reply.answer, found.mask, sure, reply.attempts, timings, known)

    def refine(
        self, picture: Picture, box: Box | None, points: Sequence[Point] = (), timings: dict[str, float] | None = None
    ) -> Segmentation:
        """Return a mask for an edited box and points, without the reasoner; quick once the picture was seen.

        Points beside a box are left out where the expert takes none.

        Raises:
            AnswerError: the box has no part inside the picture.
            MedReasonerError: there are only points, and the expert takes none.
        """
        times = {} if timings is None else timings
        start = time.perf_counter()
        self.expert.set_picture(picture)
        encoded = time.perf_counter()
        clipped = None if box is None else picture.clip(box)
        usable = points if clipped is None or "points" in self.expert.takes else ()
        found = self.expert.segment(clipped, usable)
        times["encode"], times["segment"] = encoded - start, time.perf_counter() - encoded
        return found

    def result(self, grounding: Grounding, picture: Picture) -> GroundingResult:
        """Put a grounding into every coordinate system, ready for the wire."""
        answer = grounding.answer
        placed = {} if isinstance(answer, AbsentAnswer) else _placed(picture, answer.box, answer.points)
        return GroundingResult(
            question=grounding.question,
            reasoning=answer.reasoning,
            absent=grounding.absent,
            confidence=round(grounding.confidence, 4),
            reasoner=grounding.reasoner,
            attempts=grounding.attempts,
            target=named_target(answer.reasoning),
            **self._shared(picture, grounding.timings),
            **placed,
        )

    def region_result(
        self,
        picture: Picture,
        box: Box | None,
        points: Sequence[Point],
        found: Segmentation,
        timings: dict[str, float],
        question: str = "",
    ) -> GroundingResult:
        """Put what `refine` found into the same form; no reasoner looked, so it says nothing."""
        return GroundingResult(
            question=question,
            reasoning="",
            absent=False,
            confidence=round(found.quality, 4),
            attempts=0,
            **self._shared(picture, timings),
            **_placed(picture, box, points),
        )

    def _shared(self, picture: Picture, timings: dict[str, float]) -> dict[str, Any]:
        return {
            "picture_size": (picture.width, picture.height),
            "axis": picture.axis,
            "slice_index": picture.slice_index,
            "expert": {"name": self.expert.name, "sha256": self.expert.sha256},
            "timings": {stage: round(seconds, 4) for stage, seconds in timings.items()},
        }


def identity(reasoner: Reasoner) -> dict[str, str]:
    """Say which reasoner it is: ``name``, ``sha256``, ``instruction_sha256``."""
    return {
        "name": reasoner.name,
        "sha256": reasoner.sha256,
        "instruction_sha256": reasoner.instruction_sha256,
    }


def _placed(picture: Picture, box: Box | None, points: Sequence[Point]) -> dict[str, Any]:
    """Box and points in picture pixels, IJK and LPS; what there is not is left out."""
    placed: dict[str, Any] = {}
    if box is not None:
        edges = ((box.x_min, box.y_min), (box.x_max, box.y_min), (box.x_max, box.y_max), (box.x_min, box.y_max))
        corners = [Point(x, y) for x, y in edges]
        placed["box"] = _rounded(box.as_list())
        placed["box_corners_ijk"] = [_rounded(picture.index_of(p)) for p in corners]
        placed["box_corners_lps"] = _in_patient(picture, corners)
    if points:
        placed["points"] = [_rounded([p.x, p.y]) for p in points]
        placed["points_ijk"] = [_rounded(picture.index_of(p)) for p in points]
        placed["points_lps"] = _in_patient(picture, points)
    return placed


def _rounded(values: NDArray[np.float64] | list[float]) -> list[float]:
    return [round(float(v), 3) for v in values]


def _in_patient(picture: Picture, points: Sequence[Point]) -> list[list[float]] | None:
    positions = [picture.lps_of(p) for p in points]
    return None if picture.index_to_lps is None else [_rounded(p) for p in positions if p is not None]
