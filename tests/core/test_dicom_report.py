"""Answers as Structured Reports, read by pydicom, DCMTK and dcmqi; places are checked with highdicom's transforms."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from highdicom.spatial import ImageToReferenceTransformer
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from medreasoner.contract.answer import Point
from medreasoner.contract.errors import ImageError
from medreasoner.contract.label import LabelRecord
from medreasoner.dicom_report import RESEARCH_ONLY, report
from medreasoner.dicom_seg import segmentation
from medreasoner.imaging import StoredImage, open_image
from tests.dicom_files import enhanced, projection, rewrite, series
from tests.missing import missing

RECORD = LabelRecord(
    "Wo liegt die Läsion, die auf «Nier» endet?",
    absent=False,
    axis="stored",
    slice_index=3,
    reasoning="The question points to the left kidney. It is bright.",
    target="left kidney",
    box=[4.0, 6.0, 21.0, 17.5],
    points=[[8.5, 9.0], [15.0, 12.5]],
    reasoner={"name": "embedded", "sha256": "ab" * 32, "instruction_sha256": "ef" * 32},
    expert={"name": "litemedsam", "sha256": "cd" * 32},
)
ABSENT = replace(RECORD, absent=True, box=None, points=None)


def saved(path: Path, image: StoredImage, record: LabelRecord = RECORD, **more: object) -> Dataset:
    report(image, record, **more).save_as(path)  # type: ignore[arg-type]
    return dcmread(path)


def items(dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Every content item with the meaning of its name, at any depth."""
    for item in dataset.get("ContentSequence", []):
        yield item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else "", item
        yield from items(item)


def named(dataset: Dataset, name: str) -> list[Dataset]:
    return [item for meaning, item in items(dataset) if meaning == name]


