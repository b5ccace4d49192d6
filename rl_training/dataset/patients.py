"""Who is on an image: what the row says, else what the DICOM file says, else an error."""

from __future__ import annotations

from pathlib import Path

from rl_training.dataset.table import Row


def patient_of(row: Row, image: Path, image_is_patient: bool) -> str:
    """Return the id by which a row's images belong together.

    Raises:
        DataError: nobody says who it is, and images may not stand for patients.
    """
    if given := row.values.get("patient"):
        return given
    if recorded := _recorded(image):
        return recorded
    if image_is_patient:
        return row.values["image"]
    raise row.error(
        f"has no patient, and {image.name} does not name one",
        "add a patient column: pictures of one patient must not be in two splits; --image-is-patient takes each image "
        "for a patient of its own",
    )


def _recorded(image: Path) -> str:
    """Return the PatientID of a DICOM file or of a series' first file; empty for other files."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    files = sorted(p for p in image.iterdir() if p.is_file()) if image.is_dir() else [image]
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
        except (InvalidDicomError, OSError):  # another kind of file, or one that opening it will report
            continue
        return str(header.get("PatientID") or "").strip()
    return ""
