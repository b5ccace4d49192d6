"""Any expert through a volume: each slice's mask becomes the prompt of the next, until the target is no longer there.

An expert that is given a box finds something in it even where the target has ended, so what matters is when to stop.
The thresholds in `Stop` are loose on purpose: between neighbouring slices of 1 to 10 mm a real target changes slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point
from medreasoner.expert.mask_prompts import box_around, points_on
from medreasoner.expert.protocol import Segmentation, SegmentationExpert
from medreasoner.expert.volume import CANCELLED, END, Cancelled, Progress, VolumeMask, check_key, check_size
from medreasoner.metrics import mask_iou
from medreasoner.picture import Picture

_Slices = dict[int, NDArray[np.bool_]]


@dataclass(frozen=True)
class Stop:
    """When a neighbouring slice no longer holds the target.

    Attributes:
        quality: the expert's own estimate, as a share of that on the key slice.
        overlap: intersection over union with the last slice's mask.
        growth: area over the last slice's; a leak into the surroundings grows at once.
        spread: how many standard deviations of the key slice's grey levels inside the mask the mean inside may move:
            a box over plain background is filled with background.
    """

    quality: float = 0.75
    overlap: float = 0.3
    growth: float = 2.0
    spread: float = 2.5


class SliceBySlice:
    """A `VolumeExpert` made from any `SegmentationExpert`."""

    def __init__(self, expert: SegmentationExpert, margin: float = 0.05, stop: Stop | None = None) -> None:
        """Grow each slice's box by so much of its sides for the next slice, so that a target may grow again."""
        self._expert, self._margin, self._stop = expert, margin, stop or Stop()
        self.name, self.sha256 = expert.name, expert.sha256

    def propagate(
        self,
        pictures: Sequence[Picture],
        key: int,
        box: Box,
        points: Sequence[Point] = (),
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> VolumeMask:
        """See `VolumeExpert.propagate`."""
        check_key(pictures, key)
        picture = pictures[key]
        start = self._segment(picture, picture.clip(box), points)
        found: _Slices = {key: start.mask}
        reasons = [f"slice {key} is empty"] * 2
        if start.mask.any():
            tell = progress or (lambda _done, _most: None)
            tell(1, len(pictures))
            seen = _Seen(start, picture)
            for side, step in enumerate((-1, 1)):
                reasons[side] = self._walk(pictures, key, step, seen, found, tell, cancelled or (lambda: False))
        masks = np.zeros((len(pictures), picture.height, picture.width), bool)
        for number, mask in found.items():
            masks[number] = mask
        return VolumeMask(masks, min(found), max(found), (reasons[0], reasons[1]))

    def _walk(
        self,
        pictures: Sequence[Picture],
        key: int,
        step: int,
        seen: _Seen,
        found: _Slices,
        tell: Progress,
        cancelled: Cancelled,
    ) -> str:
        """Go one way until the target ends; return why."""
        last = found[key]
        number = key + step
        while 0 <= number < len(pictures):
            if cancelled():
                return CANCELLED
            picture = pictures[number]
            check_size(picture, pictures[key], number)
            here = self._segment(picture, box_around(last, self._margin), points_on(last))
            reason = seen.objection(here, picture, last, self._stop)
            if reason:
                return f"slice {number}: {reason}"
            found[number] = last = here.mask
            tell(len(found), len(pictures))
            number += step
        return END

    def _segment(self, picture: Picture, box: Box, points: Sequence[Point]) -> Segmentation:
        self._expert.set_picture(picture)
        return self._expert.segment(box, points if "points" in self._expert.takes else ())


class _Seen:
    """What the key slice's target looked like."""

    def __init__(self, key: Segmentation, picture: Picture) -> None:
        inside = picture.pixels[key.mask].astype(float)
        self.quality = key.quality
        self.mean, self.deviation = inside.mean(0), max(float(inside.std(0).mean()), _GREY_NOISE)

    def objection(self, here: Segmentation, picture: Picture, last: NDArray[np.bool_], stop: Stop) -> str:
        """Say why this mask is not the target's next slice; empty if nothing speaks against it."""
        if not here.mask.any():
            return "nothing found"
        if here.quality < stop.quality * self.quality:
            return f"quality fell to {here.quality:.2f}"
        if mask_iou(here.mask, last) < stop.overlap:
            return "the mask moved away"
        if here.mask.sum() > stop.growth * last.sum():
            return "the mask grew at once"
        moved = np.abs(picture.pixels[here.mask].mean(0) - self.mean).max() / self.deviation
        return f"grey levels moved by {moved:.1f} deviations" if moved > stop.spread else ""


_GREY_NOISE = 8.0  # grey levels of 255: a target of one level must not stop at the first noise
