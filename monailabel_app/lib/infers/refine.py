"""`medreasoner_refine`: an edited box or points, without the reasoner."""

from __future__ import annotations

from monailabel.interfaces.tasks.infer_v2 import InferType

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.wire import RegionRequest
from medreasoner.imaging import StoredImage
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from monailabel_app.lib.images import OpenedImages
from monailabel_app.lib.infers.clicks import clicked_region, holds_clicks
from monailabel_app.lib.infers.task import Answered, AnsweringTask
from monailabel_app.lib.infers.wishes import Wish, picture_of, region_of


class Refine(AnsweringTask):
    """The expert alone; quick once it has seen the slice. MONAI Label's plug-in lists it under SmartEdit."""

    def __init__(self, pipeline: GroundingPipeline, images: OpenedImages) -> None:
        super().__init__(
            pipeline,
            images,
            InferType.DEEPGROW,
            2,
            "Segments what a drawn box or clicks on one slice mean, without the reasoner. Research use only.",
            {},
        )

    def answer(self, wish: Wish, image: StoredImage) -> Answered:
        """Segment what a person drew."""
        if holds_clicks(wish):
            region, picture = clicked_region(wish, image, self.pipeline.expert)
        else:
            region = region_of(wish)
            picture = picture_of(image, region)
        box, points = drawn(region, picture)
        timings: dict[str, float] = {}
        found = self.pipeline.refine(picture, box, points, timings)
        result = self.pipeline.region_result(picture, box, points, found, timings, region.question)
        return Answered.on(picture, result, found.mask)


def drawn(region: RegionRequest, picture: Picture) -> tuple[Box | None, tuple[Point, ...]]:
    """The box cut to the picture, and the points; raises `AnswerError` for a box outside it."""
    box = None if region.box is None else picture.clip(Box(*region.box))
    return box, tuple(picture.clip_point(Point(x, y)) for x, y in region.points or [])
