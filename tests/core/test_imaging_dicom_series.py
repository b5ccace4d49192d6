"""DICOM series written slice by slice: order, tilt, and the errors for slices that make no volume."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from highdicom.spatial import PixelToReferenceTransformer
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, generate_uid

from medreasoner.contract.answer import Point
from medreasoner.contract.errors import ImageError
from medreasoner.contract.label import LabelRecord
from medreasoner.dicom_seg import segmentation
from medreasoner.imaging import open_image, write_mask
from medreasoner.imaging.mask_file import write_volume_mask
from medreasoner.imaging.volume_file import write_volume
from tests.dicom_files import projection

ROWS, COLUMNS = 12, 10
TILT = np.radians(20)
ALIGNED = [1.0, 0, 0, 0, 1, 0]
TILTED = [1.0, 0, 0, 0, float(np.cos(TILT)), float(np.sin(TILT))]


def slice_file(position: list[float], level: int = 0, **changes: object) -> Dataset:
    """MR_small cut to 12 x 10 pixels at a position; `changes` are attributes."""
    dataset = dcmread(get_testdata_file("MR_small.dcm"))
    grain = np.arange(ROWS * COLUMNS, dtype=np.int16).reshape(ROWS, COLUMNS)
    dataset.Rows, dataset.Columns, dataset.PixelData = ROWS, COLUMNS, (grain + 1000 * level).tobytes()
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position, ALIGNED
    dataset.PixelSpacing, dataset.SOPInstanceUID = [0.8, 0.6], generate_uid()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def save(folder: Path, *slices: Dataset) -> Path:
    """Names that sort against the positions, as exports do."""
    folder.mkdir(exist_ok=True)
    for number, dataset in enumerate(slices):
        dataset.save_as(folder / f"{len(slices) - number:03d}")
    return folder


def stack(tmp_path: Path, depths: list[float], **changes: object) -> Path:
    return save(tmp_path / "series", *(slice_file([1.0, 2.0, z], n, **changes) for n, z in enumerate(depths)))


def assert_each_slice_lies_where_its_own_file_says(folder: Path) -> None:
    image = open_image(folder)
    for k, (file, frame) in enumerate(image.sources):
        dataset = dcmread(file)
        to_lps = PixelToReferenceTransformer(
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing
        )
        picture = image.picture(slice_index=k)
        assert frame == 0
        np.testing.assert_array_equal(image.values[:, :, k], dataset.pixel_array.T)
        for column, row in [(0, 0), (COLUMNS - 1, 0), (3, ROWS - 1)]:
            expected = to_lps(np.array([[column, row]]))[0]
            np.testing.assert_allclose((image.index_to_lps @ [column, row, k, 1])[:3], expected, atol=1e-6)
            here = picture.point_at([column, row, k])
            np.testing.assert_allclose(picture.lps_of(here), expected, atol=1e-6)


def test_slices_are_ordered_by_position(tmp_path: Path) -> None:
    folder = stack(tmp_path, [6.0, 0.0, 3.0, 9.0])
    image = open_image(folder)
    assert (image.is_volume, image.shape, image.picture().axis) == (True, (COLUMNS, ROWS, 4), "axial")
    assert list(image.values[0, 0]) == [1000, 2000, 0, 3000]
    assert_each_slice_lies_where_its_own_file_says(folder)


def test_gantry_tilt_is_a_shear_that_is_kept_exactly(tmp_path: Path) -> None:
    """The table moves along z while the slices lean: positions drift along the columns."""
    depths = [float(z) for z in range(0, 30, 5)]
    folder = stack(tmp_path, depths, ImageOrientationPatient=TILTED)
    image = open_image(folder)
    across, into = image.index_to_lps[:3, 1], image.index_to_lps[:3, 2]
    assert across @ into == pytest.approx(0.8 * 5 * np.sin(TILT))
    assert_each_slice_lies_where_its_own_file_says(folder)


def test_a_mask_keeps_the_shear(tmp_path: Path) -> None:
    image = open_image(stack(tmp_path, [0.0, 5.0, 10.0], ImageOrientationPatient=TILTED))
    picture = image.picture()
    mask = np.ones((picture.height, picture.width), bool)
    for name in ("mask.nii.gz", "mask.nrrd"):
        written = open_image(write_mask(mask, picture, image, tmp_path / name))
        np.testing.assert_allclose(written.index_to_lps, image.index_to_lps, atol=1e-5)
        assert (written.values.sum(axis=(0, 1)) > 0).tolist() == [False, True, False]
    assert nibabel.load(tmp_path / "mask.nii.gz").header["qform_code"] == 0  # which cannot hold a shear


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored"])
def test_slices_lie_right_under_tilt_in_every_view(axis: str, tmp_path: Path) -> None:
    image = open_image(stack(tmp_path, [0.0, 5.0, 10.0], ImageOrientationPatient=TILTED))
    picture = image.picture(axis)
    for point in (Point(0.5, 0.5), Point(2.25, 4)):
        expected = image.index_to_lps @ [*picture.index_of(point), 1]
        np.testing.assert_allclose(picture.lps_of(point), expected[:3])


def test_rescale_may_differ_from_slice_to_slice(tmp_path: Path) -> None:
    """As in PET."""
    slices = [
        slice_file([0.0, 0, z], 1, RescaleSlope=slope, RescaleIntercept=0)
        for z, slope in ((0.0, "1"), (2.0, "0.5"), (4.0, "2"))
    ]
    image = open_image(save(tmp_path / "pet", *slices))
    assert image.values[0, 0].tolist() == [1000.0, 500.0, 2000.0]
    assert image.values.dtype == np.float32


def test_rounded_positions_are_even_enough(tmp_path: Path) -> None:
    """0.625 mm written with one decimal."""
    image = open_image(stack(tmp_path, [0.0, 0.6, 1.3, 1.9, 2.5]))
    assert image.spacing[2] == pytest.approx(0.625)


def test_one_slice_in_a_folder_is_a_single_image(tmp_path: Path) -> None:
    image = open_image(stack(tmp_path, [0.0]))
    assert (image.is_volume, image.slice_count("axial")) == (False, 1)
    with pytest.raises(ImageError, match="'axial'"):
        image.picture("coronal")


def test_files_that_are_no_images_do_not_disturb(tmp_path: Path) -> None:
    folder = stack(tmp_path, [0.0, 1.0, 2.0])
    (folder / "notes.txt").write_text("slice 2 shows it")
    (folder / "empty.dcm").touch()
    shutil.copy(get_testdata_file("test-SR.dcm"), folder / "report.dcm")
    shutil.copy(get_testdata_file("rtdose.dcm"), folder / "dose.dcm")
    assert open_image(folder).shape == (COLUMNS, ROWS, 3)


@pytest.mark.parametrize("modality", ["US", "DX"])  # in colour, in grey
def test_stills_without_a_place_follow_one_another_by_number(modality: str, tmp_path: Path) -> None:
    for number in (10, 2, 1):
        file = projection(tmp_path / str(number), modality, SeriesInstanceUID="1.2.3", InstanceNumber=number)
        dataset = dcmread(file)
        dataset.PixelData = bytes([number]) * len(dataset.PixelData)
        dataset.save_as(file)
    stills = open_image(tmp_path)
    assert [file.parent.name for file, _ in stills.sources] == ["1", "2", "10"]
    assert (stills.is_volume, stills.index_to_lps, stills.slice_count("stored")) == (False, None, 3)
    assert [np.unique(stills.values[:, :, k]).tolist() for k in range(3)] == [[1], [2], [10]]
    mask = np.zeros(stills.shape, bool)
    mask[2:5, 3:6, 2] = True
    written = write_volume_mask(mask.astype(np.uint8), stills, tmp_path / "mask.nrrd")
    np.testing.assert_array_equal(open_image(written).values, mask)
    copied = open_image(write_volume(stills, tmp_path / "volume.nrrd"))  # what the server hands out as the next case
    np.testing.assert_array_equal(copied.values, stills.values)
    saved = segmentation(mask, stills, LabelRecord("Where is the cyst?", False, "stored", 2, target="cyst"))
    assert saved is not None
    referred = saved.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert [item.ReferencedSOPInstanceUID for item in referred] == [
        dcmread(tmp_path / "10" / f"{modality}.dcm").SOPInstanceUID
    ]


@pytest.mark.parametrize("changes", [{}, {"SOPInstanceUID": "1.2.3.4"}], ids=["names", "one name for all"])
def test_a_slice_copied_in_twice_counts_once(changes: dict[str, str], tmp_path: Path) -> None:
    folder = stack(tmp_path, [0.0, 3.0, 6.0], **changes)
    shutil.copytree(folder, folder / "copied")
    assert_each_slice_lies_where_its_own_file_says(folder)
    assert open_image(folder).shape == (COLUMNS, ROWS, 3)


def test_a_copy_that_an_archive_has_compressed_counts_once(tmp_path: Path) -> None:
    folder = stack(tmp_path, [0.0, 3.0])
    dataset = dcmread(folder / "001")
    dataset.compress(RLELossless)
    dataset.save_as(folder / "003")
    assert open_image(folder).shape == (COLUMNS, ROWS, 2)


def test_stills_copied_in_twice_count_once_and_a_film_is_one_image(tmp_path: Path) -> None:
    for number in (1, 2):
        projection(tmp_path / "stills" / str(number), "US", SeriesInstanceUID="1.2.3", InstanceNumber=number)
    film = projection(tmp_path / "film", "US", frames=3)
    shutil.copytree(tmp_path / "stills", tmp_path / "stills" / "copied")
    shutil.copy(film, film.with_name("copied"))
    assert [open_image(tmp_path / name).slice_count("stored") for name in ("stills", "film")] == [2, 3]


def test_stills_of_several_sizes_can_be_asked_about_as_the_hint_says(tmp_path: Path) -> None:
    """As an ultrasound machine's screen, its zoom and its report page."""
    for number, rows in enumerate((30, 40, 40)):
        file = projection(tmp_path / str(number), "US", SeriesInstanceUID="1.2.3", InstanceNumber=number)
        dataset = dcmread(file)
        dataset.Rows, dataset.PixelData = rows, bytes(3 * rows * dataset.Columns)
        dataset.save_as(file)
    with pytest.raises(ImageError, match="differ in size: 2 of 36 x 40 in colour, 1 of 36 x 30 in colour") as refused:
        open_image(tmp_path)
    named = next(word.rstrip(",") for word in refused.value.hint.split() if word.startswith("0/"))
    assert open_image(tmp_path / named).shape == (36, 30, 1)
    for number in ("1", "2"):
        shutil.move(tmp_path / number, tmp_path / "one size" / number)
    assert open_image(tmp_path / "one size").shape == (36, 40, 2)


