"""What DICOM files say of whom they show and to which series they belong, without reading their pixels."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.dicom_dataset import COPY_AGAIN
from medreasoner.imaging.values import reading
from rl_training.dataset.table import Row


def patient_of(row: Row, image: Path, image_is_patient: bool) -> str:
    """Return the id by which a row's images belong together: what the row says, else what the DICOM file says.

    Raises:
        DataError: nobody says who it is, and images may not stand for patients.
    """
    if given := row.values.get("patient"):
        return given
    if recorded := recorded_patient(image):
        return recorded
    if image_is_patient:
        return row.values["image"]
    raise row.error(
        f"has no patient, and {image.name} does not name one",
        "add a patient column: pictures of one patient must not be in two splits; --image-is-patient takes each image "
        "for a patient of its own",
    )


def recorded_patient(image: Path) -> str:
    """Return the PatientID of a DICOM file or of a series' first file; empty for other files."""
    files = sorted(p for p in image.iterdir() if p.is_file()) if image.is_dir() else [image]
    return next((found[0] for file in files if (found := _header(file)) is not None), "")


def series_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each DICOM series below one, by its UID; folders of several series are left out."""
    found: dict[Path, set[str]] = defaultdict(set)
    for file in folder.rglob("*"):
        if file.is_file() and (header := _header(file)) is not None:
            found[file.parent].add(header[1])
    return {next(iter(series)): where for where, series in found.items() if len(series) == 1}


def _header(file: Path) -> tuple[str, str] | None:
    """Return PatientID and SeriesInstanceUID, or None where this is no DICOM file."""
    import pydicom

    try:
        with reading(file, "DICOM", COPY_AGAIN):
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID", "SeriesInstanceUID"])
            return str(header.get("PatientID") or "").strip(), str(header.get("SeriesInstanceUID") or "")
    except ImageError:  # another kind of file, or a damaged one, which opening it will report
        return None
