"""One open image, the slice on screen, and the answers so far; knows no browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medreasoner.asking import Written, write
from medreasoner.contract.answer import Box, GroundingAnswer, Point
from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.contract.wire import AXES
from medreasoner.imaging import StoredImage, open_image
from medreasoner.picture import Picture
from medreasoner.pipeline import Grounding, GroundingPipeline

Window = tuple[float, float]  # centre and width, in the image's units
DRAWN = "drawn by hand"


@dataclass(frozen=True)
class Answered:
    """An answer and the picture it belongs to.

    Attributes:
        wished_axis: the view that was asked for, None where the image's own was shown.
        wished_window: (centre, width) that were asked for, None where the image's own were used.
        edited: somebody moved the box or the points since the reasoner answered.
    """

    picture: Picture
    grounding: Grounding
    wished_axis: str | None
    wished_window: Window | None
    edited: bool = False


class Reading:
    """What one person does with one image at a time: look, ask, correct, undo, save."""

    def __init__(self, pipeline: GroundingPipeline, out: Path) -> None:
        self.pipeline, self.out = pipeline, out
        self.image: StoredImage | None = None
        self.picture: Picture | None = None
        self.axis: str | None = None
        self.window: Window | None = None
        self.answers: list[Answered] = []
        self._before: list[list[Answered]] = []

    def open(self, path: Path) -> None:
        """Open a file or series folder and show its middle slice; raises `ImageError` and then changes nothing."""
        image = open_image(path)
        picture = image.picture()
        self.image, self.picture, self.axis, self.window = image, picture, None, None
        self.answers, self._before = [], []

    def axes(self) -> list[str]:
        """List the views that this image has, its stored one last."""
        image = self._opened()
        found = []
        for axis in AXES:
            try:
                image.slice_count(axis)
            except ImageError:  # an image without geometry, or a single slice, has no such view
                continue
            found.append(axis)
        return found

    def slice_count(self) -> int:
        """How many slices the view on screen has."""
        return self._opened().slice_count(self.axis)

    def show(self, axis: str | None, slice_index: int | None = None, window: Window | None = None) -> Picture:
        """Put a slice on screen; arguments and errors as in `StoredImage.picture`."""
        self.picture = self._opened().picture(axis, slice_index, window)
        self.axis, self.window = axis, window
        return self.picture

    @property
    def answer(self) -> Answered | None:
        """The latest answer, where it belongs to the slice on screen."""
        last = self.answers[-1] if self.answers else None
        if last is None or self.picture is None:
            return None
        # By the way to the voxels: two views of one slice may have one name and be mirror images.
        return last if np.array_equal(last.picture.to_index, self.picture.to_index) else None

    def ask(self, question: str) -> Answered:
        """Answer a question about the slice on screen.

        Raises:
            MedReasonerError: no image is open, another was opened meanwhile, the question is none, or the answer
                cannot be used.
        """
        image, picture, axis, window = self.image, self._shown(), self.axis, self.window
        found = Answered(picture, self.pipeline.ground(question, picture), axis, window)
        self._check_open(image)
        return self._keep([*self.answers, found])

    def refine(self, box: Box, points: tuple[Point, Point] | None = None) -> Answered:
        """Get a new mask for a box, and points, drawn or moved on the slice on screen; the reasoner is not asked.

        Args:
            box: in picture pixels; what lies outside the picture is cut off.
            points: in picture pixels; None keeps the answer's own or, where there are none, puts them into the box.

        Raises:
            MedReasonerError: no image is open, another was opened meanwhile, or the box has no part inside the
                picture.
        """
        image, picture, last = self.image, self._shown(), self.answer
        axis, window = self.axis, self.window
        box = picture.clip(box)
        old = last.grounding.answer if last is not None else None
        if points is None:
            points = old.points if isinstance(old, GroundingAnswer) else _inside(box)
        found = self.pipeline.refine(picture, box, points)
        self._check_open(image)
        question = last.grounding.question if last is not None else DRAWN
        reasoning = old.reasoning if isinstance(old, GroundingAnswer) else ""  # not the reasoning of an absent answer
        answer = GroundingAnswer(box, points, reasoning)
        asked, attempts = ({}, 0) if last is None else (last.grounding.reasoner, last.grounding.attempts)
        grounding = Grounding(question, answer, found.mask, found.quality, attempts, reasoner=asked)
        kept = self.answers if last is None else self.answers[:-1]
        return self._keep([*kept, Answered(picture, grounding, axis, window, edited=True)])

    def undo(self) -> bool:
        """Go back to before the latest answer or correction; False when there is nothing to undo."""
        if not self._before:
            return False
        self.answers = self._before.pop()
        return True

    def go_to(self, number: int) -> None:
        """Show the slice of an earlier answer as it was then, and make that answer the latest."""
        found = self.answers[number]
        self.picture, self.axis, self.window = found.picture, found.wished_axis, found.wished_window
        self._keep([*self.answers[:number], *self.answers[number + 1 :], found])

    def save(self) -> Written:
        """Write the latest answer's overlay, mask and result into `out`; raises `MedReasonerError`."""
        last = self.answer
        if last is None:
            raise MedReasonerError("this slice has no answer to save", "ask a question or draw a box first")
        return write(self.pipeline, self._opened(), last.picture, last.grounding, self.out)

    def _keep(self, answers: list[Answered]) -> Answered:
        self._before.append(self.answers)
        self.answers = answers
        return answers[-1]

    def _opened(self) -> StoredImage:
        if self.image is None:
            raise MedReasonerError("no image is open", "type the path of a file or series folder and open it")
        return self.image

    def _check_open(self, image: StoredImage | None) -> None:
        """An answer that took its time must not be laid over another image."""
        if self.image is not image:
            raise MedReasonerError("another image was opened before the answer came", "ask again about this one")

    def _shown(self) -> Picture:
        self._opened()
        assert self.picture is not None  # `open` shows one
        return self.picture


def _inside(box: Box) -> tuple[Point, Point]:
    """Two points on the box's middle line, a quarter of its width from either side."""
    y, quarter = (box.y_min + box.y_max) / 2, (box.x_max - box.x_min) / 4
    return Point(box.x_min + quarter, y), Point(box.x_max - quarter, y)
