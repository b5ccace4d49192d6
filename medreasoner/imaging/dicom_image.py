"""One DICOM file: a slice, an X-ray, a colour picture, a film of frames, or an enhanced multi-frame volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medreasoner.imaging.dicom_dataset import COPY_AGAIN, read_dataset
from medreasoner.imaging.dicom_display import padding, pixel_size, voi_table, voi_window
from medreasoner.imaging.dicom_pixels import frame_count, read_values
from medreasoner.imaging.dicom_planes import slice_plane, stack
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.imaging.values import reading, tidy_values
from medreasoner.picture import Matrix

SPLIT_FRAMES = "split it into one volume per stack or time point first, for example with dcm2niix"


def open_dicom(path: Path) -> StoredImage:
    """Open one file; frames with geometry are ordered along their normal.

    Raises:
        ImageError: see `read_dataset`, `read_values` and, for enhanced files, `stack`.
    """
    dataset = read_dataset(path)
    frames = read_values(dataset, path)
    with reading(path, "DICOM", COPY_AGAIN):
        order, index_to_lps = _geometry(dataset, path)
    ordered = frames if order == sorted(order) else frames[order]
    return assemble(path, ordered, index_to_lps, [(path, frame) for frame in order], dataset)


def assemble(
    path: Path,
    slices: NDArray[Any],
    index_to_lps: Matrix | None,
    sources: list[tuple[Path, int]],
    dataset: Dataset,
) -> StoredImage:
    """Build the image from slices in their final order.

    Args:
        path: the file or folder.
        slices: (k, rows, columns) values or (k, rows, columns, 3) colours.
        index_to_lps: 4x4, or None.
        sources: file and frame of each slice.
        dataset: the attributes of the middle slice's file; its window serves the whole volume, as in 3D Slicer.
    """
    file, frame = sources[len(sources) // 2]
    with reading(file, "DICOM", COPY_AGAIN):
        function, window = voi_window(dataset, frame)
        return StoredImage(
            path=path,
            values=np.swapaxes(tidy_values(slices, path.name), 0, 2),
            index_to_lps=index_to_lps,
            modality=str(dataset.get("Modality") or ""),
            default_window=window,
            is_volume=index_to_lps is not None and len(slices) > 1,
            inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
            voi_function=function,
            voi_table=voi_table(dataset),
            padding=padding(dataset, frame),
            pixel_size=pixel_size(dataset),
            sources=tuple(sources),
        )


def _geometry(dataset: Dataset, path: Path) -> tuple[list[int], Matrix | None]:
    frames = range(frame_count(dataset))
    planes = [plane for plane in (slice_plane(dataset, frame) for frame in frames) if plane is not None]
    if len(planes) != len(frames):
        return list(frames), None
    return stack(planes, [f"frame {n + 1}" for n in frames], path.name, SPLIT_FRAMES)
