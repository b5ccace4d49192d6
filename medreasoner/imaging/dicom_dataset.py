"""Reading a DICOM file's attributes, and refusing early what is not an image one can ask about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import JPEG2000 as JPEG2000Lossy
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessP14,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.values import reading

JPEG_SYNTAXES = {
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessP14,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
}
READABLE_SYNTAXES = JPEG_SYNTAXES | {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000Lossy,
    RLELossless,
}
DERIVED = {"SEG": "a segmentation", "RTDOSE": "a dose grid", "RTSTRUCT": "contours", "RTPLAN": "a treatment plan"}
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
COPY_AGAIN = "copy or export the file again"

_HEADER = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "InstanceNumber",
    "Modality",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


def read_header(path: Path) -> Dataset:
    """Attributes that sort files into series, without pixels; raises `ImageError` for what is not DICOM."""
    header = _read(path, specific_tags=list(_HEADER), stop_before_pixels=True)
    with reading(path, "DICOM", COPY_AGAIN):
        for keyword in _HEADER:
            header.get(keyword)  # decoded here, so that damage is reported with the file's name
    return header


def read_dataset(path: Path) -> Dataset:
    """Everything in a file that holds an image.

    Raises:
        ImageError: not DICOM, damaged, encrypted, without pixels, derived from an image (SEG, RTDOSE and so on), or
            in a transfer syntax that cannot be decoded here.
    """
    dataset = _read(path)
    with reading(path, "DICOM", COPY_AGAIN):  # pydicom decodes an attribute when it is asked for, so it may fail here
        _check_image(dataset, path)
        syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax not in READABLE_SYNTAXES:
        raise ImageError(
            f"{path.name} is compressed as {syntax.name}, which cannot be decoded here",
            "convert it to Explicit VR Little Endian first, for example with gdcmconv --raw",
        )
    return dataset


def read_attributes(path: Path) -> Dataset:
    """Everything in a file but its pixels; raises `ImageError` for what is not DICOM."""
    return _read(path, stop_before_pixels=True)


def is_image(dataset: Dataset) -> bool:
    """Whether a header read by `read_header` belongs to an image one can ask about."""
    return "Rows" in dataset and dataset.get("Modality") not in DERIVED


def _read(path: Path, **options: Any) -> Dataset:
    with reading(path, "DICOM", COPY_AGAIN):
        try:
            dataset = dcmread(path, **options)
        except InvalidDicomError:  # no preamble, but the first bytes look right: see signatures.py
            dataset = dcmread(path, force=True, **options)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    return dataset


def _guessed_syntax(dataset: Dataset) -> UID:
    if not dataset.is_little_endian:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if dataset.is_implicit_VR else ExplicitVRLittleEndian


def _check_image(dataset: Dataset, path: Path) -> None:
    modality = str(dataset.get("Modality", ""))
    if modality in DERIVED:
        raise ImageError(
            f"{path.name} holds {DERIVED[modality]}, not an image", "open the CT, MR or other image it was made for"
        )
    if "Rows" in dataset and any(dataset.get(keyword) for keyword in PIXELS):
        return
    if "EncryptedAttributesSequence" in dataset:
        raise ImageError(f"{path.name} is encrypted", "decrypt it with the key of its owner first")
    if "Rows" in dataset:
        raise ImageError(f"{path.name} has lost its pixel data: the file is incomplete", COPY_AGAIN)
    kind = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")).name
    raise ImageError(
        f"{path.name} holds no image ({kind or 'kind unknown'})", "open an image file or the folder of one series"
    )
