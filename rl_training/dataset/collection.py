"""Read a collection in umrg-mini's layout, which is also what `rl_training.prepare` writes (docs/evaluation.md)."""

from __future__ import annotations

from pathlib import Path

from medreasoner.evaluation.cases import Sample, read_samples
from medreasoner.evaluation.kinds import dicom_modality, kind_of
from medreasoner.evaluation.questions import LAYOUT_HINT, SPLITS, Entry, entry_of, load_entries
from rl_training.dataset.example import DataError, Example, typed_place
from rl_training.questions import training_entries


class Collection:
    """The rows of samples.jsonl.

    A row's questions are its own, where it has `questions` (style -> wordings); else the share of its target's entry in
    questions.json that its split may use, and for training also the project's own (rl_training/questions).
    """

    def __init__(self, folder: Path, split: str = "", project_questions: bool = True) -> None:
        """Open a collection; rows without any question are left out.

        Args:
            folder: with samples.jsonl, questions.json and absent_questions.json.
            split: only this one; empty: all.
            project_questions: let the training split have the project's own questions too.

        Raises:
            ImageError, DataError: no collection, or a row of it with an unknown split.
        """
        self.folder = folder
        entries = {name: load_entries(folder, name) for name in SPLITS}
        if project_questions:
            entries["train"] = training_entries(folder)
        self._rows: list[tuple[int, Sample, Entry]] = []
        for number, sample in enumerate(read_samples(folder), start=1):
            if sample["split"] not in SPLITS:
                known = ", ".join(SPLITS)
                raise DataError(f"{_where(number, sample)}: unknown split {sample['split']!r}", f"use one of {known}")
            entry = entry_of(sample, entries[sample["split"]])
            if split in ("", sample["split"]) and entry is not None and any(entry.by_style.values()):
                self._rows.append((number, sample, entry))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        number, sample, entry = self._rows[index]
        where, absent = _where(number, sample), bool(sample.get("absent"))
        box, points = (None, None) if absent else typed_place(sample["bbox"], sample["points"], where)
        if not isinstance(sample["image"], str) or not sample["image"]:
            raise DataError(f"{where}: has no image", LAYOUT_HINT)
        return Example(
            id=str(sample.get("id", number)),
            where=where,
            image=self.folder / sample["image"],
            questions=entry,
            absent=absent,
            mask=self.folder / sample["mask"] if sample["mask"] and not absent else None,
            box=box,
            points=points,
            group=str(sample.get("group") or sample["image"]),
            split=sample["split"],
            source=sample["source"],
            licence=str(sample.get("licence") or ""),
            modality=sample.get("modality_code") or dicom_modality(sample),
            laterality=str(sample.get("laterality") or ""),
            dispersed=bool(sample["dispersed"]),
            shared_questions=not sample.get("questions"),
            kind=kind_of(sample),
        )


def _where(number: int, sample: Sample) -> str:
    return f"samples.jsonl line {number} ({str(sample.get('id', sample['image']))[:80]})"
