"""`medreasoner_volume`: from a box or a question on the key slice to a mask through the volume."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType

from medreasoner.contract.answer import AbsentAnswer, Box, Point
from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.wire import GroundingRequest, GroundingResult, RegionRequest
from medreasoner.expert.volume import VolumeExpert
from medreasoner.imaging import StoredImage
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from monailabel_app.lib.images import OpenedImages
from monailabel_app.lib.infers.clicks import clicked_region, holds_clicks
from monailabel_app.lib.infers.refine import drawn
from monailabel_app.lib.infers.task import Answered, AnsweringTask, frame_of
from monailabel_app.lib.infers.wishes import AXIS_CHOICES, Wish, picture_of, question_of, region_of
from monailabel_app.lib.slices import Slices, stacked

logger = logging.getLogger(__name__)
TOLD_EVERY = 10  # slices


@dataclass(frozen=True)
class KeySlice:
    """Where the target is to be followed from; without a box it is absent."""

    request: GroundingRequest | RegionRequest
    picture: Picture
    result: GroundingResult
    box: Box | None
    points: Sequence[Point] = ()


class Volume(AnsweringTask):
    """Finds the target on one slice, or takes a person's box for it, and follows it through its neighbours."""

    def __init__(self, pipeline: GroundingPipeline, images: OpenedImages, expert: VolumeExpert) -> None:
        super().__init__(
            pipeline,
            images,
            InferType.SEGMENTATION,
            3,
            "Follows a target from the slice of its box or question through the volume. Research use only.",
            {"question": "", "slice": "", "axis": AXIS_CHOICES},
        )
        self._expert = expert

    def answer(self, wish: Wish, image: StoredImage) -> Answered:
        """Find the target on the key slice, then follow it until it ends or `wish["cancelled"]()` says yes."""
        asked_by_hand = wish.get("box") is not None or wish.get("points") or holds_clicks(wish)
        key = self._drawn(wish, image) if asked_by_hand else self._asked(wish, image)
        if key.box is None:
            return Answered(key.result, np.zeros(image.shape, np.uint8))
        slices, start = Slices(image, key.picture, key.request.window), time.perf_counter()
        found = self._expert.propagate(
            slices, key.picture.slice_index, key.box, key.points, _tell, wish.get("cancelled")
        )
        timings = {**key.result.timings, "propagate": round(time.perf_counter() - start, 4)}
        logger.info("slices %d to %d; ended by: %s, %s", found.first, found.last, *found.stopped_because)
        expert = {"name": self._expert.name, "sha256": self._expert.sha256}
        result = replace(key.result, expert=expert, timings=timings)
        return Answered(result, stacked(found.masks, slices), frame_of(key.picture))

    def _drawn(self, wish: Wish, image: StoredImage) -> KeySlice:
        if holds_clicks(wish):
            region, picture = clicked_region(wish, image, self.pipeline.expert)
        else:
            region = region_of(wish)
            picture = picture_of(image, region)
        box, points = drawn(region, picture)
        if box is None:
            raise MedReasonerError("points alone cannot be followed through a volume", "draw a box around the target")
        timings: dict[str, float] = {}
        found = self.pipeline.refine(picture, box, points, timings)
        result = self.pipeline.region_result(picture, box, points, found, timings, region.question)
        return KeySlice(region, picture, result, box, points)

    def _asked(self, wish: Wish, image: StoredImage) -> KeySlice:
        request = question_of(wish)
        picture = picture_of(image, request)
        grounding = self.pipeline.ground(request.question, picture)
        result, answer = self.pipeline.result(grounding, picture), grounding.answer
        if isinstance(answer, AbsentAnswer):
            return KeySlice(request, picture, result, None)
        return KeySlice(request, picture, result, answer.box, answer.points)


def _tell(done: int, most: int) -> None:
    if done % TOLD_EVERY == 0:
        logger.info("%d of at most %d slices", done, most)
