"""What a DICOM result takes over from the files it is about: patient, study, place in the patient, references.

Real files leave out attributes that the standard demands and hold values that it forbids; highdicom, which builds the
results, is strict about both. So it is shown a stand-in for each slice: one frame's header, with only what it needs,
every value checked here. `name_sources` then puts the true references into what it built.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import DA, TM

from medreasoner.contract.errors import ImageError
from medreasoner.imaging import StoredImage
from medreasoner.imaging.dicom_dataset import COPY_AGAIN, read_attributes
from medreasoner.imaging.dicom_planes import frame_value
from medreasoner.imaging.values import reading

UTF_8 = "ISO_IR 192"
_TEXTS = ("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName")
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_SEXES = ("M", "F", "O")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One slice of an image in its file.

    Attributes:
        stand_in: header for highdicom; its SOPInstanceUID is a temporary one, which only `name_sources` knows.
        sop_class, instance: UIDs of the file.
        frame: number of the frame in it, counted from 1 as DICOM does; None in a single-frame file.
    """

    stand_in: Dataset
    sop_class: str
    instance: str
    frame: int | None


def source_frames(image: StoredImage, slices: Sequence[int]) -> list[SourceFrame]:
    """Describe the files of some slices.

    Args:
        image: opened from DICOM.
        slices: k of each slice.

    Raises:
        ImageError: the image is not DICOM, or a file has lost the identifiers that a result must refer to.
    """
    if not image.sources:
        raise ImageError(
            f"{image.path.name} is not a DICOM image, so its results cannot be DICOM",
            "ask for the mask as .nii.gz or .nrrd instead",
        )
    header = lru_cache(maxsize=1)(read_attributes)  # the slices of a multi-frame file follow each other
    return [_source_frame(image, header(image.sources[k][0]), k) for k in slices]


def name_sources(result: Dataset, frames: Iterable[SourceFrame]) -> None:
    """Replace every reference to a stand-in, at any depth, by one to the file it stands for."""
    known = {str(frame.stand_in.SOPInstanceUID): frame for frame in frames}

    def rename(dataset: Dataset) -> None:
        frame = known.get(str(dataset.get("ReferencedSOPInstanceUID", "")))
        if frame is not None:
            dataset.ReferencedSOPClassUID, dataset.ReferencedSOPInstanceUID = frame.sop_class, frame.instance
        for element in dataset:
            if element.VR == "SQ":
                for item in element.value:
                    rename(item)

    rename(result)


def _source_frame(image: StoredImage, header: Dataset, k: int) -> SourceFrame:
    path, frame = image.sources[k]
    with reading(path, "DICOM", COPY_AGAIN):
        sop_class = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
        instance = str(header.get("SOPInstanceUID") or header.file_meta.get("MediaStorageSOPInstanceUID") or "")
        ids = {word: str(header.get(word) or "") for word in ("StudyInstanceUID", "SeriesInstanceUID")}
        missing = [w for w, v in {"SOPClassUID": sop_class, "SOPInstanceUID": instance, **ids}.items() if not v]
        if missing:
            raise ImageError(
                f"{path.name} has lost its {' and '.join(missing)}, to which a DICOM result must refer",
                "export the study again from the archive, or ask for the mask as .nii.gz or .nrrd",
            )
        stand_in = _stand_in(header, image, frame)
        for word, uid in ids.items():
            setattr(stand_in, word, uid)
    return SourceFrame(stand_in, sop_class, instance, frame + 1 if int(header.get("NumberOfFrames") or 1) > 1 else None)


def _stand_in(header: Dataset, image: StoredImage, frame: int) -> Dataset:
    stand_in = Dataset()
    stand_in.SOPClassUID, stand_in.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    stand_in.Modality, stand_in.Rows, stand_in.Columns = image.modality or "OT", image.shape[1], image.shape[0]
    stand_in.SeriesNumber = int(header.get("SeriesNumber") or 0)
    for word in _TEXTS:
        setattr(stand_in, word, str(header.get(word) or ""))
    for word, kind in _DATES.items():
        setattr(stand_in, word, _understood(header.get(word), kind))
    sex = str(header.get("PatientSex") or "").strip().upper()
    stand_in.PatientSex = sex if sex in _SEXES else ""
    if all(header.get(word) for word in _LOSSY):  # highdicom takes all of them or none
        for word in _LOSSY:
            setattr(stand_in, word, header[word].value)
    if image.index_to_lps is not None:
        _add_place(stand_in, header, image, frame)
    return stand_in


def _add_place(stand_in: Dataset, header: Dataset, image: StoredImage, frame: int) -> None:
    """Copy the plane of a frame; a file without frame of reference gets one that all of its series share."""
    assert image.index_to_lps is not None
    own = header.get("FrameOfReferenceUID")
    stand_in.FrameOfReferenceUID = own or generate_uid(entropy_srcs=["frame of reference", header.SeriesInstanceUID])
    stand_in.PositionReferenceIndicator = str(header.get("PositionReferenceIndicator") or "")
    for sequence, word in (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        setattr(stand_in, word, list(frame_value(header, frame, sequence, word)))
    right, down, through = image.index_to_lps[:3, :3].T
    normal = np.cross(right, down)
    step = abs(float(through @ normal)) / float(np.linalg.norm(normal))
    thickness = frame_value(header, frame, "PixelMeasuresSequence", "SliceThickness")
    stand_in.SliceThickness = float(thickness) if thickness and float(thickness) > 0 else round(step, 6)
    if image.is_volume:
        stand_in.SpacingBetweenSlices = round(step, 6)


def _understood(value: Any, kind: type) -> str:
    """Return a date or time, or an empty string for what does not follow the standard, such as "1.2.1970"."""
    try:
        return str(value) if kind(str(value or "")) else ""
    except ValueError:
        return ""
