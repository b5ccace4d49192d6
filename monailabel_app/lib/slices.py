"""The slices of a volume along one axis as pictures, and masks of such pictures as one volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from medreasoner.imaging import StoredImage
from medreasoner.picture import Picture


class Slices(Sequence[Picture]):
    """All slices in the view and the grey levels of one of them, each cut when it is asked for."""

    def __init__(self, image: StoredImage, key: Picture, wished_window: tuple[float, float] | None = None) -> None:
        """`key` was cut from `image` with `wished_window`.

        Where nobody wished for a window and the file has none of its own, that of the key slice is used for all:
        automatic windows of their own would make the same tissue lighter on one slice than on the next.
        """
        self._image, self._axis = image, key.axis
        by_file = image.default_window is not None or image.voi_table is not None
        self._window = wished_window if wished_window is not None or by_file else key.window

    def __len__(self) -> int:
        return self._image.slice_count(self._axis)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._image.picture(self._axis, index, self._window)


def stacked(masks: NDArray[np.bool_], slices: Slices) -> NDArray[np.uint8]:
    """Put the masks of all slices, (slices, height, width) bool, into the volume's grid, (i, j, k) uint8."""
    first = slices[0]
    volume = np.zeros(first.shape, np.uint8)
    for number in np.flatnonzero(masks.any(axis=(1, 2))):
        picture = slices[int(number)]
        here = slab(picture)
        volume[here] = picture.mask_in_volume(masks[number])[here]
    return volume


def slab(picture: Picture) -> tuple[slice, slice, slice]:
    """The voxels of a picture that follows an index axis: one layer across it."""
    right, down, corner = picture.to_index.T
    through = int(np.argmax(np.abs(np.cross(right, down))))
    layer = round(float(corner[through]))
    i, j, k = (slice(layer, layer + 1) if axis == through else slice(None) for axis in range(3))
    return i, j, k