def broken(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Folders that hold no single volume, and what the message must name."""
    first, second = slice_file([0.0, 0, 0]), slice_file([0.0, 0, 5])
    cases = {
        "missing slice": ([slice_file([0.0, 0, z]) for z in (0.0, 5.0, 15.0, 20.0)], "5.00 to 10.00 mm"),
        "doubled position": ([slice_file([0.0, 0, z]) for z in (0.0, 5.0, 0.0, 5.0)], "4-D"),
        "localizer": ([first, slice_file([0.0, 0, 0], ImageOrientationPatient=[0.0, 1, 0, 0, 0, -1])], "orientation"),
        "zoomed": ([first, slice_file([0.0, 0, 5], PixelSpacing=[0.4, 0.3])], "pixel spacing"),
        "no position": ([first, slice_file([0.0, 0, 5], ImagePositionPatient=None)], "where it lies"),
        "zero orientation": ([first, slice_file([0.0, 0, 5], ImageOrientationPatient=[0.0] * 6)], "where it lies"),
        "sideways jump": ([slice_file([x, 0, z]) for x, z in ((0.0, 0.0), (9.0, 5.0), (0.0, 10.0))], "evenly"),
        "other size": ([first, slice_file([0.0, 0, 5], Rows=6, PixelData=bytes(2 * 6 * COLUMNS))], "size"),
        "two series": ([first, second, slice_file([0.0, 0, 9], SeriesInstanceUID="1.2.3", Modality="CT")], "CT .*1 im"),
        "one name": ([slice_file([0.0, 0, 0], n, SOPInstanceUID="1.2.3") for n in (0, 1)], "001 and 002|002 and 001"),
        "films": ([slice_file([0.0, 0, z], NumberOfFrames=2) for z in (0.0, 5.0)], "several frames"),
    }
    return {
        name: (save(tmp_path / name.replace(" ", "-"), *slices), message) for name, (slices, message) in cases.items()
    }


def test_slices_that_make_no_volume_are_refused_with_a_reason(tmp_path: Path) -> None:
    for folder, message in broken(tmp_path).values():
        with pytest.raises(ImageError, match=f"(?s){message}.*->"):
            open_image(folder)


def test_several_series_are_listed_with_their_folders(tmp_path: Path) -> None:
    save(tmp_path / "head", slice_file([0.0, 0, 0], SeriesDescription="HEAD"))
    save(
        tmp_path / "neck", *(slice_file([0.0, 0, z], SeriesInstanceUID="1.2", SeriesDescription="NECK") for z in (0, 1))
    )
    with pytest.raises(ImageError, match=r"MR NECK \(2 images in neck\), MR HEAD \(1 image in head\)"):
        open_image(tmp_path)


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    folder = stack(tmp_path, [0.0, 1.0, 2.0])
    (folder / "002").write_bytes((folder / "002").read_bytes()[:-200])
    with pytest.raises(ImageError, match="002"):
        open_image(folder)


@pytest.mark.parametrize("files", [(), ("notes.txt",)], ids=["nothing", "only a text"])
def test_a_folder_without_images_is_refused(files: tuple[str, ...], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("nothing to see")
    with pytest.raises(ImageError, match="holds"):
        open_image(tmp_path)
