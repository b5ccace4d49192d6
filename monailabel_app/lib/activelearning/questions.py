"""What to ask about an image that nobody has asked about: a worklist, or what was asked about others of its kind."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

from medreasoner.contract.errors import MedReasonerError
from monailabel_app.lib.datastore.label_shelf import UnknownLabel
from monailabel_app.lib.datastore.shelved import FINAL, ShelvedDatastore

NOTE = "medreasoner"  # the key of our notes in an image's and a label's info


class NoQuestion(MedReasonerError):
    """Nobody says what to ask about such an image."""


class Questions(Protocol):
    """Questions by kind of image."""

    @property
    def sha256(self) -> str:
        """Changes where answers to the questions before are out of date; empty where they never are."""

    @property
    def known(self) -> bool:
        """Whether there are any."""

    def about(self, modality: str) -> tuple[str, ...]:
        """Return the questions about images of a DICOM modality (empty: unknown), the most important first."""


class AskedBefore:
    """The questions of the final labels that were saved here, the most frequent first."""

    sha256 = ""  # every saved label changes the order; to score all images anew each time would never end

    def __init__(self, store: ShelvedDatastore) -> None:
        self._store, self._reading = store, threading.Lock()
        self._read: dict[str, tuple[int, str, str]] = {}  # image -> when its label changed, modality, question

    @property
    def known(self) -> bool:
        """Whether there is a label with a question."""
        return any(question for _, _, question in self._labels())

    def about(self, modality: str) -> tuple[str, ...]:
        """Return what was asked about labelled images of this modality, or else about those that name none."""
        asked = [(kind, question) for _, kind, question in self._labels() if question]
        same, unknown = (sorted(question for kind, question in asked if kind == wanted) for wanted in (modality, ""))
        return tuple(question for question, _ in Counter(same or unknown).most_common())

    def _labels(self) -> list[tuple[int, str, str]]:
        """Read the labels that are new or have changed; return all."""
        with self._reading:
            stamps = self._store.label_stamps(FINAL)
            self._read = {image: self._read[image] for image in self._read.keys() & stamps.keys()}
            changed = {i for i, stamp in stamps.items() if i not in self._read or self._read[i][0] != stamp}
            for image in changed.intersection(self._store.list_images()) if changed else ():
                self._read[image] = stamps[image], *self._label(image)
            return list(self._read.values())

    def _label(self, image: str) -> tuple[str, str]:
        try:
            question = self._store.get_label_info(image, FINAL).get(NOTE, {}).get("question", "")
        except UnknownLabel:  # removed since it was listed
            question = ""
        return str(self._store.image_facts(image).get("Modality", "")), str(question)
