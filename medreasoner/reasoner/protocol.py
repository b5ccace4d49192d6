"""What every reasoner offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from medreasoner.contract.answer import Answer
from medreasoner.contract.errors import ReasonerError
from medreasoner.picture import Picture


@dataclass(frozen=True)
class Reply:
    """A reasoner's answer, in picture pixels.

    Attributes:
        answer: a grounding inside the picture, or "absent".
        text: what the reasoner wrote, in its own canvas pixels.
        confidence: 0 to 1, how sure it was of its choices after the reasoning; None where the server does not say.
        attempts: 2 when its first text could not be read and it was asked once more.
        timings: seconds by stage.
    """

    answer: Answer
    text: str
    confidence: float | None
    attempts: int = 1
    timings: dict[str, float] = field(default_factory=dict)


class Reasoner(Protocol):
    """Turns a checked question and a picture into an answer."""

    @property
    def name(self) -> str:
        """Short name for results and logs."""

    @property
    def sha256(self) -> str:
        """Hash of the weights; empty where only a server knows them."""

    @property
    def instruction_sha256(self) -> str:
        """Hash of the instruction it is given."""

    def answer(self, question: str, picture: Picture) -> Reply:
        """Answer a question; raises `AnswerError` when even the second text cannot be read."""


@runtime_checkable
class SamplingReasoner(Reasoner, Protocol):
    """A reasoner that can also draw answers at random, to see how far they agree."""

    def samples(
        self, question: str, picture: Picture, count: int, seed: int = 0, temperature: float = 1.0
    ) -> Iterator[Reply]:
        """Draw answers to one question, each when it is asked for; in between, others may use the reasoner.

        Args:
            question: checked, as for `answer`.
            picture: what it is about.
            count: how many answers.
            seed: the same seed draws the same answers.
            temperature: 0 repeats the greedy answer, 1 draws from the reasoner's own distribution.

        Raises:
            AnswerError: as `answer`.
        """


def sampling(reasoner: Reasoner) -> SamplingReasoner:
    """Return the same reasoner as one that draws answers; raises `ReasonerError` where it cannot."""
    if not isinstance(reasoner, SamplingReasoner):
        raise ReasonerError(f"{reasoner.name} cannot draw several answers", "use a local reasoner, or a server's")
    return reasoner
