"""Which way up: the plane of voxel indices behind each view, and how its pixels are made square.

Radiological display: axial has the patient's right on the viewer's left and anterior up; coronal has right on the
left and superior up; sagittal has anterior on the left and superior up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.imaging.values import check_size
from medreasoner.picture import Matrix, plane_to_index

VIEWS = {  # patient axis (0 left, 1 posterior, 2 superior) and sign of: picture right, picture down
    "axial": ((0, 1), (1, 1)),
    "coronal": ((0, 1), (2, -1)),
    "sagittal": ((1, 1), (2, -1)),
}
PERPENDICULAR = ("sagittal", "coronal", "axial")  # the view across each patient axis
OBLIQUE_COSINE = 0.8  # nearer than 37 degrees to a main direction keeps its name, as dicom3tools has it
SQUARE_TOLERANCE = 1.01


@dataclass(frozen=True)
class IndexPlane:
    """A view along whole voxel indices.

    Attributes:
        name: axial, coronal, sagittal, oblique or stored.
        right: (index axis, +1 or -1) of picture right.
        down: the same of picture down.
    """

    name: str
    right: tuple[int, int]
    down: tuple[int, int]

    @property
    def through(self) -> int:
        """The index axis that counts the slices."""
        return 3 - self.right[0] - self.down[0]

    def cut(self, values: NDArray[Any], slice_index: int) -> NDArray[Any]:
        """Take (rows, columns) or (rows, columns, 3) out of (i, j, k) or (i, j, k, 3) values."""
        plane = np.moveaxis(values, self.through, 0)[slice_index]  # np.take would copy the whole volume first
        if self.right[0] < self.down[0]:
            plane = np.swapaxes(plane, 0, 1)
        return np.asarray(plane[:: self.down[1], :: self.right[1]])

    def to_index(self, shape: tuple[int, ...], slice_index: int, steps: tuple[float, float]) -> Matrix:
        """The picture-to-IJK matrix; `steps` are voxels per picture pixel to the right and down."""
        origin, vectors = np.zeros(3), np.zeros((2, 3))
        origin[self.through] = slice_index
        for vector, (axis, sign), step in zip(vectors, (self.right, self.down), steps, strict=True):
            vector[axis] = sign * step
            edge = -0.5 if sign > 0 else shape[axis] - 0.5  # where the picture's border touches the volume
            origin[axis] = edge + vector[axis] / 2
        return plane_to_index(origin, *vectors)


def stored_plane(name: str = "stored") -> IndexPlane:
    """Columns to the right, rows down: as the file has them."""
    return IndexPlane(name, (0, 1), (1, 1))


def anatomical_plane(name: str, index_to_lps: Matrix) -> IndexPlane:
    """The index plane nearest to a view, flipped for radiological display."""
    index_axis = index_axes(index_to_lps)
    (right, right_sign), (down, down_sign) = (
        (index_axis[patient], sign if index_to_lps[patient, index_axis[patient]] > 0 else -sign)
        for patient, sign in VIEWS[name]
    )
    return IndexPlane(name, (right, right_sign), (down, down_sign))


def index_axes(index_to_lps: Matrix) -> tuple[int, int, int]:
    """For left, posterior, superior: the index axis that runs most nearly along it, each used once."""
    steps = index_to_lps[:3, :3]
    cosines = np.abs(steps / np.linalg.norm(steps, axis=0))
    a, b, c = max(permutations(range(3)), key=lambda order: sum(cosines[p, i] for p, i in enumerate(order)))
    return a, b, c


def view_across(index_axis: int, index_to_lps: Matrix) -> str:
    """The view whose slices are counted along an index axis."""
    return PERPENDICULAR[index_axes(index_to_lps).index(index_axis)]


def acquired_name(index_to_lps: Matrix) -> str:
    """Name of the stored plane by its normal: axial, coronal, sagittal, or oblique when none is near."""
    normal = np.cross(index_to_lps[:3, 0], index_to_lps[:3, 1])
    cosines = np.abs(normal) / np.linalg.norm(normal)
    nearest = int(np.argmax(cosines))
    return PERPENDICULAR[nearest] if cosines[nearest] >= OBLIQUE_COSINE else "oblique"


def square_pixels(
    plane: NDArray[Any], spacing: tuple[float, float], name: str
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Resample the coarser in-plane axis to the finer spacing, so that shapes keep their proportions.

    Args:
        plane: (rows, columns) or (rows, columns, 3).
        spacing: size of a pixel to the right and down, in any unit.
        name: the file's name, for the message when the result is too large.

    Returns:
        The plane, and voxels per new pixel to the right and down; (1, 1) when the spacings differ by 1 % or less.
    """
    finest = min(spacing)
    if max(spacing) <= SQUARE_TOLERANCE * finest:
        return plane, (1.0, 1.0)
    axis = 1 if spacing[0] > spacing[1] else 0
    step = finest / max(spacing)
    count = max(round(plane.shape[axis] / step), 1)
    check_size((count, plane.shape[1 - axis], *plane.shape[2:]), 4, f"the square-pixel picture of {name}")
    resampled = _linear(plane, axis, (np.arange(count) + 0.5) * step - 0.5)
    return resampled, (step, 1.0) if axis == 1 else (1.0, step)


def _linear(plane: NDArray[Any], axis: int, positions: NDArray[np.float64]) -> NDArray[Any]:
    """Linear interpolation at positions in pixel centres along one axis; the border value continues outwards."""
    inside = np.clip(positions, 0, plane.shape[axis] - 1)
    lower = np.minimum(inside.astype(int), max(plane.shape[axis] - 2, 0))
    upper = np.minimum(lower + 1, plane.shape[axis] - 1)
    part = (inside - lower).reshape([-1 if a == axis else 1 for a in range(plane.ndim)])
    mixed = np.take(plane, lower, axis) * (1 - part) + np.take(plane, upper, axis) * part
    return np.asarray(np.rint(mixed) if plane.dtype.kind in "iu" else mixed, plane.dtype)
