"""Draw an answer on its picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medreasoner.contract.answer import Box, Point
from medreasoner.picture import Picture

MASK, ANSWER, TRUTH = (46, 204, 113), (255, 214, 10), (64, 156, 255)
_SIDE = 768  # small pictures are enlarged to this side so that lines stay thin beside them


def draw_overlay(
    picture: Picture,
    mask: NDArray[np.bool_],
    box: Box | None,
    points: tuple[Point, ...] = (),
    truth: Box | None = None,
    side: int = _SIDE,
) -> Image.Image:
    """Tint the mask, outline it, draw box and points, and the true box where one is given.

    Args:
        picture: what the reasoner saw.
        mask: (height, width) bool, in picture pixels.
        box: the answer's box in picture pixels; None for an absent target.
        points: the answer's points.
        truth: the true box.
        side: longest side of the drawing in pixels.
    """
    scale = side / max(picture.width, picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    pixels = np.asarray(Image.fromarray(picture.pixels).resize(size, Image.Resampling.BICUBIC), np.float32)
    large = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 127
    pixels[large] = 0.65 * pixels[large] + 0.35 * np.array(MASK, np.float32)
    pixels[_edge(large)] = MASK
    image = Image.fromarray(pixels.round().astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for shape, colour in ((truth, TRUTH), (box, ANSWER)):
        if shape is not None:
            corners = [v * scale for v in shape.as_list()]
            right, bottom = max(corners[0], corners[2] - 1), max(corners[1], corners[3] - 1)
            pen.rectangle([corners[0], corners[1], right, bottom], outline=colour, width=3)
    for point in points:
        x, y = point.x * scale, point.y * scale
        pen.ellipse([x - 5, y - 5, x + 5, y + 5], fill=ANSWER, outline=(0, 0, 0))
    return image


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner = mask.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(mask, step, axis)
    return mask & ~inner
