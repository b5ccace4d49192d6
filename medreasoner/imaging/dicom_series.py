"""A folder that holds one DICOM series: every slice a file, ordered by where it lies and not by what it is called."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.dicom_dataset import COPY_AGAIN, is_image, read_dataset, read_header
from medreasoner.imaging.dicom_image import assemble, open_dicom
from medreasoner.imaging.dicom_pixels import frame_count, read_values, size_in_bytes
from medreasoner.imaging.dicom_planes import slice_plane, stack
from medreasoner.imaging.signatures import HEAD_BYTES, kind_of
from medreasoner.imaging.stored_image import StoredImage
from medreasoner.imaging.values import check_size, reading
from medreasoner.picture import Matrix

MAX_FILES = 20_000
ONE_BY_ONE = "open one of its files instead of the folder"
Headers = dict[Path, Dataset]


def open_series(folder: Path) -> StoredImage:
    """Open the one series in a folder and the folders below it.

    Images none of which says where it lies, such as an ultrasound examination's stills, follow one another by their
    InstanceNumber, like the frames of a film; the middle one's window serves all. Files that were copied in twice count
    once.

    Raises:
        ImageError: no image or several series inside, slices that make no volume (see `stack`), or a slice that
            cannot be read (see `read_dataset`, `read_values`).
    """
    headers = _without_copies(_one_series(_image_headers(folder), folder))
    if len(headers) == 1:
        return open_dicom(next(iter(headers)))
    with reading(folder, "a DICOM series", ONE_BY_ONE):
        files, index_to_lps = _ordered(headers, folder)
        shape, width = size_in_bytes(headers[files[0]])
    check_size((len(files), *shape[1:]), width, folder.name)
    middle = read_dataset(files[len(files) // 2])
    return assemble(folder, _slices(files, folder), index_to_lps, [(file, 0) for file in files], middle)


def _image_headers(folder: Path) -> Headers:
    files = sorted(islice((p for p in folder.rglob("*") if p.is_file()), MAX_FILES + 1))
    if len(files) > MAX_FILES:
        raise ImageError(f"{folder.name} holds more than {MAX_FILES:,} files", "pass the subfolder of one series")
    headers = {file: read_header(file) for file in files if _is_dicom(file)}
    images = {file: header for file, header in headers.items() if is_image(header)}
    if not images:
        found = f"{len(files)} files, none of them a DICOM image" if files else "no files"
        raise ImageError(f"{folder.name} holds {found}", "pass the folder of one DICOM series, or an image file")
    return images


def _is_dicom(file: Path) -> bool:
    with reading(file, "DICOM", COPY_AGAIN), file.open("rb") as stream:
        return kind_of(stream.read(HEAD_BYTES)) == "DICOM"


def _one_series(headers: Headers, folder: Path) -> Headers:
    counts = Counter(str(header.get("SeriesInstanceUID") or "") for header in headers.values())
    if len(counts) == 1:
        return headers
    lines = []
    for uid, count in counts.most_common(8):
        file, header = next((f, h) for f, h in headers.items() if str(h.get("SeriesInstanceUID") or "") == uid)
        where = file.parent.relative_to(folder).as_posix()
        title = " ".join(str(header.get(word) or "") for word in ("Modality", "SeriesDescription")).strip() or uid
        lines.append(f"{title} ({count} image{'s' if count > 1 else ''}{'' if where == '.' else f' in {where}'})")
    more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
    raise ImageError(
        f"{folder.name} holds {len(counts)} series: {', '.join(lines)}{more}",
        "pass the subfolder of one series, or move its files into a folder of their own",
    )


def _without_copies(headers: Headers) -> Headers:
    """The first of each set of files that are one instance, at one place, with the same decoded pixels.

    The name alone does not tell, for some anonymisers give all slices one; nor do the bytes, for an archive may have
    compressed one of two copies.
    """
    names = {
        file: (str(header.get("SOPInstanceUID") or file), str(header.get("ImagePositionPatient")))
        for file, header in headers.items()
    }
    shared = Counter(names.values())
    first: dict[tuple[str, str, bytes], Path] = {}
    for file, name in names.items():
        first.setdefault((*name, _pixels_hash(file) if shared[name] > 1 else b""), file)
    return {file: headers[file] for file in first.values()}


def _pixels_hash(file: Path) -> bytes:
    values = read_values(read_dataset(file), file)
    return sha256(f"{values.shape}".encode() + values.tobytes()).digest()


def _ordered(headers: Headers, folder: Path) -> tuple[list[Path], Matrix | None]:
    files = list(headers)
    if any(frame_count(header) > 1 for header in headers.values()):
        raise ImageError(f"{folder.name} holds {len(files)} files of several frames each", ONE_BY_ONE)
    _check_sizes(headers, folder)
    planes, lost = [], []
    for file, header in headers.items():
        with reading(file, "DICOM", COPY_AGAIN):
            plane = slice_plane(header)
        if plane is None:
            lost.append(file)
        else:
            planes.append(plane)
    if not planes:
        return sorted(files, key=lambda file: (int(headers[file].get("InstanceNumber") or 0), file.name)), None
    if lost:
        raise ImageError(
            f"{folder.name} is no volume: {lost[0].name} does not say where it lies in the patient", ONE_BY_ONE
        )
    order, index_to_lps = stack(planes, [file.name for file in files], folder.name, ONE_BY_ONE)
    return [files[n] for n in order], index_to_lps


def _check_sizes(headers: Headers, folder: Path) -> None:
    """One size for all: a mask lies on one grid, and a still padded to another's size is not what was taken."""
    sizes = {
        file: (header.Columns, header.Rows, header.get("SamplesPerPixel") or 1) for file, header in headers.items()
    }
    counts = Counter(sizes.values())
    if len(counts) > 1:
        listed = ", ".join(
            f"{count} of {columns} x {rows}{' in colour' if samples > 1 else ''}"
            for (columns, rows, samples), count in counts.most_common(8)
        )
        raise ImageError(
            f"the images in {folder.name} differ in size: {listed}",
            "ask about one file by itself (on a server: upload it), such as "
            f"{min(sizes).relative_to(folder).as_posix()}, or move the files of one size into a folder of their own",
        )


def _slices(files: list[Path], folder: Path) -> NDArray[Any]:
    """Read the files into one (k, rows, columns[, 3]) array, widened where a slice needs more room."""
    volume: NDArray[Any] = np.empty(0)
    for k, file in enumerate(files):
        values = read_values(read_dataset(file), file)[0]
        if k == 0:
            volume = np.empty((len(files), *values.shape), values.dtype)
        if values.shape != volume.shape[1:]:
            raise ImageError(f"the images in {folder.name} differ in size", ONE_BY_ONE)
        common = np.result_type(volume, values)
        if common != volume.dtype:
            volume = volume.astype(common)
        volume[k] = values
    return volume
