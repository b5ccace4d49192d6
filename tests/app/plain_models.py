"""Models whose answers a test knows beforehand: a reasoner that says what it was told, an expert that fills its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medreasoner.contract.answer import AbsentAnswer, Answer, Box, GroundingAnswer, Point
from medreasoner.expert import Segmentation
from medreasoner.expert.protocol import BOX
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.protocol import Reply

ABSENT = AbsentAnswer("This is an MRI. The question asks about the moon, which cannot be seen on such an image.")


def found(box: Box) -> GroundingAnswer:
    centre = Point((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2)
    return GroundingAnswer(box, (centre, centre), "This is an MRI. The question points to the liver. It is large.")


class ToldReasoner:
    """Gives one answer to every question, and keeps what it was asked."""

    name, sha256, instruction_sha256 = "told", "a" * 64, "b" * 64

    def __init__(self, answer: Answer) -> None:
        self.tell = answer
        self.asked: list[tuple[str, Picture]] = []

    def answer(self, question: str, picture: Picture) -> Reply:
        self.asked.append((question, picture))
        return Reply(self.tell, "", 0.5, timings={"look": 0.01})


class BrightInBox:
    """Marks every pixel in the box that is brighter than `above`, by its centre; of points, the pixels under them."""

    name, sha256 = "bright", "c" * 64

    def __init__(self, above: int = -1, takes: frozenset[str] = BOX) -> None:
        self.above, self.takes = above, takes
        self.given: list[tuple[Box | None, tuple[Point, ...]]] = []

    def set_picture(self, picture: Picture) -> None:
        self.picture = picture

    def segment(self, box: Box | None, points: Sequence[Point] = ()) -> Segmentation:
        self.given.append((box, tuple(points)))
        rows, columns = np.mgrid[: self.picture.height, : self.picture.width] + 0.5
        inside = np.zeros(rows.shape, bool)
        if box is not None:
            inside = (columns > box.x_min) & (columns < box.x_max) & (rows > box.y_min) & (rows < box.y_max)
        for point in points:
            inside[int(point.y), int(point.x)] = True
        return Segmentation(inside & (self.picture.pixels[..., 0].astype(int) > self.above), 0.9)


def pipeline(answer: Answer, expert: BrightInBox | None = None) -> GroundingPipeline:
    return GroundingPipeline(ToldReasoner(answer), expert or BrightInBox())
