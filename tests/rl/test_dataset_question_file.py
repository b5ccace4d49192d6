"""A hospital's question file: what it may say, and which line is to blame when it cannot be used."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from medreasoner.imaging import open_image
from rl_training.dataset import DataError, Example, QuestionFile
from rl_training.dataset.masks import mask_on
from rl_training.dataset.practice import make_folder

HEAD = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("hospital") / "spine-ct")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a real head with the mask of its bright parts, on the same grid and on turned ones."""
    folder = tmp_path_factory.mktemp("volume")
    head: Any = nibabel.load(HEAD)
    nibabel.save(head, folder / "head.nii.gz")
    values = np.asarray(head.dataobj)
    bright = np.where(values > np.percentile(values, 90), 2, 0).astype(np.uint8)
    bright[:5] = 1  # another label
    nibabel.save(nibabel.Nifti1Image(bright, head.affine), folder / "mask.nii.gz")
    for codes in ("RAS", "SPL", "AIL"):
        turn = ornt_transform(nibabel.io_orientation(head.affine), axcodes2ornt(codes))
        affine = head.affine @ inv_ornt_aff(turn, bright.shape)
        nibabel.save(nibabel.Nifti1Image(apply_orientation(bright, turn), affine), folder / f"mask-{codes}.nii.gz")
    shifted = head.affine.copy()
    shifted[:3, 3] += 2 * head.affine[:3, 0]
    nibabel.save(nibabel.Nifti1Image(bright, shifted), folder / "mask-shifted.nii.gz")
    nibabel.save(nibabel.Nifti1Image(bright[:-1], head.affine), folder / "mask-smaller.nii.gz")
    return folder


def write(folder: Path, *rows: dict[str, str], name: str = "rows.csv") -> QuestionFile:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / name).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return QuestionFile(folder / name)


AORTA = {"image": "images/01.dcm", "mask": "masks/01-aorta.png", "target": "aorta", "question": "Which vessel?"}
HEAD_ROW = {
    "image": "head.nii.gz",
    "mask": "mask.nii.gz",
    "target": "fat",
    "question": "What is bright?",
    "patient": "a",
}


def test_rows_about_one_target_become_one_example(hospital: Path) -> None:
    reader = QuestionFile(hospital)
    assert len(reader) == 36
    example = reader[1]
    assert example.target == "aorta" and example.group == "practice-01" and example.split == ""
    assert {style: len(wordings) for style, wordings in example.questions.by_style.items()} == {
        "implicit": 1,
        "visual": 1,
        "clinical": 0,
        "terse": 0,
        "explicit": 1,
    }


def test_everything_a_row_may_say(hospital: Path) -> None:
    said = {
        **AORTA,
        "patient": "p 7",
        "split": "val",
        "style": "Terse",
        "window": "300/1500",
        "modality": "ct",
        "laterality": "left",
        "appearance": "It is round.",
        "source": "ward 3",
        "licence": "in-house",
        "dispersed": "yes",
        "label": "255",
        "axis": "stored",
        "slice": "0",
    }
    example = write(hospital, said)[0]
    assert (example.group, example.split, example.modality, example.laterality) == ("p 7", "val", "CT", "left")
    assert (example.source, example.licence, example.dispersed) == ("ward 3", "in-house", True)
    assert example.questions.appearance == "It is round." and example.questions.by_style["terse"] == ["Which vessel?"]
    picture = example.picture()
    assert picture.window == (300.0, 1500.0)
    mask = mask_on(example, picture)
    assert mask is not None and np.array_equal(mask, np.asarray(Image.open(hospital / "masks" / "01-aorta.png")) > 0)


