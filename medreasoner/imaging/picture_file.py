"""PNG, JPEG, BMP, TIFF and WebP: no geometry, no units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.grey_levels import Window
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.imaging.values import check_size, over_black, reading, tidy_values

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
HINT = "save it again as PNG, or copy the file again"
EIGHT_BIT: Window = (128.0, 256.0)  # under LINEAR, maps 0..255 onto itself
WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # 16-bit and 32-bit grey


def open_picture(path: Path) -> StoredImage:
    """Open an ordinary image file; k counts the pages of a TIFF or the frames of an animation.

    EXIF orientation is applied, so that i runs to the right as a viewer shows it. Transparency lies on black. 8-bit
    grey keeps its levels; wider grey is windowed like any other scalar.

    Raises:
        ImageError: damaged, too large, or pages of different size or kind.
    """
    with reading(path, "an image", HINT):
        try:
            file = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ImageError(f"{path.name} has too many pixels", "crop or downsample it") from error
        with file:
            pages = int(getattr(file, "n_frames", 1)) if file.format != "MPO" else 1  # a JPEG with previews
            check_size((file.height, file.width, pages), 3, path.name)
            frames = [_values(page) for page, _ in zip(ImageSequence.Iterator(file), range(pages), strict=False)]
    if len({(frame.shape, frame.dtype) for frame in frames}) > 1:
        raise ImageError(f"the pages of {path.name} differ in size or kind", "save the page you want as a PNG")
    values = tidy_values(np.stack(frames), path.name)
    return StoredImage(
        path=path,
        values=np.swapaxes(values, 0, 2),
        default_window=EIGHT_BIT if values.dtype == np.uint8 and values.ndim == 3 else None,
    )


def _values(page: Image.Image) -> NDArray[Any]:
    """(rows, columns) of grey or (rows, columns, 3) uint8."""
    upright = ImageOps.exif_transpose(page)
    if upright.mode in WIDE_MODES:
        return np.asarray(upright)
    if upright.mode in ("1", "L") and "transparency" not in upright.info:
        return np.asarray(upright.convert("L"))
    if upright.has_transparency_data:
        return over_black(np.asarray(upright.convert("RGBA")))
    return np.asarray(upright.convert("RGB"))
