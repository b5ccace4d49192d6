"""Read the labels that people have saved on a server's folder of studies, so that the next reasoner learns from them.

    studies/IMAGE.nii.gz                            or .nrrd, .png ..., or a folder of the DICOM series IMAGE
    studies/medreasoner_labels/TAG/IMAGE.json       {"files": {"mask": NAME}, "info": {"medreasoner": LabelRecord}}
    studies/medreasoner_labels/TAG/NAME             the mask, on the grid of the image

The server writes this layout (monailabel_app/lib/datastore); training never imports the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.evaluation.questions import STYLES, Entry
from rl_training.dataset.example import DataError, Example, View
from rl_training.dataset.patients import recorded_patient, series_folders

SHELF = "medreasoner_labels"
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_HINT = "save the label again, or take its file away"


@dataclass(frozen=True)
class SavedLabel:
    """An image, the mask that was saved for it, and the record beside it as JSON."""

    image: Path
    mask: Path
    record: str
    where: str


class SavedLabels:
    """The examples of saved labels: one each, with the question that was asked.

    Box and points are made from the mask, which is what the person looked at last.
    """

    def __init__(self, labels: Sequence[SavedLabel]) -> None:
        """Take labels from wherever they are; raises `DataError` where there is none."""
        if not labels:
            raise DataError("there are no saved labels", "save some in Slicer, or check the folder and the tag")
        self._labels = list(labels)

    @classmethod
    def of_studies(cls, studies: Path, tag: str = "final") -> SavedLabels:
        """Find the labels with this tag in a server's folder; raises `DataError` naming one that is damaged."""
        entries = sorted((studies / SHELF / tag).glob("[!.]*.json"))
        series = series_folders(studies) if entries else {}
        return cls([_label(studies, entry, series) for entry in entries])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        label = self._labels[index]
        try:
            record = LabelRecord.from_json(label.record)
        except MedReasonerError as error:
            raise DataError(f"{label.where}: its record: {error.what}", error.hint) from error
        if not record.question:
            raise DataError(f"{label.where}: nobody asked a question, so it teaches none", "leave it out")
        return Example(
            id=f"label/{label.image.name}",
            where=label.where,
            image=label.image,
            questions=Entry(record.target, "", {**{style: [] for style in STYLES}, "clinical": [record.question]}),
            absent=record.absent,
            mask=None if record.absent else label.mask,
            group=recorded_patient(label.image) or label.image.name,
            source="saved labels",
            view=View(None if record.axis == "oblique" else record.axis, record.slice_index, record.window),
        )


def _label(studies: Path, entry: Path, series: Mapping[str, Path]) -> SavedLabel:
    where = f"label {entry.parent.name}/{entry.name}"
    try:
        saved = json.loads(entry.read_text(encoding="utf-8"))
        mask, record = entry.parent / saved["files"]["mask"], saved["info"]["medreasoner"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where} cannot be read: {error!r}", _HINT) from error
    image = entry.name.removesuffix(".json")
    named = [p for p in studies.iterdir() if p.name in (image, *(f"{image}{ending}" for ending in _ENDINGS))]
    found = named if named or image not in series else [series[image]]
    if len(found) != 1:
        raise DataError(
            f"{where}: {len(found)} images are called {image}", "keep the one it was drawn on, each series in a folder"
        )
    return SavedLabel(found[0], mask, json.dumps(record), where)
