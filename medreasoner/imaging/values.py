"""What every reader does with a file's numbers: refuse what is too large, empty or unreadable, and tidy the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError, MedReasonerError

MAX_BYTES = 2 * 1024**3


def check_size(shape: Sequence[int], bytes_per_value: int, name: str) -> None:
    """Refuse an image before its values are read.

    Args:
        shape: sizes along every axis, colour included.
        bytes_per_value: as stored; at most 4 count, since wider numbers are narrowed to 32 bits.
        name: the file's name, for the message.

    Raises:
        ImageError: an axis has no extent, or the values take more than `MAX_BYTES`.
    """
    if min(shape, default=0) < 1:
        sizes = " x ".join(str(n) for n in shape) or "nothing"
        raise ImageError(f"{name} holds no pixels (its size is {sizes})", "export the image again")
    size = math.prod(int(n) for n in shape) * min(bytes_per_value, 4)
    if size > MAX_BYTES:
        raise ImageError(
            f"{name} needs {size / 1024**3:,.1f} GiB of memory, more than the {MAX_BYTES // 1024**3} GiB allowed",
            "crop or downsample it, or open a part of it",
        )


def tidy_values(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Native byte order, at most 32 bits, all finite.

    NaN becomes the smallest finite value, so that holes look like background; infinities become the extremes.

    Raises:
        ImageError: complex numbers, or no finite number at all.
    """
    if values.dtype.kind not in "biuf":
        raise ImageError(
            f"{name} holds values of type {values.dtype}, which cannot be shown", "save its magnitude as real numbers"
        )
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return _narrow(values)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and handled as such below
        floats = values.astype(np.float32, copy=False)
    finite = np.isfinite(floats)
    if finite.all():
        return floats
    if not finite.any():
        raise ImageError(f"{name} holds no finite value, only NaN or infinity", "check how the volume was made")
    low, high = floats[finite].min(), floats[finite].max()
    return np.nan_to_num(floats, nan=low, posinf=high, neginf=low)


def _narrow(integers: NDArray[Any]) -> NDArray[Any]:
    native = integers.astype(integers.dtype.newbyteorder("="), copy=False)
    if native.dtype.itemsize <= 4:
        return native
    low, high = int(native.min()), int(native.max())
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return native.astype(kind)
    return native.astype(np.float32)


@contextmanager
def reading(path: Path, kind: str, hint: str) -> Iterator[None]:
    """Turn whatever a file format library raises into one `ImageError` that names the file.

    Args:
        path: the file being read.
        kind: what it was taken for, such as "DICOM".
        hint: what to do when it cannot be read.
    """
    try:
        yield
    except (MedReasonerError, MemoryError):
        raise
    except Exception as error:  # a parser that is fed damaged bytes raises anything; only its calls stand in here
        reason = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise ImageError(f"{path.name} cannot be read as {kind}: {reason}", hint) from error


def over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite (..., 4) RGBA on black, giving (..., 3) RGB, both uint8 with straight (not premultiplied) alpha."""
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((colour * alpha + 127) // 255).astype(np.uint8)
