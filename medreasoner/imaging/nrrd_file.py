"""NRRD (.nrrd, and .nhdr with its data file beside it), as 3D Slicer writes it."""

from __future__ import annotations

import bz2
import math
import zlib
from io import BytesIO
from pathlib import Path
from typing import IO, Any

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
SIGNS = {  # what turns the file's space, in small letters, into LPS
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
INFLATERS: dict[str, Any] = {
    **dict.fromkeys(("gzip", "gz"), lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    **dict.fromkeys(("bzip2", "bz2"), bz2.BZ2Decompressor),
}
MM = {  # what turns `space units` into mm; not "m", which is all that an ASCII header leaves of "µm"
    **dict.fromkeys(("", "???", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometers"), 0.001),
}


def open_nrrd(path: Path) -> StoredImage:
    """Open a 3-D (or 2-D) NRRD file of scalars or of RGB or RGBA bytes.

    A file without an anatomical space does not say how it lies in the patient: it has no geometry.

    Raises:
        ImageError: not NRRD, damaged, too large, of four or more dimensions, measured in a unit not in `MM`, with a
            singular geometry, or with its values in a file elsewhere.
    """
    with reading(path, "NRRD", HINT), path.open("rb") as file:
        header: dict[str, Any] = nrrd.read_header(file)
        sizes = [int(n) for n in header["sizes"]]
        each = _bytes_per_value(str(header["type"]))
        check_size(sizes, each, path.name)
        _check_data_file(header, path)
        stored = nrrd.read_data(*_inflated(header, file, path, each * math.prod(sizes)), str(path), index_order="F")
        spatial, colour = _axes(header, sizes, path)
        values = _three_axes(stored, spatial, colour, path)
        to_lps_mm = _to_lps_mm(header, path)
        i, j, k = (*_lengths(header, spatial), 1.0, 1.0)[:3]
        index_to_lps = None if to_lps_mm is None else _affine(header, spatial, to_lps_mm)
    return volume_image(path, values, index_to_lps, (i, j, k))


def _bytes_per_value(kind: str) -> int:
    if "char" in kind or "int8" in kind:
        return 1
    if "short" in kind or "int16" in kind:
        return 2
    return 8 if kind == "double" or "64" in kind or "long" in kind else 4


def _field(header: dict[str, Any], words: str) -> Any:
    """A field whose name may lack its space, which then counts first, as in pynrrd; None where there is neither."""
    return header.get(words.replace(" ", ""), header.get(words))


def _check_data_file(header: dict[str, Any], path: Path) -> None:
    """The header may name any file of this machine, and whoever sent it would be shown that file as an image."""
    name = _field(header, "data file")
    if name is not None and (Path(name).is_absolute() or ".." in Path(name).parts):
        raise ImageError(f"{path.name} has its values in another folder", "put the data file beside the header")


def _inflated(header: dict[str, Any], file: IO[bytes], path: Path, size: int) -> tuple[dict[str, Any], IO[bytes]]:
    """Header and values of a compressed file, inflated no further than their size in bytes: zeros take up nothing."""
    start = INFLATERS.get(str(header.get("encoding")))
    if start is None or _field(header, "data file") is not None:
        return header, file
    expected = size + max(_field(header, "byte skip") or 0, 0)
    for _ in range(_field(header, "line skip") or 0):
        file.readline()
    values = start().decompress(file.read(), expected + 1)
    if len(values) > expected:
        raise ImageError(f"{path.name} holds more values than its header says", HINT)
    without_lines = {name: value for name, value in header.items() if name.replace(" ", "") != "lineskip"}
    return {**without_lines, "encoding": "raw"}, BytesIO(values)


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


def _to_lps_mm(header: dict[str, Any], path: Path) -> NDArray[np.float64] | None:
    """(3,) factors from the file's own space to LPS mm; None where that is not anatomical."""
    signs = SIGNS.get(str(header.get("space")).lower())
    if signs is None or header.get("space directions") is None:
        return None
    units = [str(unit).strip() for unit in header.get("space units") or ["mm"] * 3]
    unknown = sorted({unit for unit in units if unit.lower() not in MM})
    if unknown:
        raise ImageError(
            f"{path.name} measures space in {unknown[0]!r}, which is not known here",
            "save it again in mm, or correct the line 'space units' of its header",
        )
    return np.multiply(signs, [MM[unit.lower()] for unit in units])


def _affine(header: dict[str, Any], spatial: list[int], to_lps_mm: NDArray[np.float64]) -> Matrix | None:
    """IJK to LPS mm, or None where an axis has no direction; a single slice gets a third step of 1 mm, its normal."""
    steps = np.asarray([header["space directions"][axis] for axis in spatial], float) * to_lps_mm
    if not np.isfinite(steps).all():
        return None
    if len(steps) == 2:
        normal = np.cross(steps[0], steps[1])
        steps = np.vstack([steps, normal / np.linalg.norm(normal)])
    affine = np.eye(4)
    affine[:3, :3] = steps.T
    affine[:3, 3] = np.asarray(header.get("space origin", np.zeros(3)), float) * to_lps_mm
    return affine


def _lengths(header: dict[str, Any], spatial: list[int]) -> list[float]:
    if header.get("space directions") is not None:
        lengths = [float(np.linalg.norm(header["space directions"][axis])) for axis in spatial]
    else:
        spacings = header.get("spacings")
        lengths = [1.0 if spacings is None else float(spacings[axis]) for axis in spatial]
    return [length if np.isfinite(length) else 1.0 for length in lengths]
