"""What every segmentation expert offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point
from medreasoner.picture import Picture

BOX = frozenset({"box"})
BOX_AND_POINTS = frozenset({"box", "points"})


@dataclass(frozen=True)
class Segmentation:
    """One region.

    Attributes:
        mask: (height, width) bool, in picture pixels.
        quality: the expert's own estimate of the mask's intersection over union with the truth, 0 to 1.
    """

    mask: NDArray[np.bool_]
    quality: float


class SegmentationExpert(Protocol):
    """Turns a box or points on a picture into a mask; looks at the picture once and answers many times."""

    @property
    def name(self) -> str:
        """Short name for results and logs: a key of `EXPERTS`."""

    @property
    def sha256(self) -> str:
        """Hash of the weights."""

    @property
    def takes(self) -> frozenset[str]:
        """The prompts that it was trained on, out of "box" and "points"; give it no others."""

    def set_picture(self, picture: Picture) -> None:
        """Make this the current picture of the calling thread; quick when it was seen before."""

    def segment(self, box: Box | None, points: Sequence[Point] = ()) -> Segmentation:
        """Segment what the box or the points mean, all of them in pixels of the current picture.

        Raises:
            MedReasonerError: there is no current picture, no prompt, or one that this expert does not take.
        """
