"""The one door: a path in, an image out, or one error that says what to do."""

from __future__ import annotations

from pathlib import Path

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.signatures import HEAD_BYTES, kind_of
from medreasoner.imaging.stored_image import StoredImage

KINDS = "DICOM (a file or the folder of a series), NIfTI, NRRD, PNG, JPEG, BMP, TIFF or WebP"


def open_image(path: Path) -> StoredImage:
    """Open a DICOM, NIfTI, NRRD, PNG, JPEG, BMP, TIFF or WebP file, or the folder of one DICOM series.

    Raises:
        ImageError: nothing is there, it cannot be read, or it is not one image; the hint says what to do next.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError(f"there is no file or folder {path}", "check the path")
    try:
        return _open_folder(path) if path.is_dir() else _open_file(path)
    except MemoryError as error:
        raise ImageError(f"{path.name} does not fit into memory", "close other programs or downsample it") from error
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read: {error.strerror or error}", "check who may read it") from error


def _open_folder(path: Path) -> StoredImage:
    from medreasoner.imaging.dicom_series import open_series

    return open_series(path)


def _open_file(path: Path) -> StoredImage:
    """Pick the reader; each is imported, with its libraries, only when a file needs it."""
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not head:
        raise ImageError(f"{path.name} is empty", "copy or export the file again")
    kind = kind_of(head)
    if kind == "DICOM":
        from medreasoner.imaging.dicom_image import open_dicom

        return open_dicom(path)
    if kind == "NIfTI":
        from medreasoner.imaging.nifti_file import open_nifti

        return open_nifti(path)
    if kind == "NRRD":
        from medreasoner.imaging.nrrd_file import open_nrrd

        return open_nrrd(path)
    if kind == "picture":
        from medreasoner.imaging.picture_file import open_picture

        return open_picture(path)
    named = f", despite its name ending in {path.suffix}" if path.suffix else ""
    raise ImageError(f"{path.name} is not an image of a known kind{named}", f"open {KINDS}")