def program(name: str) -> str:
    """DCMTK's on the machine, dcmqi's in the environment."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return found or missing(name)


def test_it_says_what_was_asked_and_answered(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    read = saved(tmp_path / "sr.dcm", image, confidence=0.73456)
    assert read.SOPClassUID == ComprehensiveSRStorage
    assert [item.TextValue for item in named(read, "Question")] == [RECORD.question]
    assert [item.TextValue for item in named(read, "Reasoning")] == [RECORD.reasoning]
    assert RESEARCH_ONLY in [item.TextValue for item in named(read, "Comment")]
    assert named(read, "Finding")[0].ConceptCodeSequence[0].CodeValue == "64033007"
    assert named(read, "Laterality")[0].ConceptCodeSequence[0].CodeMeaning == "Left"
    measured = named(read, "Confidence, 0 to 1: a ranking, not a probability")[0].MeasuredValueSequence[0]
    assert measured.NumericValue == pytest.approx(0.7346)
    facts = [item.TextValue for item in named(read, "Algorithm Parameters")]
    assert f"reasoner sha256: {'ab' * 32}" in facts
    assert f"reasoner instruction_sha256: {'ef' * 32}" in facts
    assert f"expert sha256: {'cd' * 32}" in facts
    assert read.VerificationFlag == "UNVERIFIED"


@pytest.mark.parametrize("kind", ["series", "enhanced"])
def test_box_and_points_lie_where_the_patient_is(tmp_path: Path, kind: str) -> None:
    image = open_image(series(tmp_path / "series") if kind == "series" else enhanced(tmp_path))
    picture = image.picture("stored", 3)
    read = saved(tmp_path / "sr.dcm", image)
    region, points = named(read, "Image Region")[0], named(read, "Points on the target")[0]
    file, frame = image.sources[3]
    source = dcmread(file)
    for item in (region, points):
        reference = item.ContentSequence[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        assert reference.get("ReferencedFrameNumber") == (frame + 1 if kind == "enhanced" else None)

    plane = source
    if kind == "enhanced":
        group, shared = source.PerFrameFunctionalGroupsSequence[frame], source.SharedFunctionalGroupsSequence[0]
        plane = Dataset()
        plane.ImagePositionPatient = group.PlanePositionSequence[0].ImagePositionPatient
        plane.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        plane.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
    to_lps = ImageToReferenceTransformer(plane.ImagePositionPatient, plane.ImageOrientationPatient, plane.PixelSpacing)
    box = RECORD.box or []
    corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3]), (box[0], box[1])]
    for item, wanted in ((region, corners), (points, RECORD.points or [])):
        theirs = to_lps(np.reshape(item.GraphicData, (-1, 2)))
        np.testing.assert_allclose(theirs, [picture.lps_of(Point(x, y)) for x, y in wanted], atol=1e-4)


def test_a_view_across_the_slices_is_placed_in_the_patient(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    record = replace(RECORD, axis="coronal", box=[2.0, 1.0, 9.0, 4.0], points=[[3.0, 2.0], [8.0, 3.0]])
    picture = image.picture("coronal", 3)
    read = saved(tmp_path / "sr.dcm", image, record)
    assert read.SOPClassUID == Comprehensive3DSRStorage
    region, points = named(read, "Image Region")[0], named(read, "Points on the target")[0]
    wanted = [picture.lps_of(Point(x, y)) for x, y in ((2, 1), (9, 1), (9, 4), (2, 4), (2, 1))]
    np.testing.assert_allclose(np.reshape(region.GraphicData, (-1, 3)), wanted, atol=1e-4)
    np.testing.assert_allclose(
        np.reshape(points.GraphicData, (-1, 3)),
        [picture.lps_of(Point(x, y)) for x, y in record.points or []],
        atol=1e-4,
    )
    frame = dcmread(image.sources[0][0]).FrameOfReferenceUID
    assert {item.ReferencedFrameOfReferenceUID for item in (region, points)} == {frame}


@pytest.mark.parametrize("axis", ["stored", "coronal"])
def test_one_click_is_one_point(tmp_path: Path, axis: str) -> None:
    record = replace(RECORD, axis=axis, box=None, points=[[3.0, 2.0]])
    read = saved(tmp_path / "sr.dcm", open_image(series(tmp_path / "series")), record)
    (point,) = named(read, "Points on the target")
    assert point.GraphicType == "POINT"
    assert len(point.GraphicData) == (2 if axis == "stored" else 3)


def test_what_was_drawn_beyond_the_image_is_cut_to_it(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    picture = image.picture("stored", 3)
    high = picture.height  # in square pixels; the image has fewer rows
    record = replace(RECORD, box=[-5.0, 3.0, 9.0, high + 4.0], points=[[-2.0, 4.0], [6.0, high + 1.0]])
    read = saved(tmp_path / "sr.dcm", image, record)
    region, points = (
        np.reshape(named(read, n)[0].GraphicData, (-1, 2)) for n in ("Image Region", "Points on the target")
    )
    rows, step = image.shape[1], picture.to_index[1, 1]
    np.testing.assert_allclose([region.min(0), region.max(0)], [[0, 3 * step], [9, rows]], atol=1e-4)
    np.testing.assert_allclose(points, [[0, 4 * step], [6, rows]], atol=1e-4)


def test_it_points_at_the_segmentation(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    mask = np.zeros(image.shape, bool)
    mask[4:9, 5:8, 3] = True
    seg = segmentation(mask, image, RECORD)
    assert seg is not None
    read = saved(tmp_path / "sr.dcm", image, segmentation=seg)
    reference = named(read, "Referenced Segment")[0].ReferencedSOPSequence[0]
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == (seg.SOPInstanceUID, 1)
    assert seg.SegmentSequence[0].TrackingUID == named(read, "Tracking Unique Identifier")[0].UID
    study = read.CurrentRequestedProcedureEvidenceSequence[0]
    assert study.StudyInstanceUID == dcmread(image.sources[3][0]).StudyInstanceUID == read.StudyInstanceUID
    evidence = {one.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for one in s.ReferencedSOPSequence}
    assert evidence == {seg.SOPInstanceUID, dcmread(image.sources[3][0]).SOPInstanceUID}


@pytest.mark.parametrize("modality", ["CR", "MG", "US", "OP"])
def test_absent_answers_are_reported_too(tmp_path: Path, modality: str) -> None:
    path = projection(tmp_path, modality)
    read = saved(tmp_path / "sr.dcm", open_image(path), replace(ABSENT, slice_index=0), confidence=0.9)
    assert named(read, "Presence of the target")[0].ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert named(read, "Question")[0].TextValue == RECORD.question
    assert not named(read, "Image Region") + named(read, "Points on the target")
    reference = named(read, "Source")[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == dcmread(path).SOPInstanceUID


def test_a_frame_of_a_film_is_named(tmp_path: Path) -> None:
    read = saved(tmp_path / "sr.dcm", open_image(projection(tmp_path, "US", frames=4)))
    reference = named(read, "Image Region")[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedFrameNumber == 4


def test_a_person_who_worked_on_it_is_named(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    read = saved(tmp_path / "sr.dcm", image, replace(RECORD, author="Jane Doe"))
    assert named(read, "Person Observer Name")[0].PersonName == "Jane Doe^"


@pytest.mark.parametrize("record", [RECORD, ABSENT], ids=["found", "absent"])
def test_dcmtk_finds_nothing_to_complain_about(tmp_path: Path, record: LabelRecord) -> None:
    saved(tmp_path / "sr.dcm", open_image(series(tmp_path / "series")), record, confidence=0.5)
    dump = subprocess.run(
        [program("dsrdump"), "+Pl", str(tmp_path / "sr.dcm")],
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert RECORD.question in dump.stdout
    complaints = [line for line in dump.stderr.splitlines() if "Character Set" not in line]  # it knows no UTF-8
    assert complaints == []


def test_dcmqi_reads_it_as_a_measurement_report(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    saved(tmp_path / "sr.dcm", image, confidence=0.5)
    command = [program("tid1500reader"), "--inputDICOM", str(tmp_path / "sr.dcm")]
    subprocess.run([*command, "--outputMetadata", str(tmp_path / "out.json")], check=True, capture_output=True)
    group = json.loads((tmp_path / "out.json").read_text())["Measurements"][0]
    assert group["TrackingIdentifier"] == "left kidney"
    assert group["Finding"]["CodeValue"] == "64033007"
    assert group["Laterality"]["CodeMeaning"] == "Left"
    assert float(group["measurementItems"][0]["value"]) == 0.5
    assert group["measurementAlgorithmIdentification"]["AlgorithmName"] == "embedded + litemedsam"


def test_a_slice_that_the_image_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="slice 3"):
        report(open_image(projection(tmp_path, "CR")), RECORD)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # so it is
def test_a_file_without_patient_and_frame_of_reference(tmp_path: Path) -> None:
    folder = rewrite(series(tmp_path / "series"), FrameOfReferenceUID=None, PatientName=None, StudyTime="?")
    assert named(saved(tmp_path / "sr.dcm", open_image(folder)), "Image Region")
