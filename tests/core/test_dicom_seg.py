"""Masks as DICOM Segmentations, read back by pydicom-seg, by dcmqi with SimpleITK, and by GDCM with SimpleITK."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom_seg
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from medreasoner.contract.errors import ImageError
from medreasoner.contract.label import LabelRecord
from medreasoner.dicom_seg import segmentation
from medreasoner.imaging import StoredImage, open_image
from tests.dicom_files import ALIGNED, COLUMNS, OBLIQUE, ROWS, enhanced, projection, rewrite, series

SECRET = "Where is the tumour of Mrs Miller?"
RECORD = LabelRecord(
    SECRET,
    absent=False,
    axis="stored",
    slice_index=0,
    target="left kidney",
    reasoner={"name": "embedded", "sha256": "ab" * 32},
    expert={"name": "litemedsam", "sha256": "cd" * 32},
)


GANTRY = np.array([[1, 0, 0], [0, 1, 0.3], [0, 0, 1.0]])  # slices drift sideways; ITK has no such grid


def marked(image: StoredImage, *slices: int) -> NDArray[np.bool_]:
    """A region that is unlike itself when flipped or turned, another one in each slice."""
    mask = np.zeros(image.shape, bool)
    for k in slices:
        mask[3 : 12 + k, 5:20, k] = True
        mask[15:30, 6 + k : 9 + k, k] = True
    return mask


def saved(mask: NDArray[np.bool_], image: StoredImage, path: Path, record: LabelRecord = RECORD) -> Dataset:
    made = segmentation(mask, image, record)
    assert made is not None
    made.save_as(path)
    return dcmread(path)


def by_dcmqi(path: Path, folder: Path) -> sitk.Image:
    program = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))
    folder.mkdir()
    command = [str(program), "--inputDICOM", str(path), "--outputDirectory", str(folder), "--outputType", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    return sitk.ReadImage(str(folder / "1.nrrd"))


def on_series(segment: sitk.Image, files: list[str]) -> NDArray[np.bool_]:
    """Lay what another library read over the images as ITK sees them; (i, j, k) in ITK's order of slices."""
    volume = sitk.ReadImage(files)
    laid = sitk.Resample(segment, volume, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return np.asarray(sitk.GetArrayFromImage(laid) > 0).T


@pytest.mark.parametrize(
    ("template", "directions"),
    [("CT_small.dcm", ALIGNED), ("CT_small.dcm", OBLIQUE), ("MR_small.dcm", OBLIQUE)],
    ids=["CT aligned", "CT oblique", "MR oblique"],
)
@pytest.mark.parametrize("slices", [(1,), (0, 1, 3)], ids=["one slice", "several, with a gap"])
def test_two_libraries_find_the_mask_on_its_slices(
    tmp_path: Path, template: str, directions: Any, slices: tuple[int, ...]
) -> None:
    image = open_image(series(tmp_path / "series", template, directions))
    mask, path = marked(image, *slices), tmp_path / "seg.dcm"
    read = saved(mask, image, path)

    assert read.NumberOfFrames == len(slices)  # empty frames are left out
    files = [str(file) for file, _ in image.sources]
    np.testing.assert_array_equal(on_series(by_dcmqi(path, tmp_path / "dcmqi"), files), mask)
    theirs = pydicom_seg.SegmentReader().read(read)
    np.testing.assert_array_equal(on_series(theirs.segment_image(1), files), mask)


def references(read: Dataset) -> dict[tuple[str, int | None], list[float]]:
    """Position of each frame, by the instance and the frame in it that it names."""
    found = {}
    for group in read.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        key = str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber")
        found[key] = group.PlanePositionSequence[0].ImagePositionPatient
    return found


@pytest.mark.parametrize("directions", [OBLIQUE, GANTRY], ids=["oblique", "tilted gantry"])
def test_each_frame_names_the_file_it_was_drawn_on(tmp_path: Path, directions: Any) -> None:
    image = open_image(series(tmp_path / "series", directions=directions))
    read = saved(marked(image, 1, 3), image, tmp_path / "seg.dcm")
    sources = [dcmread(image.sources[k][0]) for k in (1, 3)]
    assert references(read) == {(s.SOPInstanceUID, None): s.ImagePositionPatient for s in sources}
    listed = read.ReferencedSeriesSequence[0]
    assert listed.SeriesInstanceUID == sources[0].SeriesInstanceUID
    for items in (listed.ReferencedInstanceSequence, read.SourceImageSequence):
        named = {(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in items}
        assert named == {(s.SOPClassUID, s.SOPInstanceUID) for s in sources}


def test_frames_of_an_enhanced_file_are_found_whatever_their_order(tmp_path: Path) -> None:
    path = enhanced(tmp_path)
    image = open_image(path)
    assert [frame for _, frame in image.sources] == [4, 3, 2, 1, 0]
    mask = marked(image, 0, 3)
    read = saved(mask, image, tmp_path / "seg.dcm")

    source = dcmread(path)
    places = {}
    for k in (0, 3):
        frame = image.sources[k][1]
        plane = source.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0]
        places[source.SOPInstanceUID, frame + 1] = plane.ImagePositionPatient
    assert references(read) == places
    assert len(read.SourceImageSequence) == len(read.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    files = [str(file) for file, _ in open_image(tmp_path / "single").sources]  # the same slices, for ITK
    np.testing.assert_array_equal(on_series(by_dcmqi(tmp_path / "seg.dcm", tmp_path / "q"), files), mask)


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "US", "ES", "OP"])
def test_images_without_a_place_in_the_patient(tmp_path: Path, modality: str) -> None:
    path = projection(tmp_path, modality)
    image = open_image(path)
    mask = marked(image, 0)
    read = saved(mask, image, tmp_path / "seg.dcm")
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "seg.dcm")))
    np.testing.assert_array_equal(theirs[0].T > 0, mask[:, :, 0])
    assert "FrameOfReferenceUID" not in read
    reference = read.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert reference.ReferencedSOPClassUID == dcmread(path).SOPClassUID
    assert (read.Rows, read.Columns) == (ROWS, COLUMNS)


