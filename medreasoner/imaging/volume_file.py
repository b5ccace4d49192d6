"""An opened image as one file, for programs that take no folder of DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.mask_file import nrrd_geometry
from medreasoner.imaging.stored_image import StoredImage


def write_volume(image: StoredImage, path: Path) -> Path:
    """Save an image's values, after the modality LUT, and where they lie in the patient; nothing else of its file.

    Args:
        image: scalars, or colours, which become an RGB volume.
        path: ends in .nrrd; written uncompressed.

    Returns:
        `path`.

    Raises:
        ImageError: the file cannot be written.
    """
    import nrrd

    header = nrrd_geometry(image)
    values = image.values
    if values.ndim == 4:  # NRRD counts the axis of colours first and gives it no place in space
        values = np.moveaxis(values, -1, 0)
        header["kinds"] = ["RGB-color", *["domain"] * 3]
        nowhere = np.full(3, np.nan)
        if "spacings" in header:
            header["spacings"] = [np.nan, *image.pixel_size]
        else:
            header["space directions"] = np.vstack([nowhere, header["space directions"]])
    try:
        nrrd.write(str(path), values, {**header, "encoding": "raw"}, index_order="F")
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}", "choose another folder") from error
    return path
