"""Read U-MRG-14K's published parquet files.

Columns: `data_source`, `prompt` [{role, content}] with the bare question, `images` [{bytes}], `masks` [{bytes}] (in
the test file only), `reward_model` {ground_truth: JSON of bbox_2d and point_2d}, `extra_info` {id, category, ...}.
Boxes and points are whole pixels of the stored square picture, x right, y down.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import QuestionError
from medreasoner.contract.wire import checked_question
from medreasoner.evaluation.questions import SPLITS, STYLES, Entry
from rl_training.dataset.example import DataError, Example, typed_place

LICENCE = "U-MRG-14K: see its page for the terms of each source"
_COLUMNS = {"prompt", "images", "reward_model", "extra_info"}
_HINT = "give U-MRG-14K's parquet files as published (docs/train_on_your_data.md)"
_MODALITIES = {  # words in the file names of its pictures, BiomedParse's, to DICOM codes
    "CT": "CT",
    "MRI": "MR",
    "X-Ray": "DX",
    "ultrasound": "US",
    "endoscope": "ES",
    "fundus": "OP",
    "OCT": "OPT",
    "dermoscopy": "DMS",
    "pathology": "SM",
    "mammography": "MG",
}


class UmrgParquet:
    """The rows of one or more parquet files; a file's name (train.parquet, test-00000.parquet) gives its split."""

    def __init__(self, path: Path, patient_pattern: str = "") -> None:
        """Open a file, or all files of a folder.

        Args:
            path: a .parquet file or a folder of them.
            patient_pattern: regular expression whose first group, found in a row's id, names the patient; without one,
                rows with the same picture are one group.

        Raises:
            DataError: no such file, not parquet, or other columns.
        """
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds no .parquet file", _HINT)
        self._pattern = re.compile(patient_pattern) if patient_pattern else None
        self._files = [(file, _opened(file)) for file in files]
        self._index: list[tuple[int, int, int, int]] = []  # file, row group, row in the group, row in the file
        for f, (_, parquet) in enumerate(self._files):
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            rows = ((group, row) for group, size in enumerate(sizes) for row in range(size))
            self._index += [(f, group, row, number) for number, (group, row) in enumerate(rows)]
        self._kept: tuple[tuple[int, int], Any] = ((-1, -1), None)  # the whole of U-MRG-14K is too large for memory

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Example:
        f, group, row, number = self._index[index]
        file, parquet = self._files[f]
        if self._kept[0] != (f, group):
            self._kept = (f, group), parquet.read_row_group(group)
        at = f"{file.name} row {number}"
        try:
            values: dict[str, Any] = self._kept[1].slice(row, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            raise DataError(f"{at}: its text is not UTF-8", "write the file again with UTF-8 text") from error
        extra = values["extra_info"] if isinstance(values["extra_info"], dict) else {}
        name = str(extra.get("id") or index)
        where = f"{at} ({name[:80]})"
        box, points = _place(values["reward_model"], where)
        category = str(extra.get("category") or "").strip()
        modality = next((code for word, code in _MODALITIES.items() if f"_{word}_" in f"_{name}_"), "")
        return Example(
            id=f"{file.stem}/{name}",
            where=where,
            image=_bytes(values["images"], "image", where),
            questions=Entry(
                category, "", {**{s: [] for s in STYLES}, "implicit": [_question(values["prompt"], where)]}
            ),
            mask=_bytes(values["masks"], "mask", where) if values.get("masks") else None,
            box=box,
            points=points,
            group=self._group(name, where),
            split=_split_of(file),
            source="u-mrg-14k",
            licence=LICENCE,
            modality=modality,
            laterality=next((side for side in ("left", "right") if side in category.lower().split()), ""),
        )

    def _group(self, name: str, where: str) -> str:
        if self._pattern is None:
            return ""
        found = self._pattern.search(name)
        if found is None or not found.groups() or not found[1]:
            raise DataError(f"{where}: the patient pattern {self._pattern.pattern!r} finds nothing in its id", _HINT)
        return found[1]


def _opened(file: Path) -> Any:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        parquet: Any = ParquetFile(file)  # type: ignore[no-untyped-call]
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {str(error)[:200]}", _HINT) from error
    lacking = sorted(_COLUMNS - set(parquet.schema_arrow.names))
    if lacking:
        raise DataError(f"{file} lacks the columns {', '.join(lacking)}", _HINT)
    return parquet


def _split_of(file: Path) -> str:
    """Return the split that the file's name begins with; "validation" is val, anything else is not split yet."""
    return next((split for split in SPLITS if file.stem.lower().startswith(split)), "")


def _bytes(images: Any, what: str, where: str) -> bytes:
    """Return the bytes of the first of a row's pictures, stored as `datasets` does ({bytes, path}) or bare."""
    first = images[0] if isinstance(images, list) and images else images
    encoded = first.get("bytes") if isinstance(first, dict) else first
    if not isinstance(encoded, bytes) or not encoded:
        raise DataError(f"{where}: has no {what}", "leave the row out, or repair the file")
    return encoded


def _question(prompt: Any, where: str) -> str:
    turn = prompt[0] if isinstance(prompt, list) and prompt else None
    content = turn.get("content") if isinstance(turn, dict) else None
    try:
        return checked_question(str(content or "").replace("<image>", ""))
    except QuestionError as error:
        raise DataError(f"{where}: {error.what}", error.hint) from error


def _place(reward: Any, where: str) -> Any:
    try:
        fields = json.loads(reward["ground_truth"])
        box, points = fields["bbox_2d"], fields["point_2d"]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{where}: its reward_model has no ground_truth with bbox_2d and point_2d", _HINT) from error
    return typed_place(box, points, where)
