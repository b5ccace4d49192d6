"""Answers and labels as DICOM: a mask file and what is known of it become a Segmentation and a Structured Report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.ndimage import affine_transform

from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingResult
from medreasoner.dicom_report import report
from medreasoner.dicom_seg import segmentation
from medreasoner.imaging import StoredImage, open_image

SAME_MM = 0.01


@dataclass(frozen=True)
class DicomResults:
    """What is stored beside a study.

    Attributes:
        segmentation: None where nothing is marked.
        report: None where nobody asked a question, as for a mask drawn by hand.
    """

    segmentation: Dataset | None
    report: Dataset | None

    @property
    def files(self) -> dict[str, Dataset]:
        """The files there are, by name."""
        found = {"segmentation": self.segmentation, "report": self.report}
        return {name: dataset for name, dataset in found.items() if dataset is not None}


def dicom_seg(image_id: str, datastore: Datastore, mask_file: Path, params: Mapping[str, Any]) -> bytes | None:
    """Return an answer's mask as a DICOM Segmentation file, or None where the target is absent.

    Args:
        image_id: series in the datastore.
        datastore: where the image is.
        mask_file: the mask that the model wrote.
        params: the reply's parameters.

    Raises:
        ImageError: the image is not DICOM, or the mask does not fit it.
    """
    made = results(open_image(Path(datastore.get_image_uri(image_id))), mask_file, record_of({"params": params}))
    return None if made.segmentation is None else file_bytes(made.segmentation)


def dicom_sr(image_id: str, datastore: Datastore, mask_file: Path, params: Mapping[str, Any]) -> bytes:
    """Return an answer, absent or not, as a DICOM Structured Report file; as `dicom_seg`."""
    image = open_image(Path(datastore.get_image_uri(image_id)))
    record, sure = record_of({"params": params}), params.get("confidence")
    made = segmentation(mask_on_grid(mask_file, image), image, record)
    return file_bytes(report(image, record, sure, made))


def results(
    image: StoredImage,
    mask_file: Path,
    record: LabelRecord,
    confidence: float | None = None,
    names: Mapping[int, str] | None = None,
) -> DicomResults:
    """Build both files.

    Args:
        image: what was asked about.
        mask_file: one target, or several of different values.
        record: question and answer.
        confidence: 0 to 1, where known.
        names: of the targets by value, where there are several.

    Raises:
        ImageError: as `dicom_seg`.
    """
    mask = mask_on_grid(mask_file, image)
    several = mask.max() > 1 and len(np.unique(mask[mask > 0])) > 1
    made = segmentation(mask, image, record, (names or {}) if several else None)
    return DicomResults(made, report(image, record, confidence, made) if record.question else None)


def record_of(info: Mapping[str, Any]) -> LabelRecord:
    """Read what came with a label.

    Args:
        info: ``medreasoner``, a label record, as our clients send it; else ``params``, a reply of ours, as MONAI Label
            keeps it with ``save_label``; else ``label_info`` with the name of a segment drawn by hand.

    Raises:
        MedReasonerError: a record or reply that does not follow the contract.
    """
    known = info.get("medreasoner")
    if known:
        return LabelRecord.from_json(known if isinstance(known, str) else json.dumps(known))
    params = info.get("params") or {}
    if "question" in params:
        return LabelRecord.of(GroundingResult.from_reply(dict(params)))
    named = info.get("label_info") or [{}]
    return LabelRecord("", absent=False, axis="stored", slice_index=0, target=str(named[0].get("name") or ""))


def names_of(info: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of a label's segments by their value, from MONAI Label's ``label_info``.

    Raises:
        MedReasonerError: a segment's value is not a number.
    """
    names = {}
    for number, segment in enumerate(info.get("label_info") or [], 1):
        value = segment.get("idx", number)
        if not isinstance(value, int):
            raise MedReasonerError(f"the segment {str(segment)[:60]} has no value", 'send {"name": "liver", "idx": 1}')
        names[value] = str(segment.get("name") or f"segment {value}")
    return names


def mask_on_grid(mask_file: Path, image: StoredImage) -> NDArray[np.integer[Any]]:
    """Read a mask file and bring its values onto the image's grid, by the patient's millimetres where both know them.

    A viewer may have turned or cropped the grid; the nearest voxel counts then.

    Raises:
        ImageError: not a mask of one whole number a voxel, or of another size and without geometry.
    """
    mask = open_image(mask_file)
    if mask.values.ndim != 3:
        raise ImageError(f"{mask_file.name} holds colours or several layers", "save one mask, as .nii.gz or .nrrd")
    values = mask.values.astype(np.uint16)
    if not np.array_equal(values, mask.values):
        raise ImageError(f"{mask_file.name} holds other than whole numbers", "save a mask: 0 outside, 1 inside")
    if mask.index_to_lps is None or image.index_to_lps is None:
        if mask.shape != image.shape:
            raise ImageError(
                f"a mask of {' x '.join(map(str, mask.shape))} does not fit {image.path.name}",
                "save the mask in the grid of the image",
            )
        return values
    if mask.shape == image.shape and np.allclose(mask.index_to_lps, image.index_to_lps, rtol=0, atol=SAME_MM):
        return values
    step = np.linalg.inv(mask.index_to_lps) @ image.index_to_lps
    return np.asarray(affine_transform(values, step[:3, :3], step[:3, 3], image.shape, order=0))


def file_bytes(dataset: Dataset) -> bytes:
    """Write a dataset as a DICOM file in memory."""
    with BytesIO() as stream:
        dataset.save_as(stream, write_like_original=False)
        return stream.getvalue()
