"""NRRD (.nrrd, and .nhdr with its data file beside it), as 3D Slicer writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.scalar_volume import volume_image
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.imaging.values import check_size, over_black, reading
from medreasoner.picture import Matrix

HINT = "save it again as .nrrd, or copy the file (and the data file beside a .nhdr) again"
ONE_VOLUME = "save the volume you want as a file of its own, for example with 3D Slicer's Sequences module"
SPATIAL_KINDS = ("domain", "space", "???", "none")
SIGNS = {  # what turns the file's space into LPS
    "left-posterior-superior": (1, 1, 1),
    "LPS": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "RAS": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "LAS": (1, -1, 1),
}


def open_nrrd(path: Path) -> StoredImage:
    """Open a 3-D (or 2-D) NRRD file of scalars or of RGB or RGBA bytes.

    A file without an anatomical space does not say how it lies in the patient: it has no geometry.

    Raises:
        ImageError: not NRRD, damaged, too large, of four or more dimensions, or with a singular geometry.
    """
    with reading(path, "NRRD", HINT):
        header: dict[str, Any] = nrrd.read_header(str(path))
        sizes = [int(n) for n in header["sizes"]]
        check_size(sizes, _bytes_per_value(str(header["type"])), path.name)
        stored, _ = nrrd.read(str(path), index_order="F")
        spatial, colour = _axes(header, sizes, path)
        values = _three_axes(stored, spatial, colour, path)
        steps = _steps(header, spatial)
        i, j, k = (*_lengths(header, spatial), 1.0, 1.0)[:3]
        index_to_lps = None if steps is None else _affine(header, steps)
    return volume_image(path, values, index_to_lps, (i, j, k))


def _bytes_per_value(kind: str) -> int:
    if "char" in kind or "int8" in kind:
        return 1
    return 2 if "short" in kind or "int16" in kind else 4


def _axes(header: dict[str, Any], sizes: list[int], path: Path) -> tuple[list[int], int | None]:
    """The axes of space (at most 3), and the one of colour; axes of one entry may be anything."""
    kinds = header.get("kinds") or ["domain"] * len(sizes)
    spatial = [axis for axis, kind in enumerate(kinds) if kind in SPATIAL_KINDS]
    spatial = [axis for n, axis in enumerate(spatial) if n < 3 or sizes[axis] > 1]
    others = [axis for axis in range(len(sizes)) if axis not in spatial and sizes[axis] > 1]
    if len(spatial) > 3 or len(others) > 1 or any(kinds[axis] in ("list", "time") for axis in others):
        raise ImageError(f"{path.name} has more than 3 dimensions ({' x '.join(map(str, sizes))})", ONE_VOLUME)
    return spatial, others[0] if others else None


def _three_axes(stored: NDArray[Any], spatial: list[int], colour: int | None, path: Path) -> NDArray[Any]:
    order = [*spatial, *([] if colour is None else [colour])]
    rest = [axis for axis in range(stored.ndim) if axis not in order]
    values = np.transpose(stored, [*order, *rest])
    shape = tuple(stored.shape[axis] for axis in spatial) + (1,) * (3 - len(spatial))
    if colour is None:
        return values.reshape(shape)
    if stored.dtype != np.uint8 or stored.shape[colour] not in (3, 4):
        raise ImageError(
            f"{path.name} holds {stored.shape[colour]} numbers of type {stored.dtype} a voxel, not a grey value or RGB",
            ONE_VOLUME,
        )
    colours = values.reshape((*shape, stored.shape[colour]))
    return over_black(colours) if colours.shape[-1] == 4 else colours


def _steps(header: dict[str, Any], spatial: list[int]) -> NDArray[np.float64] | None:
    """(n, 3) steps of the spatial axes in the file's own space; None where that is not anatomical."""
    directions = header.get("space directions")
    if directions is None or header.get("space") not in SIGNS:
        return None
    steps = np.asarray([directions[axis] for axis in spatial], float)
    return steps if np.isfinite(steps).all() else None


def _affine(header: dict[str, Any], steps: NDArray[np.float64]) -> Matrix:
    """IJK to LPS mm; a single slice gets a third step of 1 mm along its normal."""
    if len(steps) == 2:
        normal = np.cross(steps[0], steps[1])
        steps = np.vstack([steps, normal / np.linalg.norm(normal)])
    affine = np.eye(4)
    signs = np.asarray(SIGNS[header["space"]], float)
    affine[:3, :3] = steps.T * signs[:, None]
    affine[:3, 3] = np.asarray(header.get("space origin", np.zeros(3)), float) * signs
    return affine


def _lengths(header: dict[str, Any], spatial: list[int]) -> list[float]:
    if header.get("space directions") is not None:
        lengths = [float(np.linalg.norm(header["space directions"][axis])) for axis in spatial]
    else:
        spacings = header.get("spacings")
        lengths = [1.0 if spacings is None else float(spacings[axis]) for axis in spatial]
    return [length if np.isfinite(length) else 1.0 for length in lengths]
