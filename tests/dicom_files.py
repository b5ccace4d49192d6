"""DICOM files for tests: real ones from pydicom, moved, tilted and multiplied; and plain ones of other modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    OphthalmicPhotography8BitImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLEndoscopicImageStorage,
    generate_uid,
)

ROWS, COLUMNS, SLICES = 40, 36, 5
STEP_MM = 2.5
ALIGNED = np.eye(3)
_A, _B = np.radians(25), np.radians(-15)
OBLIQUE = np.array([[1, 0, 0], [0, np.cos(_A), -np.sin(_A)], [0, np.sin(_A), np.cos(_A)]]) @ np.array(
    [[np.cos(_B), -np.sin(_B), 0], [np.sin(_B), np.cos(_B), 0], [0, 0, 1]]
)  # columns are the directions of rows, columns and slices
STORAGE = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
    "ES": VLEndoscopicImageStorage,
    "OP": OphthalmicPhotography8BitImageStorage,
}


def series(folder: Path, template: str = "CT_small.dcm", directions: Any = OBLIQUE, count: int = SLICES) -> Path:
    """Write a series of pydicom's slice cropped, at even steps along its normal, named against its order."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, place = generate_uid(), generate_uid()
    for number in range(count):
        dataset = dcmread(get_testdata_file(template))
        grain = np.arange(ROWS * COLUMNS, dtype=np.int16).reshape(ROWS, COLUMNS) % 900
        dataset.Rows, dataset.Columns = ROWS, COLUMNS
        dataset.PixelData = (grain + 10 * number).tobytes()
        dataset.ImagePositionPatient = [round(float(v), 6) for v in [10, -20, 30] + number * STEP_MM * directions[:, 2]]
        dataset.ImageOrientationPatient = [round(float(v), 9) for v in directions[:, :2].T.ravel()]
        dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.6], STEP_MM
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid, generate_uid()
        dataset.FrameOfReferenceUID, dataset.InstanceNumber = place, number + 1
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"IM{count - number:04d}")
    return folder


def enhanced(folder: Path) -> Path:
    """Write an oblique MR series as one enhanced multi-frame file, its frames in reverse order."""
    files = sorted(series(folder / "single", "MR_small.dcm").iterdir())
    slices = [dcmread(file) for file in files]
    for dataset in slices:
        del dataset.AcquisitionDate  # highdicom takes dates as objects only
        dataset.InstanceNumber = 100 - dataset.InstanceNumber
    whole = LegacyConvertedEnhancedMRImage(slices, generate_uid(), 1, generate_uid(), 1)
    path = folder / "enhanced.dcm"
    whole.save_as(path)
    return path


def projection(folder: Path, modality: str, frames: int = 1, **changes: Any) -> Path:
    """Write an image without a place in the patient: CR, DX and MG in grey, US, ES and OP in colour."""
    colour = modality in ("US", "ES", "OP")
    shape = (frames, ROWS, COLUMNS, 3) if colour else (frames, ROWS, COLUMNS)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    storage = UltrasoundMultiFrameImageStorage if frames > 1 else STORAGE[modality]
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{modality}.dcm"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SOPClassUID, dataset.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality = "P-1", modality
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = (np.arange(np.prod(shape)) % 251).astype(np.uint8).tobytes()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, write_like_original=False)
    return path


def rewrite(path: Path, **changes: Any) -> Path:
    """Change attributes of a file, or of each in a folder, as an unfriendly exporter would; None takes one away."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        dataset: Dataset = dcmread(file)
        for keyword, value in changes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(file)
    return path