def test_a_frame_of_a_film(tmp_path: Path) -> None:
    image = open_image(projection(tmp_path, "US", frames=3))
    mask = marked(image, 2)
    read = saved(mask, image, tmp_path / "seg.dcm")
    reference = read.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert reference.ReferencedFrameNumber == 3
    np.testing.assert_array_equal(read.pixel_array.T != 0, mask[:, :, 2])
    with pytest.raises(ImageError, match="2 frames"):
        segmentation(marked(image, 0, 2), image, RECORD)


def test_a_mask_of_several_targets_becomes_several_segments(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    mask = np.zeros(image.shape, np.uint16)
    mask[3:9, 5:20, 1], mask[12:20, 5:30, 1:3], mask[1, 1, 3] = 5, 2, 9
    made = segmentation(mask, image, RECORD, {5: "liver", 2: "spleen"})
    assert made is not None
    made.save_as(tmp_path / "seg.dcm")
    theirs = pydicom_seg.SegmentReader().read(dcmread(tmp_path / "seg.dcm"))
    named = {n: theirs.segment_infos[n].SegmentLabel for n in theirs.available_segments}
    assert named == {1: "spleen", 2: "liver", 3: "segment 9"}
    files = [str(file) for file, _ in image.sources]
    for number, value in ((1, 2), (2, 5), (3, 9)):
        np.testing.assert_array_equal(on_series(theirs.segment_image(number), files), mask == value)


def test_nothing_marked_is_no_file_and_no_error(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    assert segmentation(np.zeros(image.shape, bool), image, RECORD) is None


def test_what_the_segment_says(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    read = saved(marked(image, 2), image, tmp_path / "seg.dcm")
    segment = read.SegmentSequence[0]
    assert segment.SegmentLabel == "left kidney"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    named = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert named.AlgorithmName == "embedded + litemedsam"
    assert named.AlgorithmVersion == f"{read.SoftwareVersions}+abababababab"
    assert (read.SeriesDescription, read.ContentCreatorName) == ("MedReasoner: left kidney", "MedReasoner^")
    assert SECRET.encode() not in (tmp_path / "seg.dcm").read_bytes()  # free text may name the patient


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (RECORD, "AUTOMATIC"),
        (RECORD.edited("mask"), "SEMIAUTOMATIC"),
        (LabelRecord("", absent=False, axis="stored", slice_index=0, target="liver", author="Jane"), "MANUAL"),
    ],
    ids=["as the models made it", "edited by a person", "drawn by a person"],
)
def test_who_drew_it(tmp_path: Path, record: LabelRecord, kind: str) -> None:
    image = open_image(series(tmp_path / "series"))
    assert saved(marked(image, 2), image, tmp_path / "s", record).SegmentSequence[0].SegmentAlgorithmType == kind


def test_names_with_dicoms_own_separators_stay_one_value(tmp_path: Path) -> None:
    image = open_image(projection(tmp_path, "CR"))
    record = LabelRecord("", absent=False, axis="stored", slice_index=0, target="a\\b " * 40, author="CLINIC\\jane^x=y")
    read = saved(marked(image, 0), image, tmp_path / "seg.dcm", record)
    assert read.ContentCreatorName == "CLINIC jane x y^"
    assert read.SegmentSequence[0].SegmentLabel == ("a b " * 40)[:62].strip()
    assert read.SeriesDescription.startswith("MedReasoner: a b a b")


def test_targets_without_a_code_get_a_declared_private_one(tmp_path: Path) -> None:
    image = open_image(projection(tmp_path, "OP"))
    record = LabelRecord("", absent=False, axis="stored", slice_index=0, target="optic cup")
    read = saved(marked(image, 0), image, tmp_path / "seg.dcm", record)
    scheme = read.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator
    assert scheme == read.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99MEDREASONER"
    assert read.SegmentSequence[0].AnatomicRegionSequence[0].CodeMeaning == "Optic nerve head"


UNFRIENDLY: dict[str, dict[str, Any]] = {
    "no frame of reference": {"FrameOfReferenceUID": None},
    "no patient": {"PatientID": None, "PatientName": None, "PatientSex": None, "PatientBirthDate": None},
    "no study facts": {"StudyID": None, "StudyDate": None, "StudyTime": None, "AccessionNumber": None},
    "a sex that is none of DICOM's": {"PatientSex": "male"},
    "dates in another style": {"StudyDate": "19.1.04", "PatientBirthDate": "1.2.1970"},
    "no slice thickness": {"SliceThickness": None},
    "an empty slice thickness": {"SliceThickness": ""},
    "no series number": {"SeriesNumber": None},
    "lossy, ratio unknown": {"LossyImageCompression": "01"},
    "a name beyond ASCII": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"},
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # so they are
@pytest.mark.parametrize("changes", UNFRIENDLY.values(), ids=UNFRIENDLY)
def test_files_that_leave_out_what_the_standard_demands(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = rewrite(series(tmp_path / "series"), **changes)
    image = open_image(folder)
    mask = marked(image, 1, 2)
    read = saved(mask, image, tmp_path / "seg.dcm")
    files = [str(file) for file, _ in image.sources]
    np.testing.assert_array_equal(on_series(by_dcmqi(tmp_path / "seg.dcm", tmp_path / "q"), files), mask)
    assert str(read.PatientName or "") == (changes.get("PatientName", "CompressedSamples^CT1") or "")


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_without_identifiers_nothing_can_refer_to_the_file(tmp_path: Path, keyword: str) -> None:
    image = open_image(rewrite(projection(tmp_path, "CR"), **{keyword: None}))
    with pytest.raises(ImageError, match=f"lost its {keyword}"):
        segmentation(marked(image, 0), image, RECORD)


def test_masks_that_do_not_fit_and_images_that_are_not_dicom(tmp_path: Path) -> None:
    image = open_image(series(tmp_path / "series"))
    with pytest.raises(ImageError, match="does not fit"):
        segmentation(np.ones((3, 3, 3), bool), image, RECORD)
    other = StoredImage(Path("scan.nii"), image.values, image.index_to_lps, is_volume=True)
    with pytest.raises(ImageError, match="not a DICOM image"):
        segmentation(marked(image, 1), other, RECORD)
