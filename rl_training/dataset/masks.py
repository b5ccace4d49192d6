"""Lay a target's mask over the picture that shows it."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner.contract.errors import MedReasonerError
from medreasoner.imaging import StoredImage, open_image
from medreasoner.picture import Picture
from rl_training.dataset.example import DataError, Example

_OFF = 0.5  # voxels by which two grids may differ and still mean the same voxels


def mask_on(example: Example, picture: Picture) -> NDArray[np.bool_] | None:
    """Return the target's pixels, (height, width) bool in picture pixels; None where the example has no mask.

    Raises:
        DataError: the mask cannot be read, has another size or grid than the image, is empty, or is not for one slice.
    """
    if example.view.slice_index is None and slice_axis(picture)[1] > 1:
        raise DataError(
            f"{example.where}: the image is a volume and the row does not say which slice is meant",
            "give the slice, counted from 0, or the word largest",
        )
    if example.absent:
        return np.zeros((picture.height, picture.width), bool)
    if example.mask is None:
        return None
    if isinstance(example.mask, bytes):
        mask = _decoded(example.mask, example)
        if mask.shape != (picture.height, picture.width):
            raise _another_size(example, mask.shape[::-1], (picture.width, picture.height))
    else:
        mask = _cut(mask_volume(example, example.mask, picture), picture)
    if not mask.any():
        raise DataError(
            f"{example.where}: the mask is empty{_slice_of(picture)}",
            "mark the row absent, choose another slice, or leave the row out",
        )
    return mask


def mask_volume(example: Example, path: Path, picture: Picture) -> NDArray[np.bool_]:
    """Return an example's mask file in the grid of the image that the picture was cut from, (i, j, k) bool."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(f"{example.where}: the mask {path.name} is a JPEG, whose edges are not exact", _SAVE)
    try:
        stored = _opened(path)
    except MedReasonerError as error:
        raise DataError(f"{example.where}: mask: {error.what}", error.hint) from error
    values = _in_grid(stored, picture, example)
    if example.label is None:
        return np.asarray((values != 0).any(axis=3) if values.ndim == 4 else values != 0)
    if values.ndim == 4:
        raise DataError(f"{example.where}: the mask {path.name} is in colour, so it has no labels", _SAVE)
    return np.asarray(values == example.label)


def slice_axis(picture: Picture) -> tuple[int, int]:
    """Return the index axis that counts the slices of a picture's view, and how many there are."""
    right, down, _ = picture.to_index.T
    axis = int(np.argmax(np.abs(np.cross(right, down))))
    return axis, picture.shape[axis]


_SAVE = "save masks as PNG in grey, NIfTI or NRRD"


@lru_cache(maxsize=1)  # rows about one volume come one after another, and a volume takes seconds to read
def _opened(path: Path) -> StoredImage:
    return open_image(path)


def _in_grid(mask: StoredImage, picture: Picture, example: Example) -> NDArray[Any]:
    """Turn the mask's axes until they run as the image's do; only whole turns and flips are possible."""
    if mask.index_to_lps is None or picture.index_to_lps is None:
        if mask.shape != picture.shape:
            raise _another_size(example, mask.shape, picture.shape)
        return mask.values
    matrix = np.linalg.inv(mask.index_to_lps) @ picture.index_to_lps  # image IJK to mask IJK
    turn = np.rint(matrix[:3, :3])
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        raise _elsewhere(example)
    order = np.abs(turn).argmax(axis=0)  # the mask axis that runs along each image axis
    if tuple(mask.shape[axis] for axis in order) != picture.shape:
        raise _another_size(example, mask.shape, picture.shape)
    flipped = turn[order, np.arange(3)] < 0
    start = np.zeros(3)
    start[order] = np.where(flipped, np.array(picture.shape) - 1, 0)
    corners = np.array(list(product(*((0, size - 1) for size in picture.shape))), float)
    off = corners @ (matrix[:3, :3] - turn).T + matrix[:3, 3] - start
    if np.abs(off).max() > _OFF:
        raise _elsewhere(example)
    turned = np.moveaxis(mask.values, order, (0, 1, 2))
    return np.flip(turned, axis=tuple(np.flatnonzero(flipped)))


def _cut(volume: NDArray[np.bool_], picture: Picture) -> NDArray[np.bool_]:
    """Read the voxel under each pixel's centre."""
    x, y = np.meshgrid(np.arange(picture.width) + 0.5, np.arange(picture.height) + 0.5)
    indices = np.stack([x, y, np.ones_like(x)], axis=-1) @ picture.to_index.T
    nearest = np.clip(np.rint(indices), 0, np.array(volume.shape) - 1).astype(int)
    return np.asarray(volume[nearest[..., 0], nearest[..., 1], nearest[..., 2]])


def _decoded(encoded: bytes, example: Example) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG",)) as file:
            values = np.asarray(file.convert("L"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{example.where}: the mask cannot be read: {error}", "save masks as PNG in grey") from error
    return np.asarray(values > 0 if example.label is None else values == example.label)


def _slice_of(picture: Picture) -> str:
    return f" on {picture.axis} slice {picture.slice_index}" if slice_axis(picture)[1] > 1 else ""


def _another_size(example: Example, mask: tuple[int, ...], image: tuple[int, ...]) -> DataError:
    sizes = (" x ".join(map(str, size)) for size in (mask, image))
    return DataError(
        f"{example.where}: the mask is {next(sizes)}, its image {next(sizes)}", "give the mask that was drawn on it"
    )


def _elsewhere(example: Example) -> DataError:
    return DataError(
        f"{example.where}: the mask lies on another grid of the patient than its image",
        "resample the mask to the image's grid (in Slicer: Segmentations, export with the image as reference)",
    )
