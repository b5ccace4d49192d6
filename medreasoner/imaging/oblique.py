"""Any plane through a volume, for reformats that do not follow the stored slices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.values import check_size
from medreasoner.picture import Matrix, plane_to_index

_HINT = "give finite numbers, two perpendicular directions, and a size and spacing above 0 mm"


def oblique_grid(
    index_to_lps: Matrix, centre: Any, right: Any, down: Any, size_mm: tuple[float, float], spacing_mm: float
) -> tuple[Matrix, int, int]:
    """Lay square pixels on a plane in the patient.

    Args:
        index_to_lps: 4x4, IJK to mm.
        centre: LPS mm of the picture's centre, (3,).
        right: LPS direction of picture right, (3,), any length above 0.
        down: LPS direction of picture down, perpendicular to `right` within 0.06 degrees.
        size_mm: width and height.
        spacing_mm: side of a pixel.

    Returns:
        The picture-to-IJK matrix (3x3, corner origin), the width and the height in pixels.

    Raises:
        ImageError: the directions or sizes describe no plane, or one of too many pixels.
    """
    middle, along, across = (np.asarray(v, float).reshape(-1) for v in (centre, right, down))
    numbers = np.concatenate([middle, along, across, np.asarray([*size_mm, spacing_mm], float)])
    lengths = float(np.linalg.norm(along)), float(np.linalg.norm(across))
    if numbers.shape != (12,) or not np.isfinite(numbers).all() or min(*lengths, *size_mm, spacing_mm) <= 0:
        raise ImageError("these numbers do not describe an oblique plane", _HINT)
    along, across = along / lengths[0], across / lengths[1]
    if abs(along @ across) > 1e-3:
        raise ImageError("the directions right and down are not perpendicular", _HINT)
    width, height = (max(round(size / spacing_mm), 1) for size in size_mm)
    check_size((width, height, 3), 4, "the oblique picture")  # three positions a pixel
    to_index = np.linalg.inv(index_to_lps)
    step_right, step_down = (to_index[:3, :3] @ (v * spacing_mm) for v in (along, across))
    first = (to_index @ [*middle, 1.0])[:3] - (width - 1) / 2 * step_right - (height - 1) / 2 * step_down
    return plane_to_index(first, step_right, step_down), width, height


def sample(values: NDArray[Any], to_index: Matrix, width: int, height: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Linear interpolation of a volume at the picture's pixel centres.

    Returns:
        (height, width) float32 or (height, width, 3) uint8 values, and (height, width) bool: inside the volume,
        whose voxels reach half a step beyond the outer centres.
    """
    from scipy.ndimage import map_coordinates

    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    index = np.tensordot(to_index, np.stack([x, y, np.ones_like(x)]), axes=1)
    size = np.asarray(values.shape[:3]).reshape(3, 1, 1)
    inside = ((index >= -0.5) & (index <= size - 0.5)).all(axis=0)
    channels = [values] if values.ndim == 3 else [values[..., c] for c in range(3)]
    planes = [map_coordinates(c, index, np.float32, order=1, mode="nearest") for c in channels]
    if values.ndim == 3:
        return planes[0], inside
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8), inside
