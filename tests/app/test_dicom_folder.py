"""Studies as a folder of DICOM files: found whatever they are called, labelled, and labels that survive."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom_seg
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingResult
from medreasoner.durable import PARTIAL
from medreasoner.imaging import open_image, write_mask
from monailabel_app.lib.datastore import dicom_folder, open_datastore
from monailabel_app.lib.datastore.dicom_folder import ADDED, LABELS
from monailabel_app.lib.datastore.label_shelf import LabelShelf, UnknownLabel
from monailabel_app.lib.datastore.mixed_folder import MixedFolderDatastore
from monailabel_app.lib.datastore.shelved import UnknownImage
from monailabel_app.lib.dicom_output import dicom_seg, dicom_sr, mask_on_grid
from monailabel_app.lib.settings import Settings
from tests.app.small import SmallApplication, served
from tests.dicom_files import ALIGNED, projection, rewrite, series

RECORD = LabelRecord(
    "Which organ filters the blood?",
    absent=False,
    axis="stored",
    slice_index=2,
    target="left kidney",
    box=[4.0, 6.0, 21.0, 17.0],
    points=[[8.5, 9.0], [15.0, 12.5]],
    reasoner={"name": "embedded", "sha256": "ab" * 32},
)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two volumes in one folder, an X-ray further down, and files that are no images."""
    folder = tmp_path / "studies"
    series(folder / "mixed")
    for file in series(tmp_path / "mr", "MR_small.dcm").iterdir():
        shutil.move(file, folder / "mixed" / f"{file.name}.mr")
    projection(folder / "deep" / "er" / "still", "DX")
    shutil.copy(get_testdata_file("liver_1frame.dcm"), folder / "mixed" / "seg.dcm")
    shutil.copy(get_testdata_file("rtdose.dcm"), folder / "dose")
    (folder / "README.txt").write_text("not DICOM")
    (folder / "empty").write_bytes(b"")
    (folder / "gone.dcm").symlink_to(folder / "nowhere")
    (folder / "cut.dcm").write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes()[:300])
    return folder


def by_modality(store: MixedFolderDatastore) -> dict[str, str]:
    facts = {image: store.get_image_info(image) for image in store.list_images()}
    return {fact["Modality"]: image for image, fact in facts.items() if "Modality" in fact}


def opened(studies: Path) -> MixedFolderDatastore:
    store = open_datastore(str(studies), Settings())
    assert isinstance(store, MixedFolderDatastore)
    return store


def mask_file(store: MixedFolderDatastore, image_id: str, path: Path) -> Path:
    """A mask on slice 2, or the only one, as the model writes it."""
    image = open_image(Path(store.get_image_uri(image_id)))
    picture = image.picture("stored", min(2, image.shape[2] - 1))
    mask = np.zeros((picture.height, picture.width), bool)
    mask[6:17, 4:21] = True
    return write_mask(mask, picture, image, path)


def test_every_image_series_is_found_and_nothing_else(studies: Path) -> None:
    store = opened(studies)
    found = by_modality(store)
    assert set(found) == {"CT", "MR", "DX"}
    assert [store.get_image_info(found[modality])["instances"] for modality in ("CT", "MR", "DX")] == [5, 5, 1]
    for modality, image_id in found.items():
        image = open_image(Path(store.get_image_uri(image_id)))
        assert (image.modality, image.shape[2]) == (modality, 1 if modality == "DX" else 5)
        assert {dcmread(file).SeriesInstanceUID for file, _ in image.sources} == {image_id}
    assert "Patient" not in json.dumps(store.json())


