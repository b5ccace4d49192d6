"""What the server saved is what the next reasoner is trained on; the server's own datastore writes it here."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from medreasoner.contract.label import LabelRecord
from medreasoner.imaging import open_image, write_mask
from monailabel_app.lib.datastore.label_shelf import FOLDER, LabelShelf
from monailabel_app.lib.datastore.local import open_local
from rl_training.dataset import DataError, SavedLabels
from rl_training.dataset.masks import mask_on
from rl_training.dataset.patients import recorded_patient
from rl_training.dataset.practice import make_folder
from rl_training.dataset.prepared import new_folder
from rl_training.dataset.saved_labels import SHELF
from rl_training.prepare import open_reader, prepare

HEAD = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
RECORD = LabelRecord(
    question="What is bright here?",
    absent=False,
    axis="coronal",
    slice_index=15,
    target="fat",
    window=(8000.0, 16000.0),
    box=[1.0, 1.0, 5.0, 5.0],  # as the reasoner had it, before a person drew another mask
    points=[[2.0, 2.0], [3.0, 3.0]],
    author="a.reader",
    reasoning="This is a brain MRI. The question points to the fat. On T1 it is bright. Here it is small and lies in "
    "the upper left part of the image.",
)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Save the labels of three heads through the server's datastore: two drawn, one absent."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.nii").write_bytes(HEAD.read_bytes())
    store = open_local(folder)
    for name in ("one", "two"):
        image = open_image(folder / f"{name}.nii")
        picture = image.picture(RECORD.axis, RECORD.slice_index, RECORD.window)
        mask = picture.pixels[..., 0] > np.percentile(picture.pixels, 80)
        write_mask(mask, picture, image, tmp_path / "mask.nii.gz")
        store.save_label(name, str(tmp_path / "mask.nii.gz"), "final", {"medreasoner": asdict(RECORD)})
    write_mask(np.zeros_like(mask), picture, image, tmp_path / "mask.nii.gz")
    absent = replace(RECORD, absent=True, box=None, points=None, target="gallbladder", question="Where is bile kept?")
    absent = replace(
        absent, reasoning="This is a brain MRI. The question asks about the gallbladder, which cannot be seen."
    )
    store.save_label("three", str(tmp_path / "mask.nii.gz"), "final", {"medreasoner": asdict(absent)})
    return folder


def test_the_shelf_is_where_the_server_puts_it() -> None:
    assert SHELF == FOLDER


def test_saved_labels_become_examples(studies: Path) -> None:
    reader = SavedLabels.of_studies(studies)
    one, three, two = (reader[index] for index in range(len(reader)))
    assert (one.kind, one.questions.appearance) == ("brain MRI", "On T1 it is bright.")
    assert (three.kind, three.questions.appearance) == ("brain MRI", "")
    assert one.group == two.group == three.group, "the same file under three names is one patient"
    assert one.target == "fat" and one.questions.by_style["clinical"] == ["What is bright here?"]
    picture = one.picture()
    assert (picture.axis, picture.slice_index, picture.window) == ("coronal", 15, (8000.0, 16000.0))
    mask = mask_on(one, picture)
    assert mask is not None and np.array_equal(mask, picture.pixels[..., 0] > np.percentile(picture.pixels, 80))
    assert three.absent and three.mask is None and three.questions.by_style["clinical"] == ["Where is bile kept?"]


def test_they_can_be_prepared_and_the_drawn_mask_counts(studies: Path) -> None:
    card = prepare(open_reader(studies), studies, None, {"train": 1.0, "val": 0.0, "test": 0.0})
    assert card["boxes_and_points"] == {"made from the mask": 2, "absent": 1}
    assert card["sources"]["saved labels"]["examples"] == 3


def test_a_prepared_folder_names_no_image_for_those_are_often_named_after_patients(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = studies / SHELF / "final"
    for name, patient in (("one", "DOE_JANE"), ("two", "DOE_JOHN")):
        (studies / f"{name}.nii").rename(studies / f"{patient}.nii")
        (shelf / f"{name}.json").rename(shelf / f"{patient}.json")
    head: Any = nibabel.load(HEAD)
    voxels = np.array(head.dataobj)
    voxels[16, 15, 12] = voxels.max()
    nibabel.save(type(head)(voxels, head.affine), studies / "DOE_JOHN.nii")  # another patient who looks alike
    with new_folder(tmp_path / "out") as folder:
        card = prepare(open_reader(studies), studies, folder, {"train": 0.5, "val": 0.0, "test": 0.5})
    assert card["checks"]["pictures_alike_in_two_splits"] == 1
    assert "DOE_JOHN" in capsys.readouterr().out  # who prepares is told what to look at
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert not [file for file in written if b"DOE" in file.read_bytes() or "DOE" in file.name]


def test_labels_of_dicom_series_find_their_folder(tmp_path: Path) -> None:
    hospital = make_folder(tmp_path / "hospital")
    folder = tmp_path / "studies" / "deep" / "series"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes((hospital / "images" / "04.dcm").read_bytes())
    image = open_image(folder)
    picture = image.picture()
    write_mask(picture.pixels[..., 0] > 200, picture, image, tmp_path / "mask.nii.gz")
    uid = str(pydicom.dcmread(folder / "a", stop_before_pixels=True).SeriesInstanceUID)
    record = replace(RECORD, axis="stored", slice_index=0, window=None)
    shelf = LabelShelf(tmp_path / "studies" / SHELF)
    content = {"mask.nii.gz": (tmp_path / "mask.nii.gz").read_bytes()}
    shelf.put(uid, "final", content, {"medreasoner": asdict(record)})
    example = SavedLabels.of_studies(tmp_path / "studies")[0]
    assert (example.image, example.group) == (folder, "practice-04")
    mask = mask_on(example, example.picture())
    assert mask is not None and np.array_equal(mask, picture.pixels[..., 0] > 200)


@pytest.mark.parametrize("end", [141, 153])  # bytes: within a group's length, within an attribute's name
def test_a_damaged_dicom_file_beside_them_stops_nothing(studies: Path, end: int) -> None:
    whole = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    (studies / "cut.dcm").write_bytes(whole[:end])
    assert len(SavedLabels.of_studies(studies)) == 3
    assert recorded_patient(studies / "cut.dcm") == ""


def test_a_label_without_a_question_teaches_nothing(studies: Path) -> None:
    entry = studies / SHELF / "final" / "one.json"
    saved = json.loads(entry.read_text())
    saved["info"]["medreasoner"] |= {"question": ""}
    entry.write_text(json.dumps(saved))
    with pytest.raises(DataError, match=r"label final/one\.json: nobody asked"):
        SavedLabels.of_studies(studies)[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", r"label final/one\.json cannot be read"),
        ('{"files": {}, "info": {}}', r"label final/one\.json cannot be read"),
        ('{"files": {"mask": "x"}, "info": {"medreasoner": {"question": 3}}}', r"label final/one\.json: its record"),
    ],
)
def test_a_damaged_label_is_named(studies: Path, text: str, what: str) -> None:
    (studies / SHELF / "final" / "one.json").write_text(text)

    def use() -> None:
        SavedLabels.of_studies(studies)[0]

    with pytest.raises(DataError, match=what):
        use()


def test_a_label_whose_image_is_gone_is_named(studies: Path) -> None:
    (studies / "one.nii").unlink()
    with pytest.raises(DataError, match=r"label final/one\.json: 0 images are called one"):
        SavedLabels.of_studies(studies)[0]


def test_no_labels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no saved labels"):
        SavedLabels.of_studies(tmp_path)
