"""An answer becomes a DICOM Structured Report: what was asked, what was found and why, where, and by which models.

The layout is the Measurement Report of PS3.16 (TID 1500) with one group; question, reasoning and the two points are
items of the project's own beside those that the template has, which its extensibility allows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom import sr
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medreasoner import __version__
from medreasoner.contract.answer import Box, Point
from medreasoner.contract.label import LabelRecord
from medreasoner.dicom_seg import MAKER, SERIES_OFFSET, algorithm, coded, label_of, scheme_items, short_text
from medreasoner.dicom_sources import UTF_8, SourceFrame, name_sources, source_frames
from medreasoner.imaging import StoredImage
from medreasoner.picture import Picture
from medreasoner.terminology import ABSENT, LEFT, OWN_SCHEME, RIGHT, Code, coding_of

RESEARCH_ONLY = "Research use only. MedReasoner is not a medical device; a person must check every answer."
QUESTION = Code("QUESTION", OWN_SCHEME, "Question")
REASONING = Code("REASONING", OWN_SCHEME, "Reasoning")
POINTS = Code("POINTS", OWN_SCHEME, "Points on the target")
CONFIDENCE = Code("CONFIDENCE", OWN_SCHEME, "Confidence, 0 to 1: a ranking, not a probability")
PRESENCE = Code("PRESENCE", OWN_SCHEME, "Presence of the target")
COMMENT = Code("121106", "DCM", "Comment")
SEGMENT = Code("121191", "DCM", "Referenced Segment")
IMAGING = Code("363679005", "SCT", "Imaging procedure")
NO_UNITS = Code("1", "UCUM", "no units")
CONTAINS = sr.RelationshipTypeValues.CONTAINS


def report(
    image: StoredImage, record: LabelRecord, confidence: float | None = None, segmentation: Dataset | None = None
) -> Dataset:
    """Build the Structured Report of one answer, absent ones too.

    Box and points become two-dimensional coordinates on their source image where the slice is one of the file's own,
    else (a coronal view of axial slices) three-dimensional ones in the patient.

    Args:
        image: opened from DICOM; the one that was asked about.
        record: question and answer, in pixels of the picture that `record` names.
        confidence: 0 to 1, where known.
        segmentation: the mask of this answer, as `dicom_seg.segmentation` built it.

    Raises:
        ImageError: an image that is not DICOM, a slice that it does not have, or a file without identifiers.
    """
    axis = None if record.axis == "oblique" else record.axis  # the name of a tilted acquired plane
    picture = image.picture(axis, record.slice_index, record.window)
    level = _stored_slice(picture)
    source = source_frames(image, [picture.shape[2] // 2 if level is None else level])[0]
    tracked = generate_uid() if segmentation is None else segmentation.SegmentSequence[0].TrackingUID
    tracking = sr.TrackingIdentifier(uid=tracked, identifier=label_of(record.target))
    group = _group(picture, source, record, confidence, tracking)
    content = _texts(record)
    if segmentation is not None:
        content.append(_reference(segmentation))
    if record.points and not record.absent:
        content.append(_points(picture, source, record.points))
    group[0].ContentSequence.extend(content)
    measurements = sr.MeasurementReport(
        observation_context=_observers(record), procedure_reported=coded(IMAGING), imaging_measurements=[group]
    )
    measurements[0].ContentSequence.append(sr.TextContentItem(coded(COMMENT), RESEARCH_ONLY, CONTAINS))
    result = _document(measurements[0], source, segmentation, record, flat=level is not None)
    name_sources(result, [source])
    result.SpecificCharacterSet = UTF_8
    return result


def _document(
    content: Dataset, source: SourceFrame, segmentation: Dataset | None, record: LabelRecord, flat: bool
) -> sr.ComprehensiveSR | sr.Comprehensive3DSR:
    return (sr.ComprehensiveSR if flat else sr.Comprehensive3DSR)(
        evidence=[source.stand_in] + ([] if segmentation is None else [segmentation]),
        content=content,
        series_instance_uid=generate_uid(),
        series_number=source.stand_in.SeriesNumber + 2 * SERIES_OFFSET,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=__version__,
        is_complete=True,
        series_description=short_text(f"{MAKER}: {label_of(record.target)}"),
        coding_schemes=scheme_items(),
    )


def _stored_slice(picture: Picture) -> int | None:
    """Return k where the picture shows one slice of the file, else None."""
    right, down, corner = picture.to_index.T
    return round(float(corner[2])) if right[2] == down[2] == 0 else None


def _group(
    picture: Picture,
    source: SourceFrame,
    record: LabelRecord,
    confidence: float | None,
    tracking: sr.TrackingIdentifier,
) -> sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    coding = coding_of(record.target)
    common: dict[str, Any] = {
        "tracking_identifier": tracking,
        "finding_category": coded(coding.category),
        "finding_type": coded(coding.kind),
        "finding_sites": _sites(record),
        "algorithm_id": _algorithm(record),
    }
    if confidence is not None:
        common["measurements"] = [sr.Measurement(coded(CONFIDENCE), round(confidence, 4), coded(NO_UNITS))]
    if record.box is not None and not record.absent:
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_region(picture, source, Box(*record.box)), **common
        )
    if record.absent:
        common["qualitative_evaluations"] = [sr.QualitativeEvaluation(coded(PRESENCE), coded(ABSENT))]
    image = sr.SourceImageForMeasurementGroup(*_pointer(source))
    return sr.MeasurementsAndQualitativeEvaluations(source_images=[image], **common)


def _sites(record: LabelRecord) -> list[sr.FindingSite] | None:
    coding = coding_of(record.target)
    if coding.region is not None:
        return [sr.FindingSite(coded(coding.region))]
    if coding.modifier is None:
        return None
    side = coded(coding.modifier) if coding.modifier in (LEFT, RIGHT) else None
    part = coded(coding.modifier) if side is None else None
    return [sr.FindingSite(coded(coding.kind), laterality=side, topographical_modifier=part)]


def _algorithm(record: LabelRecord) -> sr.AlgorithmIdentification | None:
    models = {"reasoner": record.reasoner, "expert": record.expert}
    if not any(models.values()):
        return None
    named = algorithm(record)[0]
    facts = [f"{who} {key}: {value}" for who, model in models.items() for key, value in model.items()]
    return sr.AlgorithmIdentification(named.AlgorithmName, named.AlgorithmVersion, facts)


def _observers(record: LabelRecord) -> sr.ObservationContext:
    uid = generate_uid(entropy_srcs=[MAKER, __version__, record.reasoner.get("sha256", "")])
    device = sr.DeviceObserverIdentifyingAttributes(uid, name=MAKER, manufacturer_name=MAKER, model_name=__version__)
    person = None
    if record.author:
        name = sr.PersonObserverIdentifyingAttributes(f"{short_text(record.author)}^")
        person = sr.ObserverContext(coded(Code("121006", "DCM", "Person")), name)
    return sr.ObservationContext(
        observer_person_context=person,
        observer_device_context=sr.ObserverContext(coded(Code("121007", "DCM", "Device")), device),
    )


def _region(picture: Picture, source: SourceFrame, box: Box) -> sr.ImageRegion | sr.ImageRegion3D:
    xs, ys = (box.x_min, box.x_max, box.x_max, box.x_min), (box.y_min, box.y_min, box.y_max, box.y_max)
    corners = [Point(x, y) for x, y in zip((*xs, xs[0]), (*ys, ys[0]), strict=True)]
    if _stored_slice(picture) is not None:
        pointer = sr.SourceImageForRegion(*_pointer(source))
        return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, _on_image(picture, corners), pointer)
    place = source.stand_in.FrameOfReferenceUID
    return sr.ImageRegion3D(sr.GraphicTypeValues3D.POLYGON, _in_patient(picture, corners), place)


def _points(picture: Picture, source: SourceFrame, points: list[list[float]]) -> Any:
    places = [Point(x, y) for x, y in points]
    kind = "POINT" if len(places) == 1 else "MULTIPOINT"  # a click on a target may be all that there is
    if _stored_slice(picture) is None:
        return sr.Scoord3DContentItem(
            coded(POINTS),
            sr.GraphicTypeValues3D[kind],
            _in_patient(picture, places),
            source.stand_in.FrameOfReferenceUID,
            relationship_type=CONTAINS,
        )
    item: Any = sr.ScoordContentItem(
        coded(POINTS), sr.GraphicTypeValues[kind], _on_image(picture, places), relationship_type=CONTAINS
    )
    item.ContentSequence = [sr.SourceImageForRegion(*_pointer(source))]
    return item


def _on_image(picture: Picture, points: list[Point]) -> NDArray[np.float64]:
    """(n, 2) column and row, with DICOM's origin in the outer corner of the first pixel (PS3.3 C.18.6.1.2).

    What a person drew beyond the image is cut to it, for a coordinate there is not legal.
    """
    places = np.stack([picture.index_of(point)[:2] + 0.5 for point in points])
    return np.asarray(np.clip(places, 0, picture.shape[:2]))


def _in_patient(picture: Picture, points: list[Point]) -> NDArray[np.float64]:
    return np.stack([place for place in map(picture.lps_of, points) if place is not None])


def _pointer(source: SourceFrame) -> tuple[str, str, list[int] | None]:
    stand_in = source.stand_in
    return stand_in.SOPClassUID, stand_in.SOPInstanceUID, None if source.frame is None else [source.frame]


def _texts(record: LabelRecord) -> list[sr.ContentItem]:
    texts = ((QUESTION, record.question), (REASONING, record.reasoning))
    return [sr.TextContentItem(coded(name), text, CONTAINS) for name, text in texts if text]


def _reference(segmentation: Dataset) -> sr.ContentItem:
    return sr.ImageContentItem(
        coded(SEGMENT),
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        referenced_segment_numbers=[int(segment.SegmentNumber) for segment in segmentation.SegmentSequence],
        relationship_type=CONTAINS,
    )
