"""Train where the target is: the decoder's cost grows with the tokens of the picture, most of which are far away.

Tokens keep the position codes of their true places, so the decoder sees a part of the picture, not a smaller picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from medreasoner.expert.litemedsam import Look

_TOKEN = 4  # canvas pixels a token, and logits a token
_MARGIN = 0.35  # of the box's longer side, on each side
_LEAST = 12.0  # canvas pixels of margin


@dataclass(frozen=True)
class Window:
    """Rows and columns of the image encoder's 64 x 64 tokens, half open."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, look: Look) -> Window:
        """Take the whole square, what lies beyond the picture too, as inference does."""
        side = look.features.shape[-1]
        return cls(0, side, 0, side)

    @classmethod
    def around(cls, boxes: Sequence[NDArray[np.float32]], look: Look) -> Window:
        """Take the tokens in and around boxes, given in canvas pixels, but none that lie beyond the picture."""
        x_min, y_min = np.min([box[:2] for box in boxes], axis=0)
        x_max, y_max = np.max([box[2:] for box in boxes], axis=0)
        margin = max(_LEAST, _MARGIN * max(x_max - x_min, y_max - y_min))
        rows, columns = (math.ceil(side / _TOKEN) for side in look.inner)
        return cls(
            min(max(int((y_min - margin) / _TOKEN), 0), rows - 1),
            min(math.ceil((y_max + margin) / _TOKEN), rows),
            min(max(int((x_min - margin) / _TOKEN), 0), columns - 1),
            min(math.ceil((x_max + margin) / _TOKEN), columns),
        )

    @property
    def tokens(self) -> tuple[EllipsisType, slice, slice]:
        """Index of (..., 64, 64) tokens."""
        return ..., slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Index of (rows, columns) canvas pixels."""
        return (
            slice(self.top * _TOKEN, self.bottom * _TOKEN),
            slice(self.left * _TOKEN, self.right * _TOKEN),
        )
