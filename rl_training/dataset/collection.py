"""Read a collection in umrg-mini's layout, which is also what `rl_training.prepare` writes (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medreasoner.evaluation.cases import read_samples
from medreasoner.evaluation.kinds import dicom_modality, kind_of
from medreasoner.evaluation.questions import LAYOUT_HINT, SPLITS, STYLES, Entry, load_entries
from rl_training.dataset.example import DataError, Example, typed_place
from rl_training.questions import training_entries


class Collection:
    """The rows of samples.jsonl.

    A row's questions are its own, where it has `questions` (style -> wordings); else the share of its target's entry in
    questions.json that its split may use, and for training also the project's own (rl_training/questions).
    """

    def __init__(self, folder: Path, split: str = "", own_questions: bool = True) -> None:
        """Open a collection, all of it or one split; rows without any question are left out.

        Raises:
            ImageError, DataError: no collection, or a row of it with an unknown split.
        """
        self.folder = folder
        samples = read_samples(folder)
        for number, sample in enumerate(samples, start=1):
            if sample["split"] not in SPLITS:
                known = ", ".join(SPLITS)
                raise DataError(f"{_where(number, sample)}: unknown split {sample['split']!r}", f"use one of {known}")
        entries = {name: load_entries(folder, name) for name in SPLITS}
        if own_questions:
            entries["train"] = training_entries(folder)
        self._rows = [
            (number, sample, entry)
            for number, sample in enumerate(samples, start=1)
            if split in ("", sample["split"]) and (entry := _entry_of(sample, entries[sample["split"]])) is not None
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        number, sample, entry = self._rows[index]
        where, absent = _where(number, sample), bool(sample.get("absent"))
        box, points = (None, None) if absent else typed_place(sample["bbox"], sample["points"], where)
        for key in ("image", "mask"):
            if not isinstance(sample[key], str) or not sample[key]:
                raise DataError(f"{where}: has no {key}", LAYOUT_HINT)
        return Example(
            id=str(sample.get("id", number)),
            where=where,
            image=self.folder / sample["image"],
            questions=entry,
            absent=absent,
            mask=None if absent else self.folder / sample["mask"],
            box=box,
            points=points,
            group=str(sample.get("group") or sample["image"]),
            split=sample["split"],
            source=sample["source"],
            licence=str(sample.get("licence") or ""),
            modality=sample.get("modality_code") or dicom_modality(sample),
            laterality=str(sample.get("laterality") or ""),
            dispersed=bool(sample["dispersed"]),
            kind=kind_of(sample),
        )


def _where(number: int, sample: Mapping[str, Any]) -> str:
    return f"samples.jsonl line {number} ({str(sample.get('id', sample['image']))[:80]})"


def _entry_of(sample: Mapping[str, Any], entries: Mapping[str, Entry]) -> Entry | None:
    """Return the questions that mean this sample, or None where there are none."""
    name = sample["question_key"] or sample["category"]
    own = sample.get("questions")
    if own:
        return Entry(name, str(sample.get("appearance") or ""), {style: list(own.get(style, [])) for style in STYLES})
    entry = entries.get(name)
    return entry if entry is not None and any(entry.by_style.values()) else None
