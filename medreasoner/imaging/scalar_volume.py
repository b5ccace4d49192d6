"""What NIfTI and NRRD share: arrays with an affine, and no word about modality or window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.imaging.values import tidy_values
from medreasoner.picture import Matrix

CT_BELOW = -500  # only Hounsfield units reach so low: air is -1000
CT_SHARE = 0.001  # of the voxels; fewer are the undershoot of an interpolated MR


def volume_image(
    path: Path, values: NDArray[Any], index_to_lps: Matrix | None, pixel_size: tuple[float, float, float]
) -> StoredImage:
    """Build the image.

    Args:
        path: the file.
        values: (i, j, k) scalars or (i, j, k, 3) uint8 colours.
        index_to_lps: 4x4, IJK to LPS mm, or None.
        pixel_size: along i, j, k, used where there is no affine.

    Raises:
        ImageError: values that cannot be shown, or an affine that flattens the volume.
    """
    tidy = tidy_values(values, path.name)
    if index_to_lps is not None and not _is_regular(index_to_lps):
        raise ImageError(
            f"the geometry of {path.name} is singular: its axes do not span space",
            "repair its header, for example with 3D Slicer's Volumes module",
        )
    is_ct = tidy.ndim == 3 and float(np.count_nonzero(tidy < CT_BELOW)) >= max(CT_SHARE * tidy.size, 1)
    i, j, k = (abs(size) or 1.0 for size in pixel_size)
    return StoredImage(
        path=path,
        values=tidy,
        index_to_lps=index_to_lps,
        modality="CT" if is_ct else "",
        is_volume=index_to_lps is not None and min(tidy.shape[:3]) > 1,
        pixel_size=(i, j, k),
        opens_as_stored=False,
    )


def _is_regular(index_to_lps: Matrix) -> bool:
    lengths = np.linalg.norm(index_to_lps[:3, :3], axis=0)
    if not np.isfinite(index_to_lps).all() or lengths.min() <= 0:
        return False
    return bool(abs(np.linalg.det(index_to_lps[:3, :3] / lengths)) > 1e-3)
