"""Pictures and masks as data addresses that a browser shows."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner.overlay import MASK
from medreasoner.picture import Picture

_TINT = 110  # of 255: how much a mask covers


def address_of(picture: Picture) -> str:
    """Return the picture as a PNG data address."""
    return _address(Image.fromarray(picture.pixels))


def address_of_mask(mask: NDArray[np.bool_]) -> str:
    """Return a mask, (height, width) bool, as a tint with nothing around it; empty where the mask is."""
    if not mask.any():
        return ""
    tint = np.zeros((*mask.shape, 4), np.uint8)
    tint[mask] = (*MASK, _TINT)
    return _address(Image.fromarray(tint))


def _address(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)  # on loopback, time counts more than size
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
