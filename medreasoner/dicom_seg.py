"""A mask becomes a DICOM Segmentation that any viewer lays over the images it was drawn on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as HighdicomSegmentation
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medreasoner import __version__
from medreasoner.contract.errors import ImageError
from medreasoner.contract.label import LabelRecord
from medreasoner.dicom_sources import UTF_8, SourceFrame, name_sources, source_frames
from medreasoner.imaging import StoredImage
from medreasoner.terminology import OWN_SCHEME, Code, coding_of

MAKER = "MedReasoner"
LABEL_CHARACTERS = 62  # LO and PN end at 64
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
SERIES_OFFSET = 1000  # keeps the new series apart from the scanner's


def segmentation(
    mask: NDArray[np.bool_] | NDArray[np.integer[Any]],
    image: StoredImage,
    record: LabelRecord,
    names: Mapping[int, str] | None = None,
) -> Dataset | None:
    """Build the DICOM Segmentation (PS3.3 A.51) of a mask: binary, without empty frames.

    The question stays out of it, for free text may name the patient; `dicom_report` carries it.

    Args:
        mask: (i, j, k), in the grid of `image`; 0 is outside.
        image: opened from DICOM.
        record: what was looked for, with which models and by whom.
        names: what each value of a mask of several segments stands for; values without a name are numbered. None
            takes every value but 0 for the target of `record`.

    Returns:
        The file, ready for `save_as`; None where nothing is marked, for DICOM has no segmentation without a frame.

    Raises:
        ImageError: a mask of another size, an image that is not DICOM, a file without identifiers, or a mask on
            several frames of a film that does not say where they lie.
    """
    if mask.shape != image.shape:
        raise ImageError(
            f"a mask of {' x '.join(map(str, mask.shape))} does not fit {image.path.name}",
            "pass the mask in the grid of the image it was drawn on",
        )
    marked = [int(k) for k in np.flatnonzero(mask.any(axis=(0, 1)))]
    if not marked:
        return None
    if image.index_to_lps is None and len(marked) > 1:
        raise ImageError(
            f"{len(marked)} frames of {image.path.name} are marked, but it does not say how they lie in the patient",
            "save one frame at a time, or the whole mask as .nrrd",
        )
    frames = source_frames(image, marked)
    planes = np.stack([mask[:, :, k].T for k in marked])
    values = [int(v) for v in np.unique(planes) if v] if names is not None else []
    targets = [record.target] if names is None else [names.get(v, f"segment {v}") for v in values]
    numbered = planes != 0 if names is None else np.searchsorted([0, *values], planes).astype(np.uint16)
    result = _built(numbered, frames, record, targets)
    _refer_to_frames(result, frames)
    result.SpecificCharacterSet = UTF_8
    return result


def algorithm(record: LabelRecord) -> AlgorithmIdentificationSequence:
    """Name the two models that made an answer, with this project's version and the reasoner's hash."""
    names = [model["name"] for model in (record.reasoner, record.expert) if model.get("name")]
    return AlgorithmIdentificationSequence(
        name=short_text(" + ".join(names)),
        family=coded(ARTIFICIAL_INTELLIGENCE),
        version=f"{__version__}+{record.reasoner.get('sha256', '')[:12]}".rstrip("+"),
        source=MAKER,
    )


def scheme_items() -> list[CodingSchemeIdentificationItem]:
    """Say whose the private codes are (PS3.3 C.12.1.1.2)."""
    return [CodingSchemeIdentificationItem(OWN_SCHEME, name="MedReasoner targets", responsible_organization=MAKER)]


def coded(code: Code) -> CodedConcept:
    """Turn a code into highdicom's."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def label_of(target: str) -> str:
    """Name a target for people; never empty."""
    return short_text(target) or "finding"


def short_text(text: str) -> str:
    """Make a text fit the value representations LO and PN, where a backslash would part it into two values."""
    return " ".join(re.sub(r"[\\^=\x00-\x1f]", " ", text).split())[:LABEL_CHARACTERS]


def _built(
    planes: NDArray[Any], frames: Sequence[SourceFrame], record: LabelRecord, targets: Sequence[str]
) -> HighdicomSegmentation:
    first, title = frames[0].stand_in, label_of(", ".join(targets))
    return HighdicomSegmentation(
        source_images=[frame.stand_in for frame in frames],
        pixel_array=planes,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(n, target, record) for n, target in enumerate(targets, 1)],
        series_instance_uid=generate_uid(),
        series_number=first.SeriesNumber + SERIES_OFFSET,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=__version__,
        device_serial_number=record.reasoner.get("sha256", "")[:16] or "none",
        content_label="MEDREASONER",
        content_description=title,
        content_creator_name=f"{short_text(record.author) or MAKER}^",
        series_description=short_text(f"{MAKER}: {title}"),
        coding_schemes=scheme_items(),
    )


def _segment(number: int, target: str, record: LabelRecord) -> SegmentDescription:
    coding = coding_of(target)
    description = SegmentDescription(
        segment_number=number,
        segment_label=label_of(target),
        segmented_property_category=coded(coding.category),
        segmented_property_type=coded(coding.kind),
        algorithm_type=_algorithm_type(record),
        algorithm_identification=algorithm(record) if record.expert or record.reasoner else None,
        tracking_uid=generate_uid(),
        tracking_id=label_of(target),
        anatomic_regions=[coded(coding.region)] if coding.region else None,
    )
    if coding.modifier:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(coding.modifier)]
    return description


def _algorithm_type(record: LabelRecord) -> SegmentAlgorithmTypeValues:
    if not (record.expert or record.reasoner):
        return SegmentAlgorithmTypeValues.MANUAL
    return SegmentAlgorithmTypeValues.SEMIAUTOMATIC if record.edits else SegmentAlgorithmTypeValues.AUTOMATIC


def _refer_to_frames(result: Dataset, frames: Sequence[SourceFrame]) -> None:
    """Point each frame at the frame it was drawn on, and list each source file once."""
    numbers = {str(frame.stand_in.SOPInstanceUID): frame.frame for frame in frames}
    for group in result.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        number = numbers[str(source.ReferencedSOPInstanceUID)]
        if number is not None:
            source.ReferencedFrameNumber = number
    name_sources(result, frames)
    for holder, keyword in (
        (result, "SourceImageSequence"),
        (result.ReferencedSeriesSequence[0], "ReferencedInstanceSequence"),
    ):
        once = {str(item.ReferencedSOPInstanceUID): item for item in holder[keyword].value}
        setattr(holder, keyword, list(once.values()))