@pytest.mark.parametrize(
    "write_text",
    [
        lambda rows: "\ufeffimage;mask;target;question\n" + "\n".join(";".join(r.values()) for r in rows),
        lambda rows: "image,mask,target,question\r\n" + "\r\n".join(",".join(r.values()) for r in rows),
    ],
    ids=["semicolons and a mark, as spreadsheets write", "commas and carriage returns"],
)
def test_spreadsheets_may_write_it(hospital: Path, write_text: Callable[[list[dict[str, str]]], str]) -> None:
    (hospital / "sheet.csv").write_text(write_text([AORTA]), encoding="utf-8")
    assert QuestionFile(hospital / "sheet.csv")[0].target == "aorta"


def test_json_lines_say_the_same(hospital: Path) -> None:
    row = {**AORTA, "window": [40, 400], "absent": False, "slice": None, "label": 255}
    (hospital / "rows.jsonl").write_text(json.dumps(row) + "\n\n")
    example = QuestionFile(hospital / "rows.jsonl")[0]
    assert example.view.window == (40.0, 400.0) and example.label == 255 and example.view.slice_index is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"image": ""}, "line 2: has no image"),
        ({"image": "images/99.dcm"}, r"line 2: names the image images/99\.dcm, which does not exist"),
        ({"mask": ""}, "line 2: has no mask"),
        ({"mask": "masks/none.png"}, "line 2: names the mask"),
        ({"question": "  "}, "line 2: the question is empty"),
        ({"question": "x" * 2001}, "line 2: the question has 2,001 characters"),
        ({"target": ""}, "line 2: has no target"),
        ({"split": "training"}, "line 2: has an unknown split 'training'"),
        ({"style": "poetic"}, "line 2: has an unknown style"),
        ({"laterality": "both"}, "line 2: has an unknown laterality"),
        ({"absent": "perhaps"}, "line 2: has 'perhaps' for absent"),
        ({"absent": "yes"}, "line 2: is absent and has a mask"),
        ({"slice": "-1"}, "line 2: has '-1' for slice"),
        ({"label": "aorta"}, "line 2: has 'aorta' for label"),
        ({"window": "40"}, "line 2: has the window '40'"),
        ({"pateint": "7"}, "line 2: has the unknown columns pateint"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_row_is_named(hospital: Path, change: dict[str, str], what: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.csv {what}"):
        write(hospital, {**AORTA, **change})[0]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("q.csv", b"image,question\na.png,caf\xe9?\n", "q.csv line 2 is not UTF-8"),
        ("q.jsonl", b'{"image": "a.png"}\n{"question": "\xff"}\n', "q.jsonl line 2 is not UTF-8"),
        ("q.csv", b'image,question\n"a.png,x\n', "q.csv line 2 is not CSV"),
        ("q.csv", b"image,question\na.png,what, now?\n", "q.csv line 2: has more fields"),
        ("q.jsonl", b'{"image": "a.png"}\n{"image"\n', "q.jsonl line 2: is not JSON"),
        ("q.jsonl", b"[1]\n", "q.jsonl line 1: is not a JSON object"),
        ("q.csv", b"image,question\n", "q.csv has no rows"),
        ("q.csv", b"", "q.csv has no rows"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=what):
        QuestionFile(tmp_path / name)


def test_a_folder_needs_one_question_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not one question file"):
        QuestionFile(tmp_path)
    for name in ("questions.csv", "questions.jsonl"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match="is not one question file"):
        QuestionFile(tmp_path)


def test_a_missing_patient_is_an_error_unless_images_are_patients(hospital: Path) -> None:
    Image.new("RGB", (8, 8), "white").save(hospital / "photo.png")
    Image.new("L", (8, 8), 255).save(hospital / "photo-mask.png")
    row = {**AORTA, "image": "photo.png", "mask": "photo-mask.png"}
    with pytest.raises(DataError, match=r"(?s)line 2: has no patient.*patient column.*--image-is-patient"):
        write(hospital, row)[0]
    assert QuestionFile(hospital / "rows.csv", image_is_patient=True)[0].group == "photo.png"


def test_the_patient_of_a_series_folder_is_found(hospital: Path) -> None:
    (hospital / "series").mkdir()
    (hospital / "series" / "README").write_text("not DICOM")
    (hospital / "series" / "x.dcm").write_bytes((hospital / "images" / "05.dcm").read_bytes())
    assert write(hospital, {**AORTA, "image": "series"})[0].group == "practice-05"


def drawn(example: Example) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    picture = example.picture()
    mask = mask_on(example, picture)
    assert mask is not None
    return picture.pixels[..., 0], mask


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "stored"])
@pytest.mark.parametrize("codes", ["RAS", "SPL", "AIL"])
def test_masks_on_turned_grids_lie_where_the_same_mask_on_the_image_grid_lies(
    volume: Path, axis: str, codes: str
) -> None:
    row = {**HEAD_ROW, "axis": axis, "slice": "11", "label": "2"}
    grey, mask = drawn(write(volume, row)[0])
    _, turned = drawn(write(volume, {**row, "mask": f"mask-{codes}.nii.gz"})[0])
    assert np.array_equal(mask, turned), "nibabel turned it"
    assert grey[mask].mean() > grey[~mask].mean() + 40, "it lies on what is bright"


