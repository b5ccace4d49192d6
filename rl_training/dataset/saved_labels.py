"""Read the labels that people have saved on a server's folder of studies, so that the next reasoner learns from them.

    studies/IMAGE.nii.gz                            or .nrrd, .png ..., or a folder of the DICOM series IMAGE
    studies/medreasoner_labels/TAG/IMAGE.json       {"files": {"mask": NAME}, "info": {"medreasoner": LabelRecord}}
    studies/medreasoner_labels/TAG/NAME             the mask, on the grid of the image

The server writes this layout (monailabel_app/lib/datastore); training never imports the server.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.evaluation.questions import STYLES, Entry
from rl_training.dataset.example import DataError, Example, View
from rl_training.dataset.patients import recorded_patient, series_folders

SHELF = "medreasoner_labels"
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_HINT = "save the label again, or take its file away"
# What the reasoner wrote (rl_training/reasoning.py); other reasoners word it freely.
_SAID = re.compile(
    r"This is an? (?P<kind>.+?)\. The question (points to|asks about) (the )?(?P<name>.+?)[.,] (?P<rest>.*)"
)
_LOOKS = re.compile(r"(?P<looks>.+?) Here it is ")


@dataclass(frozen=True)
class SavedLabel:
    """An image, the mask that was saved for it, and the record beside it as JSON."""

    image: Path
    mask: Path
    record: str
    where: str


@dataclass(frozen=True)
class _Entry:
    """A label's file on the shelf, not yet read."""

    studies: Path
    file: Path
    series: Mapping[str, Path]

    def read(self) -> SavedLabel:
        """Raises `DataError` naming a label that is damaged, or whose image is gone."""
        where = f"label {self.file.parent.name}/{self.file.name}"
        try:
            saved = json.loads(self.file.read_text(encoding="utf-8"))
            mask, record = self.file.parent / saved["files"]["mask"], saved["info"]["medreasoner"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{where} cannot be read: {error!r}", _HINT) from error
        image = self.file.name.removesuffix(".json")
        known = (image, *(f"{image}{ending}" for ending in _ENDINGS))
        named = [p for name in known if (p := self.studies / name).exists()]
        found = named if named or image not in self.series else [self.series[image]]
        if len(found) != 1:
            raise DataError(
                f"{where}: {len(found)} images are called {image}",
                "keep the one it was drawn on, each series in a folder",
            )
        return SavedLabel(found[0], mask, json.dumps(record), where)


class SavedLabels:
    """The examples of saved labels: one each, with the question that was asked.

    Box and points are made from the mask, which is what the person looked at last.
    """

    def __init__(self, labels: Sequence[SavedLabel | _Entry]) -> None:
        """Take labels from wherever they are; raises `DataError` where there is none."""
        if not labels:
            raise DataError("there are no saved labels", "save some in Slicer, or check the folder and the tag")
        self._labels = list(labels)

    @classmethod
    def of_studies(cls, studies: Path, tag: str = "final") -> SavedLabels:
        """Find the labels with this tag in a server's folder; one that is damaged is named when it is asked for."""
        entries = sorted((studies / SHELF / tag).glob("[!.]*.json"))
        series = series_folders(studies) if entries else {}
        return cls([_Entry(studies, entry, series) for entry in entries])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        entry = self._labels[index]
        label = entry.read() if isinstance(entry, _Entry) else entry
        try:
            record = LabelRecord.from_json(label.record)
        except MedReasonerError as error:
            raise DataError(f"{label.where}: its record: {error.what}", error.hint) from error
        if not record.question:
            raise DataError(f"{label.where}: nobody asked a question, so it teaches none", "leave it out")
        kind, looks = _said(record)
        return Example(
            id=f"label/{index + 1}",  # an image is often named after its patient
            where=label.where,
            image=label.image,
            questions=Entry(record.target, looks, {**{style: [] for style in STYLES}, "clinical": [record.question]}),
            absent=record.absent,
            mask=None if record.absent else label.mask,
            group=recorded_patient(label.image) or _content(label.image),
            source="saved labels",
            view=View(None if record.axis == "oblique" else record.axis, record.slice_index, record.window),
            kind=kind,
        )


def _said(record: LabelRecord) -> tuple[str, str]:
    """Return the kind of image and the looks of the target as the reasoner worded them, where the target still stands.

    They are taught again as they were: a correction moves the mask, and nothing else is to be unlearnt.
    """
    said = _SAID.match(record.reasoning)
    if said is None:
        return "", ""
    looks = _LOOKS.match(said["rest"])
    return said["kind"], looks["looks"] if looks and said["name"] == record.target else ""


@cache  # a volume is asked for several times, and takes a while to read
def _content(image: Path) -> str:
    """Stand for a patient whom no file names: the same picture under two names is the same patient."""
    return hashlib.sha256(image.read_bytes()).hexdigest() if image.is_file() else image.name
