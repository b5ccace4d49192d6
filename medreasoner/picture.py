"""What the reasoner and the expert see, and the exact way back to voxels and to the patient.

Picture pixels have a corner origin: (0, 0) is the outer corner of the top-left pixel, (0.5, 0.5) its centre.
Voxel indices (IJK) have a centre origin: (0, 0, 0) is the centre of the first voxel, as in DICOM, NIfTI and ITK.
The half pixel between the two lives in `plane_to_index` and nowhere else. docs/coordinates.md has the drawing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point

Matrix = NDArray[np.float64]


def plane_to_index(origin: Any, right: Any, down: Any) -> Matrix:
    """Build the 3x3 matrix that takes ``[x, y, 1]`` in picture pixels to ``[i, j, k]``.

    Args:
        origin: IJK of the centre of the top-left pixel.
        right: IJK step from one pixel centre to the next one on its right.
        down: IJK step from one pixel centre to the next one below.
    """
    right, down = np.asarray(right, float), np.asarray(down, float)
    corner = np.asarray(origin, float) - 0.5 * right - 0.5 * down
    return np.stack([right, down, corner], axis=1)


@dataclass(frozen=True)
class Picture:
    """One slice or image as uint8 RGB, tied to the file it came from.

    Attributes:
        pixels: (height, width, 3) uint8.
        to_index: 3x3, ``[x, y, 1]`` in picture pixels to IJK of the stored volume (k is the frame of a 2-D file).
        index_to_lps: 4x4, IJK to DICOM patient millimetres, or None where the file does not say.
        shape: the stored volume's size along i, j, k.
        axis: axial, coronal, sagittal, oblique, or stored (pictures and single-frame files).
        slice_index: which slice along that axis, counted in stored order.
        modality: the DICOM modality code, or an empty string where the file does not say.
        window: (centre, width) that made the grey levels, in the file's units; None for colour images.
    """

    pixels: NDArray[np.uint8]
    to_index: Matrix = field(default_factory=lambda: plane_to_index((0, 0, 0), (1, 0, 0), (0, 1, 0)))
    index_to_lps: Matrix | None = None
    shape: tuple[int, int, int] = (0, 0, 0)
    axis: str = "stored"
    slice_index: int = 0
    modality: str = ""
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.shape == (0, 0, 0):
            object.__setattr__(self, "shape", (self.width, self.height, 1))

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of size and pixels: the key of every cache of things computed from this picture."""
        digest = hashlib.sha256(np.asarray(self.pixels.shape, np.int64).tobytes())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()

    def index_of(self, point: Point) -> NDArray[np.float64]:
        """Continuous IJK (centre origin) of a picture position."""
        return np.asarray(self.to_index @ [point.x, point.y, 1.0])

    def lps_of(self, point: Point) -> NDArray[np.float64] | None:
        """Patient position in mm, LPS; None where the file does not say where the patient was."""
        if self.index_to_lps is None:
            return None
        return np.asarray((self.index_to_lps @ [*self.index_of(point), 1.0])[:3])

    def point_at(self, index: Any) -> Point:
        """Picture position nearest to a continuous IJK: the inverse of `index_of` for indices on the slice."""
        right, down, corner = self.to_index.T
        x, y = np.linalg.lstsq(np.stack([right, down], axis=1), np.asarray(index, float) - corner, rcond=None)[0]
        return Point(float(x), float(y))

    def clip(self, box: Box) -> Box:
        """Cut a box to the picture; raises `AnswerError` when nothing of it lies inside."""
        x_min, x_max = (min(max(v, 0.0), self.width) for v in (box.x_min, box.x_max))
        y_min, y_max = (min(max(v, 0.0), self.height) for v in (box.y_min, box.y_max))
        return Box(x_min, y_min, x_max, y_max)

    def clip_point(self, point: Point) -> Point:
        """Move a point onto the nearest pixel centre's row and column range."""
        return Point(min(max(point.x, 0.5), self.width - 0.5), min(max(point.y, 0.5), self.height - 0.5))

    def mask_in_volume(self, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Put a picture mask back into the stored volume's grid.

        A voxel belongs to the slice when its centre lies within half a voxel of the slice's plane, measured along
        the index axis that is most nearly perpendicular to it, so that every voxel column is hit once.

        Args:
            mask: (height, width) bool, in picture pixels.

        Returns:
            `shape` (i, j, k) uint8 of zeros and ones.
        """
        volume = np.zeros(self.shape, np.uint8, order="F")  # as files have it: i runs fastest
        right, down, corner = self.to_index.T
        normal = np.cross(right, down)
        through = int(np.argmax(np.abs(normal)))
        in_plane = [axis for axis in range(3) if axis != through]
        grid = np.stack(np.meshgrid(*(np.arange(self.shape[a]) for a in in_plane), indexing="ij"), axis=-1)
        steps = np.stack([right[in_plane], down[in_plane]], axis=1)
        xy = (grid - corner[in_plane]) @ np.linalg.inv(steps).T
        depth = corner[through] + xy @ np.array([right[through], down[through]])
        column, row = np.moveaxis(np.floor(xy + 1e-6).astype(int), -1, 0)
        level = np.floor(depth + 0.5 + 1e-6).astype(int)
        inside = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        inside &= (level >= 0) & (level < self.shape[through])
        hit = np.zeros(inside.shape, bool)
        hit[inside] = mask[row[inside], column[inside]]
        where: list[Any] = [None, None, None]
        where[in_plane[0]], where[in_plane[1]], where[through] = grid[hit][:, 0], grid[hit][:, 1], level[hit]
        volume[tuple(where)] = 1
        return volume