def test_largest_is_the_slice_that_shows_most(volume: Path) -> None:
    for axis in ("axial", "sagittal"):
        example = write(volume, {**HEAD_ROW, "axis": axis, "slice": "largest", "label": "2"})[0]
        chosen = example.view.slice_index
        count = open_image(volume / "head.nii.gz").slice_count(axis)
        sizes = []
        for index in range(count):
            try:
                row = {**HEAD_ROW, "axis": axis, "slice": str(index), "label": "2"}
                sizes.append(int(drawn(write(volume, row)[0])[1].sum()))
            except DataError:  # this slice shows nothing
                sizes.append(0)
        assert chosen is not None and sizes[chosen] == max(sizes)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, "rows.csv line 2: the image is a volume and the row does not say which slice is meant"),
        ({"absent": "yes", "mask": ""}, "rows.csv line 2: the image is a volume and the row does not say which"),
        ({"slice": "900"}, "rows.csv line 2: slice 900 of head.nii.gz does not exist"),
        ({"slice": "3", "label": "9"}, "rows.csv line 2: the mask is empty on axial slice 3"),
        ({"slice": "3", "mask": "mask-shifted.nii.gz"}, "rows.csv line 2: the mask lies on another grid"),
        ({"slice": "3", "mask": "mask-smaller.nii.gz"}, "rows.csv line 2: the mask is 32 x 41 x 25, its image 33 x"),
        ({"slice": "largest", "mask": "", "absent": "yes", "target": ""}, "line 2: wants the largest slice of a mask"),
        ({"slice": "3", "mask": "broken.nii.gz"}, "rows.csv line 2: mask: broken.nii.gz"),
        ({"slice": "3", "mask": "mask.jpg"}, "rows.csv line 2: the mask mask.jpg is a JPEG"),
        ({"slice": "3", "mask": "colour.png", "label": "2"}, "rows.csv line 2: the mask is 33 x 41 x 1, its image"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_volumes_and_masks_that_do_not_fit_are_named(volume: Path, change: dict[str, str], what: str) -> None:
    (volume / "broken.nii.gz").write_bytes(b"no image at all")
    Image.new("L", (33, 41)).save(volume / "mask.jpg")
    Image.new("RGB", (33, 41)).save(volume / "colour.png")
    with pytest.raises(DataError, match=what):
        drawn(write(volume, {**HEAD_ROW, **change})[0])


def test_a_mask_in_colour_has_no_labels(hospital: Path) -> None:
    red = np.zeros((104, 104, 3), np.uint8)
    red[20:40, 30:60, 0] = 200
    Image.fromarray(red).save(hospital / "red.png")
    _, mask = drawn(write(hospital, {**AORTA, "mask": "red.png"})[0])
    assert np.array_equal(mask, red[..., 0] > 0)
    with pytest.raises(DataError, match=r"line 2: the mask red\.png is in colour"):
        drawn(write(hospital, {**AORTA, "mask": "red.png", "label": "200"})[0])
