"""Errors a caller can act on. Standard library only: this file also ships inside 3D Slicer."""

from __future__ import annotations


class MedReasonerError(Exception):
    """Base of every error this project raises on purpose: what went wrong, and what to do next.

    Both arguments are positional so that the error survives pickling out of a worker process.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.hint}"


class AnswerError(MedReasonerError):
    """The reasoner's text does not hold exactly one valid answer."""


class QuestionError(MedReasonerError):
    """The question cannot be asked: empty, or too long to be a question."""


class ImageError(MedReasonerError):
    """The image cannot be read, or the wanted slice of it does not exist."""


class CheckpointError(MedReasonerError):
    """A model's files are missing, damaged, or of another kind than expected."""


class ReasonerError(MedReasonerError):
    """The reasoner could not be reached or gave no usable answer."""
