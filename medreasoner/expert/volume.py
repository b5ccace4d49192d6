"""From a box on one slice to a mask through the volume: what every way of doing it offers, and the door to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import ImageError
from medreasoner.expert.protocol import SegmentationExpert
from medreasoner.picture import Picture

Progress = Callable[[int, int], None]  # slices looked at, slices at most
Cancelled = Callable[[], bool]

END = "end of the volume"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class VolumeMask:
    """One target through a volume.

    Attributes:
        masks: (slices, height, width) bool, in the order and the pixels of the pictures.
        first, last: the outermost slices that hold the target, both included; the key slice where none does.
        stopped_because: why it went no further below `first` and above `last`: "end of the volume", "cancelled",
            or what was seen on the slice where the target was given up.
    """

    masks: NDArray[np.bool_]
    first: int
    last: int
    stopped_because: tuple[str, str]


class VolumeExpert(Protocol):
    """Follows a target from the slice where it was found through its neighbours."""

    @property
    def name(self) -> str:
        """Short name for results and logs."""

    @property
    def sha256(self) -> str:
        """Hash of the weights."""

    def propagate(
        self,
        pictures: Sequence[Picture],
        key: int,
        box: Box,
        points: Sequence[Point] = (),
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> VolumeMask:
        """Follow the target outwards from the key slice, both ways.

        Args:
            pictures: the volume's slices along one axis, in order, all of one size. They are asked for one at a time,
                so a sequence that cuts them on demand will do.
            key: the slice that box and points are on, counted from 0 in `pictures`.
            box: in picture pixels.
            points: on the target, in picture pixels; left out of the prompt where the expert takes none.
            progress: called after each slice.
            cancelled: asked before each slice; once it says yes, what was found so far is returned.

        Raises:
            ImageError: there is no such key slice, or the slices differ in size.
            AnswerError: the box has no part inside the picture.
        """


def open_volume_expert(expert: SegmentationExpert) -> VolumeExpert:
    """Choose how an expert goes through a volume: SAM 2 with its video memory, all others slice by slice.

    Raises:
        CheckpointError: the video memory's weights cannot be read.
    """
    from medreasoner.expert.picture_expert import PictureExpert
    from medreasoner.expert.slice_by_slice import SliceBySlice

    own = expert.own_volume_expert() if isinstance(expert, PictureExpert) else None
    return own or SliceBySlice(expert)


def check_key(pictures: Sequence[Picture], key: int) -> None:
    """Raise `ImageError` unless there is such a slice."""
    if not 0 <= key < len(pictures):
        raise ImageError(f"slice {key} is not in the volume", f"give a slice from 0 to {len(pictures) - 1}")


def check_size(picture: Picture, key: Picture, number: int) -> None:
    """Raise `ImageError` where a slice is not as large as the key slice."""
    if (picture.height, picture.width) != (key.height, key.width):
        raise ImageError(
            f"slice {number} has {picture.width} x {picture.height} pixels, the key slice {key.width} x {key.height}",
            "give the slices of one volume along one axis",
        )
