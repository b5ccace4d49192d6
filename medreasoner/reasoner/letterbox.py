"""Fit a picture of any size onto the square canvas a reasoner was trained on, and bring its answer back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner.contract.answer import Box, Point


@dataclass(frozen=True)
class Letterbox:
    """Scale and offset of a picture on a square canvas; both in corner-origin pixels.

    ``canvas = picture * scale + (left, top)``, with one scale per axis because sizes are whole pixels.
    """

    canvas: int
    width: int
    height: int
    left: int
    top: int
    inner_width: int
    inner_height: int

    @classmethod
    def of(cls, width: int, height: int, canvas: int) -> Letterbox:
        """Centre a width x height picture on the canvas, its longer side filling it."""
        scale = canvas / max(width, height)
        inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(
            canvas, width, height, (canvas - inner_width) // 2, (canvas - inner_height) // 2, inner_width, inner_height
        )

    @property
    def area(self) -> tuple[int, int, int, int]:
        """Where the picture lies on the canvas: x_min, y_min, x_max, y_max, half-open."""
        return self.left, self.top, self.left + self.inner_width, self.top + self.inner_height

    def picture(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 to (canvas, canvas, 3), black around it."""
        return self._paste(pixels, Image.Resampling.BICUBIC)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(height, width) bool to (canvas, canvas) bool, nearest neighbour."""
        return self._paste(np.where(mask, 255, 0).astype(np.uint8), Image.Resampling.NEAREST) > 127

    def _paste(self, pixels: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.uint8]:
        image = Image.fromarray(pixels)
        if image.size != (self.inner_width, self.inner_height):
            image = image.resize((self.inner_width, self.inner_height), how)
        board = Image.new(image.mode, (self.canvas, self.canvas))
        board.paste(image, (self.left, self.top))
        return np.asarray(board)

    def to_picture(self, point: Point) -> Point:
        """Canvas pixels to picture pixels; may lie outside the picture when the canvas point is on the black."""
        return Point(
            (point.x - self.left) * self.width / self.inner_width,
            (point.y - self.top) * self.height / self.inner_height,
        )

    def to_canvas(self, point: Point) -> Point:
        """Picture pixels to canvas pixels."""
        return Point(
            point.x * self.inner_width / self.width + self.left, point.y * self.inner_height / self.height + self.top
        )

    def box_to_picture(self, box: Box) -> Box:
        """Canvas box to picture box."""
        low, high = self.to_picture(Point(box.x_min, box.y_min)), self.to_picture(Point(box.x_max, box.y_max))
        return Box(low.x, low.y, high.x, high.y)

    def box_to_canvas(self, box: Box) -> Box:
        """Picture box to canvas box."""
        low, high = self.to_canvas(Point(box.x_min, box.y_min)), self.to_canvas(Point(box.x_max, box.y_max))
        return Box(low.x, low.y, high.x, high.y)
