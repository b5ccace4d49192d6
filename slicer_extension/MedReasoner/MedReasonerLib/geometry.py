"""Which slice of the volume a view shows, and how the server's picture of it lies in voxels. NumPy only.

The server cuts and flips the slice itself, so this module says again, for a client without the server's code, what
docs/coordinates.md and medreasoner/imaging/planes.py say; tests/slicer/test_slice_geometry.py compares the two.
IJK: voxel centres. Picture pixels: outer corner. RAS here is the volume's own, before any parent transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, Optional

import numpy as np

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
VIEWS = {  # patient axis (0 left, 1 posterior, 2 superior) and sign of: picture right, picture down
    "axial": ((0, 1), (1, 1)),
    "coronal": ((0, 1), (2, -1)),
    "sagittal": ((1, 1), (2, -1)),
}
ACROSS = {"sagittal": 0, "coronal": 1, "axial": 2}  # the patient axis perpendicular to each view
_SQUARE_TOLERANCE = 1.01
_HALF_VOXEL = 0.5


@dataclass(frozen=True)
class PicturePlane:
    """A picture's plane in a volume's voxels.

    Attributes:
        to_ijk: 3x3, ``[x, y, 1]`` in picture pixels to ``[i, j, k]``.
        size: width and height in pixels.
    """

    to_ijk: np.ndarray
    size: tuple[int, int]

    def ijk_of(self, points: Any) -> np.ndarray:
        """(n, 2) picture pixels to (n, 3) IJK."""
        xy = np.asarray(points, float).reshape(-1, 2)
        return np.column_stack([xy, np.ones(len(xy))]) @ self.to_ijk.T

    def pixels_of(self, ijk: Any) -> np.ndarray:
        """(n, 3) IJK to the nearest (n, 2) picture pixels."""
        right, down, corner = self.to_ijk.T
        offsets = np.asarray(ijk, float).reshape(-1, 3) - corner
        return np.linalg.lstsq(np.stack([right, down], axis=1), offsets.T, rcond=None)[0].T

    def clipped(self, pixels: Any) -> np.ndarray:
        """(n, 2) picture pixels, moved onto the picture."""
        return np.clip(np.asarray(pixels, float).reshape(-1, 2), 0, self.size)


def box_corners(box: Any) -> list[list[float]]:
    """Top-left, top-right, bottom-right, bottom-left of ``[x_min, y_min, x_max, y_max]``."""
    x_min, y_min, x_max, y_max = box
    return [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]]


def box_round(corners: Any) -> list[float]:
    """The smallest ``[x_min, y_min, x_max, y_max]`` round (n, 2) picture pixels."""
    found = np.asarray(corners, float)
    return [round(float(v), 2) for v in (*found.min(axis=0), *found.max(axis=0))]


def index_axes(ijk_to_ras: np.ndarray) -> tuple[int, ...]:
    """For left, posterior, superior: the index axis that runs most nearly along it, each used once."""
    steps = ijk_to_ras[:3, :3]
    cosines = np.abs(steps / np.linalg.norm(steps, axis=0))
    return max(permutations(range(3)), key=lambda order: sum(cosines[p, i] for p, i in enumerate(order)))


def stored_slice(view_to_ijk: np.ndarray, ijk_to_ras: np.ndarray, shape: Any) -> Optional[tuple[str, int]]:
    """Name and number of the stored slice that a view shows; None where the view is oblique to all of them.

    A view is oblique when it leaves its slice by more than half a voxel within the volume.

    Args:
        view_to_ijk: 4x4, view coordinates (the first two axes span the view, through its origin) to IJK.
        ijk_to_ras: 4x4 of the volume.
        shape: voxels along i, j, k.

    Raises:
        ValueError: the view lies outside the volume.
    """
    scale = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)  # voxels to mm, so that angles are those of the patient
    through = int(np.argmax(np.abs(np.cross(*(view_to_ijk[:3, :2] * scale[:, None]).T))))
    normal = np.cross(*view_to_ijk[:3, :2].T)
    across = [axis for axis in range(3) if axis != through]
    corners = np.array([[a, b] for a in (0, shape[across[0]] - 1) for b in (0, shape[across[1]] - 1)])
    levels = view_to_ijk[through, 3] - (corners - view_to_ijk[across, 3]) @ normal[across] / normal[through]
    if np.ptp(levels) > _HALF_VOXEL:
        return None
    number = int(np.floor(levels.mean() + 0.5 + 1e-6))
    if not 0 <= number < shape[through]:
        raise ValueError("the view lies outside the volume")
    return list(ACROSS)[index_axes(ijk_to_ras).index(through)], number


def stored_plane(axis: str, number: int, ijk_to_ras: np.ndarray, shape: Any) -> PicturePlane:
    """The plane of the picture that the server cuts for a view name and a slice number: square pixels, radiological."""
    ijk_to_lps, axes = RAS_TO_LPS @ ijk_to_ras, index_axes(ijk_to_ras)
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    across = [axes[patient] for patient, _ in VIEWS[axis]]
    finest, coarsest = min(spacing[across]), max(spacing[across])
    square = coarsest <= _SQUARE_TOLERANCE * finest
    columns, size = np.zeros((3, 3)), []
    columns[3 - sum(across), 2] = number
    for column, (patient, sign) in enumerate(VIEWS[axis]):
        index = axes[patient]
        step = finest / coarsest if not square and spacing[index] == coarsest else 1.0
        forward = sign if ijk_to_lps[patient, index] > 0 else -sign
        columns[index, column] = forward * step
        columns[index, 2] = -0.5 if forward > 0 else shape[index] - 0.5
        size.append(max(round(shape[index] / step), 1))
    return PicturePlane(columns, (size[0], size[1]))


def voxels_under(mask: np.ndarray, plane: PicturePlane, shape: Any) -> np.ndarray:
    """The volume's voxels under a mask on an oblique plane.

    A voxel belongs to it when its centre lies under a true pixel and within half a voxel of the plane, measured along
    the index axis most nearly perpendicular to the plane (docs/coordinates.md).

    Args:
        mask: (height, width), in picture pixels.
        plane: the picture's plane in the volume.
        shape: voxels along i, j, k.

    Returns:
        (n, 3) whole i, j, k.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros((0, 3), int)
    right, down, corner = plane.to_ijk.T
    through = int(np.argmax(np.abs(np.cross(right, down))))
    across = [axis for axis in range(3) if axis != through]
    # only the voxel columns under the mask's own rectangle: the volume may be much larger
    corners = plane.ijk_of(box_corners([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]))[:, across]
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, np.asarray(shape)[across])
    grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 2)
    steps = np.stack([right[across], down[across]], axis=1)
    pixels = (grid - corner[across]) @ np.linalg.inv(steps).T
    levels = np.floor(corner[through] + pixels @ [right[through], down[through]] + 0.5 + 1e-6).astype(int)
    columns, rows = np.floor(pixels + 1e-6).astype(int).T
    inside = (columns >= 0) & (columns < plane.size[0]) & (rows >= 0) & (rows < plane.size[1])
    inside &= (levels >= 0) & (levels < shape[through])
    hit = np.flatnonzero(inside)
    hit = hit[mask[rows[hit], columns[hit]] != 0]
    found = np.empty((len(hit), 3), int)
    found[:, across], found[:, through] = grid[hit], levels[hit]
    return found
