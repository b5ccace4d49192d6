"""NIfTI-1 and NIfTI-2: affine in RAS (sform before qform), voxel centres at whole indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.scalar_volume import volume_image
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.imaging.values import check_size, over_black, reading
from medreasoner.picture import Matrix

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}  # millimetres, and the unit of files that name none: 1
HINT = "save it again as .nii.gz, or copy the file again"
ONE_VOLUME = "save the volume you want as a file of its own, for example with fslroi, and open that"


def open_nifti(path: Path) -> StoredImage:
    """Open a 3-D (or 2-D) NIfTI file of scalars or RGB.

    A file whose sform and qform codes are both 0 does not say how it lies in the patient: it has no geometry.

    Raises:
        ImageError: not NIfTI, damaged, too large, of four or more dimensions, or with a singular affine.
    """
    with reading(path, "NIfTI", HINT):
        file: Any = nibabel.load(path)
        if not issubclass(type(file), nibabel.Nifti1Pair):  # the base of NIfTI-2 too
            raise ImageError(f"{path.name} is not a NIfTI image but {type(file).__name__}", HINT)
        shape, vector = _shape(file, path)
        check_size((*shape, 3) if vector else shape, file.get_data_dtype().itemsize, path.name)
        values = _values(file)
        colour = vector or file.get_data_dtype().names is not None
        i, j, k = (*(float(size) for size in file.header.get_zooms()[:3]), 1.0)[:3]
        index_to_lps = _affine(file)
    return volume_image(path, values.reshape((*shape, 3) if colour else shape), index_to_lps, (i, j, k))


def _shape(file: Any, path: Path) -> tuple[tuple[int, int, int], bool]:
    """Three sizes, and whether a vector of colours follows (ITK writes RGB as x, y, z, 1, 3 bytes)."""
    sizes = [int(n) for n in file.shape]
    vector = len(sizes) == 5 and sizes[3:] == [1, 3] and file.get_data_dtype() == np.uint8
    if not vector and any(n != 1 for n in sizes[3:]):
        raise ImageError(f"{path.name} has {len(sizes)} dimensions ({' x '.join(map(str, sizes))})", ONE_VOLUME)
    i, j, k = (*sizes, 1, 1)[:3]
    return (i, j, k), vector


def _values(file: Any) -> NDArray[Any]:
    """Integers where the header has no scaling, else float32; colours as (..., 3) uint8."""
    if file.get_data_dtype().names is None:
        plain = file.dataobj.slope == 1 and file.dataobj.inter == 0
        return np.asarray(file.dataobj) if plain else np.asarray(file.get_fdata(caching="unchanged", dtype=np.float32))
    parts = np.asarray(file.dataobj)
    colours = np.stack([parts[name] for name in file.get_data_dtype().names], axis=-1)
    return over_black(colours) if colours.shape[-1] == 4 else colours


def _affine(file: Any) -> Matrix | None:
    if int(file.header["sform_code"]) <= 0 and int(file.header["qform_code"]) <= 0:
        return None
    unit = MM_PER_UNIT.get(file.header.get_xyzt_units()[0], 1.0)
    return np.asarray(RAS_TO_LPS @ np.diag([unit, unit, unit, 1.0]) @ file.affine)