def test_new_files_are_noticed_and_take_the_series_to_a_new_folder(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monailabel_app.lib.datastore.dicom_folder.FRESH_SECONDS", -1.0)
    store = opened(studies)
    image_id = by_modality(store)["CT"]
    before = store.get_image_uri(image_id)
    assert store.get_image_uri(image_id) == before
    one_more = dcmread(sorted(Path(before).iterdir())[-1])
    step = 2.5 * np.cross(one_more.ImageOrientationPatient[:3], one_more.ImageOrientationPatient[3:])
    files = [dcmread(file) for file in Path(before).iterdir()]
    top = max((file.ImagePositionPatient for file in files), key=lambda p: float(np.dot(p, step)))
    one_more.ImagePositionPatient = [round(float(v), 6) for v in np.asarray(top, float) + step]
    one_more.SOPInstanceUID = f"{one_more.SOPInstanceUID[:-3]}999"
    one_more.save_as(studies / "late")
    assert image_id in store.list_images()
    after = store.get_image_uri(image_id)
    assert after != before
    assert open_image(Path(after)).shape[2] == 6


def test_an_upload_that_a_crash_has_cut_off_is_no_slice(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monailabel_app.lib.datastore.dicom_folder.FRESH_SECONDS", -1.0)
    store = opened(studies)
    image_id = by_modality(store)["CT"]
    whole = open_image(Path(store.get_image_uri(image_id))).values
    unfinished = studies / ADDED / f"{PARTIAL}0123abcd"
    unfinished.parent.mkdir()
    one_more = dcmread(studies / "mixed" / "IM0001")
    one_more.SOPInstanceUID = f"{one_more.SOPInstanceUID[:-3]}999"
    one_more.save_as(unfinished)
    unfinished.write_bytes(unfinished.read_bytes()[:-50])
    for again in (store, opened(studies)):  # while it comes, and after the server that took it in was killed
        assert again.get_image_info(image_id)["instances"] == 5
        np.testing.assert_array_equal(open_image(Path(again.get_image_uri(image_id))).values, whole)
    assert not unfinished.exists()


def test_what_a_series_says_of_itself_is_read_once(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of ten thousand series would open a file of each whenever a client asks for it."""
    store = opened(studies)
    reads: list[Path] = []
    read = dicom_folder.read_attributes
    monkeypatch.setattr(dicom_folder, "read_attributes", lambda path: reads.append(path) or read(path))
    for _ in range(2):
        listed = store.json()["objects"]
        subjects = {store.subject_of(image) for image in store.list_images()}
    assert len(reads) == len(listed) == 3
    assert len(subjects) > 1
    assert not any(subject in json.dumps(listed) for subject in subjects)


def test_folders_may_come_and_go_while_they_are_looked_through(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver fills a folder under one name and then gives it another."""
    monkeypatch.setattr("monailabel_app.lib.datastore.dicom_folder.FRESH_SECONDS", -1.0)
    store, ends = opened(studies), threading.Event()
    images = store.list_images()

    def receive() -> None:
        while not ends.is_set():
            (studies / "deep" / "coming" / "in").mkdir(parents=True)
            (studies / "deep" / "coming").rename(studies / "deep" / "there")
            shutil.rmtree(studies / "deep" / "there")

    receiver = threading.Thread(target=receive)
    receiver.start()
    try:
        for _ in range(150):
            assert store.list_images() == images
    finally:
        ends.set()
        receiver.join(10)


@pytest.mark.parametrize("one_name", [False, True])
def test_a_copy_of_a_file_is_no_second_slice(studies: Path, one_name: bool) -> None:
    """The same disc copied in twice; also where an anonymiser has given one SOPInstanceUID to every slice."""
    if one_name:
        rewrite(studies / "mixed", SOPInstanceUID="1.2.3.4")
    shutil.copytree(studies / "mixed", studies / "copied again")
    store = opened(studies)
    for modality in ("CT", "MR"):
        image_id = by_modality(store)[modality]
        assert store.get_image_info(image_id)["instances"] == 5
        assert open_image(Path(store.get_image_uri(image_id))).shape[2] == 5


def test_two_images_with_one_name_at_one_place_are_not_taken_for_copies(studies: Path) -> None:
    twin = dcmread(next(file for file in (studies / "mixed").iterdir() if not file.suffix))
    twin.PixelData = bytes(len(twin.PixelData))
    twin.save_as(studies / "twin")
    store = opened(studies)
    with pytest.raises(ImageError, match="several slices at one place"):
        open_image(Path(store.get_image_uri(str(twin.SeriesInstanceUID))))


def test_a_folder_of_links_that_broke_off_is_made_again(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: half of the slices would open as a volume too."""
    store = opened(studies)
    image_id, link, made = by_modality(store)["CT"], Path.symlink_to, []

    def breaks_off(self: Path, target: Path) -> None:
        made.append(self)
        if len(made) == 3:
            raise OSError(28, "No space left on device")
        link(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "symlink_to", breaks_off)
        with pytest.raises(OSError, match="No space"):
            store.get_image_uri(image_id)
    assert open_image(Path(store.get_image_uri(image_id))).shape[2] == 5


def test_the_links_are_gone_when_the_server_has_ended(studies: Path) -> None:
    application = SmallApplication()
    application.store = store = opened(studies)
    folder = Path(store.get_image_uri(by_modality(store)["CT"]))
    with served(application):
        assert any(folder.iterdir())
    assert not folder.exists()
    assert not folder.parents[1].exists()
    assert any((studies / "mixed").iterdir())


def test_names_that_could_be_series_do_not_have_the_folder_searched_each_time(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(studies / f"{number:04d}.png")
    store, looks = opened(studies), []
    look = store._series.refresh
    monkeypatch.setattr(store._series, "refresh", lambda: looks.append(look()))
    assert len(store.json()["objects"]) == 33
    assert len(looks) < 10


@pytest.mark.parametrize("image_id", ["1.2.3", "../../etc", "", "/etc/passwd"])
def test_unknown_series(studies: Path, image_id: str) -> None:
    with pytest.raises(UnknownImage, match="there is no image"):
        opened(studies).get_image_uri(image_id)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_saved_label_is_all_of_its_forms_and_outlives_the_server(studies: Path, tmp_path: Path, ending: str) -> None:
    store = opened(studies)
    image_id = by_modality(store)["MR"]
    mask = mask_file(store, image_id, tmp_path / f"mask{ending}")
    info = {"medreasoner": asdict(RECORD), "author": "jane", "label_info": [{"name": "left kidney", "idx": 1}]}
    assert store.save_label(image_id, str(mask), "final", info) == image_id

    again = opened(studies)  # what a new server finds
    assert again.get_labeled_images() == [image_id]
    assert image_id not in again.get_unlabeled_images()
    assert again.get_labels_by_image_id(image_id) == {"final": image_id}
    assert again.status() == {"total": 3, "completed": 1, "label_tags": {"final": 1}}
    assert Path(again.get_label_uri(image_id, "final")).read_bytes() == mask.read_bytes()
    kept = LabelRecord.from_json(json.dumps(again.get_label_info(image_id, "final")["medreasoner"]))
    assert (kept.question, kept.box, kept.author) == (RECORD.question, RECORD.box, "jane")
    assert kept.saved_at

    shelf = LabelShelf(studies / LABELS)
    seg = dcmread(shelf.file(image_id, "final", "segmentation"))
    theirs = pydicom_seg.SegmentReader().read(seg).segment_data(1)
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
    np.testing.assert_array_equal(theirs[0], image[2])
    report = dcmread(shelf.file(image_id, "final", "report"))
    assert (
        report.StudyInstanceUID
        == seg.StudyInstanceUID
        == dcmread(next((studies / "mixed").glob("*.mr"))).StudyInstanceUID
    )
    assert again.datalist() == [
        {"image": again.get_image_uri(image_id), "label": again.get_label_uri(image_id, "final")}
    ]
    assert set(by_modality(again)) == {"CT", "MR", "DX"}  # labels are no studies


def test_saving_again_replaces_and_removing_removes(studies: Path, tmp_path: Path) -> None:
    store = opened(studies)
    image_id = by_modality(store)["DX"]
    mask = mask_file(store, image_id, tmp_path / "mask.nrrd")
    for author in ("first", "second"):
        store.save_label(
            image_id, str(mask), "final", {"medreasoner": asdict(replace(RECORD, slice_index=0)), "author": author}
        )
    assert store.get_label_info(image_id, "final")["medreasoner"]["author"] == "second"
    folder = studies / LABELS / "final"
    assert len(list(folder.iterdir())) == 4  # entry, mask, segmentation, report
    store.remove_label(image_id, "final")
    assert list(folder.iterdir()) == []
    with pytest.raises(UnknownLabel):
        store.get_label_info(image_id, "final")


def test_a_label_of_several_segments_as_the_stock_plug_in_sends_it(studies: Path, tmp_path: Path) -> None:
    store = opened(studies)
    image_id = by_modality(store)["CT"]
    mask = sitk.ReadImage(str(mask_file(store, image_id, tmp_path / "m.nrrd")))
    mask[1:3, 1:3, 0] = 2
    sitk.WriteImage(mask, str(tmp_path / "m.nrrd"))
    info = {"label_info": [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]}
    store.save_label(image_id, str(tmp_path / "m.nrrd"), "final", info)
    seg = dcmread(LabelShelf(studies / LABELS).file(image_id, "final", "segmentation"))
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["liver", "spleen"]
    with pytest.raises(MedReasonerError, match="has no value"):
        store.save_label(image_id, str(tmp_path / "m.nrrd"), "final", {"label_info": [{"name": "liver", "idx": "x"}]})


def test_an_empty_mask_is_a_label_without_segmentation(studies: Path, tmp_path: Path) -> None:
    store = opened(studies)
    image_id = by_modality(store)["CT"]
    image = open_image(Path(store.get_image_uri(image_id)))
    picture = image.picture("stored", 2)
    empty = write_mask(np.zeros((picture.height, picture.width), bool), picture, image, tmp_path / "m.nrrd")
    record = replace(RECORD, absent=True, box=None, points=None)
    store.save_label(image_id, str(empty), "final", {"medreasoner": record.to_json()})
    shelf = LabelShelf(studies / LABELS)
    assert dcmread(shelf.file(image_id, "final", "report")).Modality == "SR"
    with pytest.raises(UnknownLabel):
        shelf.file(image_id, "final", "segmentation")


def test_what_an_interrupted_save_leaves_is_swept_and_other_files_are_not(studies: Path, tmp_path: Path) -> None:
    store = opened(studies)
    image_id = by_modality(store)["CT"]
    store.save_label(
        image_id, str(mask_file(store, image_id, tmp_path / "m.nrrd")), "final", {"medreasoner": asdict(RECORD)}
    )
    folder = studies / LABELS / "final"
    kept = {path.name for path in folder.iterdir()}
    (folder / ".partial-abc").write_bytes(b"half")
    (folder / f"{image_id}.0123abcd.mask.nrrd").write_bytes(b"whole, but never named")
    (folder / "notes.txt").write_text("a person's")
    assert opened(studies).get_labeled_images() == [image_id]
    assert {path.name for path in folder.iterdir()} == kept | {"notes.txt"}


@pytest.mark.parametrize(
    ("image_id", "tag"), [("../evil", "final"), ("1.2.3", "../../evil"), ("1.2", "a/b"), ("", "x")]
)
def test_names_cannot_lead_out_of_the_folder(tmp_path: Path, image_id: str, tag: str) -> None:
    shelf = LabelShelf(tmp_path / "labels")
    with pytest.raises(MedReasonerError, match="cannot be the"):
        shelf.put(image_id, tag, {"mask.nrrd": b"x"}, {})
    assert list(tmp_path.rglob("*")) == []


def test_one_more_file_can_be_added(studies: Path, tmp_path: Path) -> None:
    store = opened(studies)
    path = projection(tmp_path, "MG")
    uid = store.add_image("anything", str(path), {})
    assert uid == dcmread(path).SeriesInstanceUID and uid in store.list_images()
    for file, match in ((path, "there already"), (studies / "dose", "not a DICOM image")):
        with pytest.raises(ImageError, match=match):
            store.add_image("anything", str(file), {})


def test_other_images_live_beside_the_series(studies: Path, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.eye(4)), scan)
    store = opened(studies)
    assert store.add_image("head", str(scan), {}) == "head"
    assert store.status()["total"] == 4 and "head" in store.list_images()
    mask = tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 5, 4), np.uint8), np.eye(4)), mask)
    store.save_label("head", str(mask), "final", {"medreasoner": asdict(RECORD)})
    series_id = by_modality(store)["DX"]
    store.save_label(
        series_id, str(mask_file(store, series_id, tmp_path / "m.nrrd")), "final", {"label_info": [{"name": "liver"}]}
    )
    assert store.get_labeled_images() == sorted([series_id, "head"])
    store.remove_image("head")
    assert opened(studies).get_labeled_images() == [series_id]
    with pytest.raises(MedReasonerError, match="deletes no studies"):
        store.remove_image(series_id)


def result(absent: bool = False) -> dict[str, Any]:
    """The params of a reply, as the gateway passes them on."""
    answer = GroundingResult(
        question=RECORD.question,
        reasoning="because",
        absent=absent,
        confidence=0.8,
        picture_size=(36, 53),
        axis="stored",
        slice_index=2,
        box=None if absent else RECORD.box,
        points=None if absent else RECORD.points,
        target="left kidney",
    )
    return {**json.loads(answer.to_json()), "label_names": {"left kidney": 1}, "latencies": {"total": 1.0}}


def test_answers_come_as_dicom_on_request(studies: Path, tmp_path: Path) -> None:
    store = opened(studies)
    image_id = by_modality(store)["CT"]
    mask = mask_file(store, image_id, tmp_path / "m.nrrd")
    for made, modality in (
        (dicom_seg(image_id, store, mask, result()), "SEG"),
        (dicom_sr(image_id, store, mask, result()), "SR"),
    ):
        assert made is not None
        (tmp_path / "made.dcm").write_bytes(made)
        assert dcmread(tmp_path / "made.dcm").Modality == modality
    image = open_image(Path(store.get_image_uri(image_id)))
    picture = image.picture("stored", 2)
    empty = write_mask(np.zeros((picture.height, picture.width), bool), picture, image, tmp_path / "empty.nrrd")
    assert dicom_seg(image_id, store, empty, result(absent=True)) is None
    assert dicom_sr(image_id, store, empty, result(absent=True))


def test_a_mask_saved_as_a_picture_fits_an_x_ray(studies: Path, tmp_path: Path) -> None:
    store = opened(studies)
    image_id = by_modality(store)["DX"]
    mask = mask_file(store, image_id, tmp_path / "mask.png")
    made = dicom_seg(image_id, store, mask, {**result(), "slice_index": 0})
    assert made is not None
    (tmp_path / "made.dcm").write_bytes(made)
    np.testing.assert_array_equal(dcmread(tmp_path / "made.dcm").pixel_array, np.asarray(Image.open(mask)) > 0)
    assert store.save_label(image_id, str(mask), "final", {"medreasoner": asdict(replace(RECORD, slice_index=0))})


def test_an_image_that_is_not_dicom_has_no_dicom_answer(tmp_path: Path) -> None:
    class Plain:
        def get_image_uri(self, image_id: str) -> str:
            return image_id

    scan, mask = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((36, 40, 5), np.int16), np.eye(4)), scan)
    nibabel.save(nibabel.Nifti1Image(np.ones((36, 40, 5), np.uint8), np.eye(4)), mask)
    with pytest.raises(ImageError, match="not a DICOM image"):
        dicom_seg(str(scan), Plain(), mask, result())  # type: ignore[arg-type]


def test_a_mask_in_a_turned_grid_is_laid_by_the_patients_millimetres(tmp_path: Path) -> None:
    """3D Slicer may hold slices the other way round and write masks cropped; SimpleITK turns and crops here."""
    image = open_image(series(tmp_path / "series", directions=ALIGNED))
    picture = image.picture("stored", 1)
    mask = np.zeros((picture.height, picture.width), bool)
    mask[8:24, 7:15] = True
    straight = write_mask(mask, picture, image, tmp_path / "m.nrrd")
    turned = sitk.Flip(sitk.ReadImage(str(straight)), [True, False, True])[3:, 2:36, :]
    sitk.WriteImage(turned, str(tmp_path / "turned.nrrd"))
    np.testing.assert_array_equal(mask_on_grid(tmp_path / "turned.nrrd", image), picture.mask_in_volume(mask) > 0)
