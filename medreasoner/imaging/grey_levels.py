"""Stored values to the 256 grey levels of a picture: windows and lookup tables, as DICOM PS3.3 C.11.2 defines them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError

Window = tuple[float, float]  # centre and width, in the image's units (HU for CT)

CT_WINDOW: Window = (40.0, 400.0)  # soft tissue, the usual abdominal preset
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A modality or VOI lookup table (PS3.3 C.11.1.1, C.11.2.1.1).

    Attributes:
        first: the value that maps to the first entry; smaller ones do too, larger ones than the last to the last.
        entries: (n,) unsigned integers.
        bits: the largest possible entry is ``2 ** bits - 1``.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def look_up(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Entries for values of any shape; fractions are rounded."""
        index = np.rint(values).astype(np.int64) - self.first
        return np.asarray(self.entries[np.clip(index, 0, len(self.entries) - 1)])

    def grey(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Entries scaled to 0..255."""
        scaled = np.rint(self.look_up(values) * (255.0 / (2**self.bits - 1)))
        return np.asarray(np.clip(scaled, 0, 255), np.uint8)

    @property
    def window(self) -> Window:
        """The range the table covers, as a window."""
        return self.first + len(self.entries) / 2, float(len(self.entries))


def check_window(window: Window, function: str) -> Window:
    """Check a window that a person or program asked for.

    Raises:
        ImageError: not finite, or not wide enough for the function (1 for LINEAR, more than 0 otherwise).
    """
    centre, width = float(window[0]), float(window[1])
    if not (math.isfinite(centre) and math.isfinite(width)) or not is_wide_enough(width, function):
        least = "at least 1" if function == "LINEAR" else "more than 0"
        raise ImageError(
            f"the window with centre {centre:g} and width {width:g} cannot be used",
            f"give a finite centre and a width of {least}",
        )
    return centre, width


def is_wide_enough(width: float, function: str) -> bool:
    """PS3.3 C.11.2.1.2.1: LINEAR needs a width of at least 1, the other functions more than 0."""
    return width >= 1 if function == "LINEAR" else width > 0


def exact_function(values: NDArray[Any]) -> str:
    """The function for windows that no file defines: LINEAR counts whole levels, fractions need LINEAR_EXACT."""
    return "LINEAR" if values.dtype.kind in "iu" else "LINEAR_EXACT"


def window_grey(values: NDArray[Any], window: Window, function: str) -> NDArray[np.uint8]:
    """Apply a window.

    Args:
        values: any shape, in the image's units.
        window: centre and width, wide enough for the function.
        function: LINEAR (PS3.3 C.11.2.1.2.1), LINEAR_EXACT (C.11.2.1.3.2) or SIGMOID (C.11.2.1.3.1).

    Returns:
        The same shape, 0..255, rounded to the nearest level.
    """
    (centre, width), numbers = window, values.astype(np.float64)
    if function == "SIGMOID":
        exponent = np.clip(-4 * (numbers - centre) / width, -700, 700)  # exp(710) overflows; 255 levels end far earlier
        level = 1 / (1 + np.exp(exponent))
    else:
        if function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        low = centre - width / 2
        level = (numbers > low).astype(np.float64) if width <= 0 else (numbers - low) / width
    return np.asarray(np.rint(np.clip(level, 0, 1) * 255), np.uint8)


def automatic_window(values: NDArray[Any], modality: str) -> Window:
    """The window of an image that brings none: soft tissue for CT, else the middle 99 percent of the values.

    Args:
        values: the slice's values without padding, any shape, maybe empty.
        modality: DICOM code.

    Returns:
        A window that maps the lower percentile to black and the upper to white; never of zero width.
    """
    if modality == "CT" or values.size == 0:
        return CT_WINDOW
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    if low == high:  # a few bright pixels on a constant ground
        low, high = float(values.min()), float(values.max())
    if exact_function(values) == "LINEAR":
        return (low + high + 1) / 2, high - low + 1
    return (low + high) / 2, (high - low) or 1.0
