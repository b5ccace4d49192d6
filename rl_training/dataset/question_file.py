"""Read a folder of images and masks with a question file, as a hospital can write it by hand.

The file is CSV (comma or semicolon) or JSONL (an object a line), in UTF-8; `COLUMNS` says what each column means. Rows
that mean the same target on the same slice become one example with several questions.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from medreasoner.contract.errors import QuestionError
from medreasoner.contract.wire import AXES, checked_question
from medreasoner.evaluation.questions import SPLITS, STYLES, Entry
from rl_training.dataset.example import DataError, Example, View
from rl_training.dataset.masks import mask_volume, slice_axis
from rl_training.dataset.patients import patient_of
from rl_training.dataset.table import Row, read_table

COLUMNS = {
    "image": "image file or folder of a DICOM series, relative to the question file; required",
    "question": "what a clinician would ask; required",
    "mask": "mask file of the image's size or grid; left out where the target is absent",
    "target": "name of what is looked for; required, but for absent targets",
    "label": "value of the target in the mask; left out: every value but 0",
    "absent": "yes where the image does not show what the question asks for",
    "patient": "any id of the patient; left out: the PatientID of DICOM files",
    "split": "train, val or test; left out: prepare cuts by patient",
    "style": f"{', '.join(STYLES)}; left out: clinical",
    "axis": f"{', '.join(AXES)}; left out: the acquired plane",
    "slice": "slice counted from 0, or largest: the one that shows most of the mask",
    "window": "centre and width, as 40/400; left out: the file's own, else an automatic one",
    "modality": "DICOM code such as CT, MR, DX; left out: as the file says",
    "laterality": "left or right, of the patient; left out: neither",
    "dispersed": "yes where the target lies in many pieces, such as vessels; left out: judged by the mask",
    "appearance": "a sentence on how the target looks, for the reasoning",
    "source": "where the image is from; left out: the folder's name",
    "licence": "under which terms",
}
_HINT = f"the columns are {', '.join(COLUMNS)} (docs/train_on_your_data.md)"
_YES, _NO = {"yes", "true", "1"}, {"", "no", "false", "0"}
_SAME = ("image", "mask", "label", "axis", "slice", "window", "target", "absent", "patient", "split")


class QuestionFile:
    """The examples of one question file."""

    def __init__(self, path: Path, image_is_patient: bool = False) -> None:
        """Open a question file.

        Args:
            path: the file, or a folder that holds questions.csv or questions.jsonl.
            image_is_patient: where neither a row nor its image names the patient, take each image for a patient.

        Raises:
            DataError: no such file, not UTF-8, not a table, or unknown columns; names the line.
        """
        self.file, self._image_is_patient = _file_in(path), image_is_patient
        grouped: dict[tuple[str, ...], list[Row]] = {}
        for row in read_table(self.file, COLUMNS, _HINT):
            grouped.setdefault(tuple(row.values.get(name, "") for name in _SAME), []).append(row)
        self._examples = list(grouped.values())
        if not self._examples:
            raise DataError(f"{self.file} has no rows", _HINT)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        rows = self._examples[index]
        first = rows[0]
        image = self._path(first, "image")
        absent = _yes(first, "absent")
        name = first.values.get("target", "")
        if not name and not absent:
            raise first.error("has no target", "name what is looked for, or mark the row absent")
        if absent and first.values.get("mask"):
            raise first.error("is absent and has a mask", "leave out one of the two")
        appearance = next((row.values["appearance"] for row in rows if row.values.get("appearance")), "")
        by_style: dict[str, list[str]] = {style: [] for style in STYLES}
        for row in rows:
            by_style[_one_of(row, "style", STYLES, "clinical")].append(_question(row))
        example = Example(
            id=f"{self.file.parent.name}/{first.number}",
            where=first.where,
            image=image,
            questions=Entry(name, appearance, by_style),
            absent=absent,
            mask=None if absent else self._path(first, "mask"),
            group=patient_of(first, image, self._image_is_patient),
            split=_one_of(first, "split", SPLITS, ""),
            source=first.values.get("source") or self.file.resolve().parent.name,
            licence=first.values.get("licence", ""),
            modality=first.values.get("modality", "").upper(),
            laterality=_one_of(first, "laterality", ("left", "right"), ""),
            label=_whole(first, "label"),
            dispersed=_yes(first, "dispersed") if first.values.get("dispersed") else None,
            view=View(_one_of(first, "axis", AXES, "") or None, None, _window(first)),
        )
        return _on_slice(example, first)

    def _path(self, row: Row, column: str) -> Path:
        given = row.values.get(column, "")
        if not given:
            raise row.error(f"has no {column}", _HINT if column == "image" else "give its mask, or mark the row absent")
        path = self.file.parent / given
        if not path.exists():
            raise row.error(f"names the {column} {given}, which does not exist", f"paths start at {self.file.parent}")
        return path


def _file_in(path: Path) -> Path:
    found = [p for p in (path / "questions.csv", path / "questions.jsonl") if p.is_file()] if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        raise DataError(f"{path} is not one question file", "name the .csv or .jsonl file")
    return found[0]


def _on_slice(example: Example, row: Row) -> Example:
    """Say which slice is meant, now that the image may be opened."""
    if row.values.get("slice", "").lower() != "largest":
        return replace(example, view=replace(example.view, slice_index=_whole(row, "slice")))
    if not isinstance(example.mask, Path):
        raise row.error("wants the largest slice of a mask that it does not have", "give the slice, counted from 0")
    picture = example.picture()
    axis, _ = slice_axis(picture)
    counts = mask_volume(example, example.mask, picture).sum(axis=tuple(a for a in range(3) if a != axis))
    return replace(example, view=replace(example.view, slice_index=int(np.argmax(counts))))


def _question(row: Row) -> str:
    try:
        return checked_question(row.values.get("question", ""))
    except QuestionError as error:
        raise row.error(error.what, error.hint) from error


def _one_of(row: Row, column: str, known: tuple[str, ...], default: str) -> str:
    value = row.values.get(column, "").lower()
    if value and value not in known:
        raise row.error(f"has an unknown {column} {value[:40]!r}", f"use one of {', '.join(known)}, or leave it out")
    return value or default


def _yes(row: Row, column: str) -> bool:
    value = row.values.get(column, "").lower()
    if value not in _YES | _NO:
        raise row.error(f"has {value[:40]!r} for {column}", "write yes or no, or leave it out")
    return value in _YES


def _whole(row: Row, column: str) -> int | None:
    value = row.values.get(column, "")
    if value and not re.fullmatch(r"\d{1,6}", value):
        raise row.error(f"has {value[:40]!r} for {column}, which is not a whole number from 0", _HINT)
    return int(value) if value else None


def _window(row: Row) -> tuple[float, float] | None:
    value = row.values.get("window", "")
    if not value:
        return None
    try:
        centre, width = map(float, value.split("/"))
    except ValueError as error:
        raise row.error(f"has the window {value[:40]!r}", "write centre/width, such as 40/400") from error
    return centre, width
