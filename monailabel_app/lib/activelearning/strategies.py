"""Which case next: the strategies that `POST /activelearning/{strategy}` chooses by."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from medreasoner.contract.label import now
from monailabel_app.lib.activelearning.questions import NOTE
from monailabel_app.lib.activelearning.ranking import Wanted, among_like_sizes, as_they_are, most_wanted
from monailabel_app.lib.activelearning.score_notes import with_first
from monailabel_app.lib.datastore.shelved import FINAL, ShelvedDatastore

ENOUGH = 10  # scored images, of which the worst says something; or all there are
LATELY = 5  # patients who come last because a case of theirs was labelled or handed out not long ago
HANDED_OUT = "handed_out"  # key of an image's notes: when, ISO 8601, UTC

Request = Mapping[str, Any]


class First(Strategy):
    """The first unlabelled image by name."""

    def __init__(self) -> None:
        super().__init__("The first image by name")

    def __call__(self, request: Request, datastore: ShelvedDatastore) -> dict[str, Any] | None:
        images = datastore.get_unlabeled_images(request.get("label_tag"))
        return {"id": min(images)} if images else None


class Random(Strategy):
    """Any unlabelled image."""

    def __init__(self, chance: random.Random | None = None) -> None:
        super().__init__("Any image")
        self._chance = chance or random.Random()

    def __call__(self, request: Request, datastore: ShelvedDatastore) -> dict[str, Any] | None:
        images = datastore.get_unlabeled_images(request.get("label_tag"))
        return {"id": self._chance.choice(images)} if images else None


class Worst(Strategy):
    """The unlabelled image with the highest score, of a patient who has not had a turn lately.

    While few images are scored it is any image, and the reply says so. Two people who ask at once get two images. Of an
    image's questions the one with the highest score counts; it comes first in the image's note from then on.
    """

    def __init__(
        self,
        score: str,
        description: str,
        reasoner: Callable[[], str],
        wanted: Wanted = as_they_are,
        chance: random.Random | None = None,
    ) -> None:
        """Choose.

        Args:
            score: by which of those that are noted.
            description: for people who choose a strategy.
            reasoner: gives the hash of the one that answers now.
            wanted: what becomes of all questions' scores, with the sizes of their boxes, before they are compared.
            chance: for the time when few images are scored.
        """
        super().__init__(description)
        self._score, self._reasoner, self._wanted = score, reasoner, wanted
        self._chance = chance or random.Random()
        self._choosing = threading.Lock()

    def __call__(self, request: Request, datastore: ShelvedDatastore) -> dict[str, Any] | None:
        """Return the image's id; what it was chosen by; how many are scored, of how many."""
        with self._choosing:
            images = datastore.get_unlabeled_images(request.get("label_tag"))
            if not images:
                return None
            scored = self._scored(images, datastore)
            few = len(scored) < min(ENOUGH, len(images))
            if few:
                ranked = dict.fromkeys(self._chance.sample(images, len(images)), 0)
            else:
                ranked = most_wanted(scored, self._score, self._wanted)
            chosen = in_turn(ranked, datastore)
            first = {} if few else {NOTE: with_first(scored[chosen], ranked[chosen])}
            datastore.update_image_info(chosen, {HANDED_OUT: now(), **first})
        current = self._reasoner()
        older = sum(note["reasoner_sha256"] != current for note in scored.values())
        note = f"{len(scored)} of {len(images)} scored" + (f", {older} by an earlier reasoner" if older else "")
        note += "; too few to choose by, so this is any image" if few else ""
        return {"id": chosen, "chosen_by": "random" if few else self._score, "note": note}

    def _scored(self, images: list[str], datastore: ShelvedDatastore) -> dict[str, dict[str, Any]]:
        """The notes of those images that have this score."""
        notes = datastore.notes()
        found = {image: notes[image].get(NOTE, {}) for image in images if image in notes}
        return {image: note for image, note in found.items() if self._score in note.get("scores", {})}


def strategies(reasoner: Callable[[], str]) -> dict[str, Strategy]:
    """Return all strategies by name; `reasoner` gives the hash of the one that answers now."""
    return {
        "disagreement": Worst(
            "disagreement",
            "The image about which answers drawn at random differ most, among boxes of like size",
            reasoner,
            among_like_sizes,
        ),
        "low_confidence": Worst("low_confidence", "The image whose answers are least sure", reasoner),
        "random": Random(),
        "first": First(),
    }


def in_turn(ranked: Iterable[str], datastore: ShelvedDatastore) -> str:
    """Return the first image of a patient who was not served lately; else one of who was served longest ago.

    So that one patient, whose images are alike and all hard, does not fill the queue. Of that one, the image that was
    not handed out yet, or longest ago: where all images are of few patients, two people get two images too.
    """
    waiting = _served_lately(datastore)
    lately: dict[str, list[str]] = {}
    for image in ranked:
        subject = datastore.subject_of(image)
        if subject not in waiting:
            return image
        lately.setdefault(subject, []).append(image)
    notes = datastore.notes()
    own = lately[max(lately, key=waiting.index)]
    return min(own, key=lambda image: str(notes.get(image, {}).get(HANDED_OUT, "")))  # ISO 8601 sorts by time


def _served_lately(datastore: ShelvedDatastore) -> list[str]:
    """The last few patients of whom a case was labelled or handed out, the latest first."""
    served = {image: stamp / 1e9 for image, stamp in datastore.label_stamps(FINAL).items()}
    for image, note in datastore.notes().items():
        if HANDED_OUT in note:
            served[image] = max(served.get(image, 0.0), datetime.fromisoformat(note[HANDED_OUT]).timestamp())
    known, subjects = set(datastore.list_images()), list[str]()
    for image in sorted(known & served.keys(), key=lambda image: -served[image]):
        if (subject := datastore.subject_of(image)) not in subjects:
            subjects.append(subject)
        if len(subjects) == LATELY:
            break
    return subjects
