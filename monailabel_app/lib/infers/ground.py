"""`medreasoner`: a question about one slice."""

from __future__ import annotations

from monailabel.interfaces.tasks.infer_v2 import InferType

from medreasoner.imaging import StoredImage
from medreasoner.pipeline import GroundingPipeline
from monailabel_app.lib.images import OpenedImages
from monailabel_app.lib.infers.task import Answered, AnsweringTask
from monailabel_app.lib.infers.wishes import AXIS_CHOICES, Wish, picture_of, question_of


class Ground(AnsweringTask):
    """Reasoner and expert. Of a type that MONAI Label's plug-in lists under Auto Segmentation, with a question cell."""

    def __init__(self, pipeline: GroundingPipeline, images: OpenedImages) -> None:
        super().__init__(
            pipeline,
            images,
            InferType.SEGMENTATION,
            3,
            "Answers a clinical question about one slice: reasoning, box, two points and a mask. Research use only.",
            {"question": "", "slice": "", "axis": AXIS_CHOICES},
        )

    def answer(self, wish: Wish, image: StoredImage) -> Answered:
        """Ask about one slice."""
        request = question_of(wish)
        picture = picture_of(image, request)
        grounding = self.pipeline.ground(request.question, picture)
        return Answered.on(picture, self.pipeline.result(grounding, picture), grounding.mask)
