"""Where the page's numbers come from: names and notes of the datastore, lineages, the state of the training.

No image is opened, and a label is read once, so ten thousand of them cost one look at a folder.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import date, datetime, timezone
from itertools import islice
from typing import Any

from medreasoner.reasoner.champions import SHIPPED, Champions, Lineage
from monailabel_app.gateway.errors import without_folders
from monailabel_app.gateway.loop.figures import Checkpoint, Figures, Modality, NextCase, Training, binned
from monailabel_app.lib.activelearning.questions import NOTE
from monailabel_app.lib.activelearning.ranking import among_like_sizes, most_wanted
from monailabel_app.lib.activelearning.score_notes import questions_of
from monailabel_app.lib.datastore.label_shelf import UnknownLabel
from monailabel_app.lib.datastore.shelved import FINAL
from monailabel_app.lib.trainers.run_folder import RunFolder

NEXT_CASES = 10


class Collector:
    """Reads a server's datastore, registry of checkpoints and training run."""

    def __init__(self, store: Any, champions: Champions) -> None:
        """Take a `ShelvedDatastore` and a registry, which may be empty."""
        self._store, self._champions, self._run = store, champions, RunFolder(champions.folder)
        self._days: dict[str, tuple[int, date]] = {}  # image -> when its label changed, and the day that it names
        self._counting = threading.Lock()

    def figures(self, trouble: str = "") -> Figures:
        """Return all numbers as they are now.

        Args:
            trouble: what is wrong with the reasoner in service, to be shown beside it.

        Raises:
            MedReasonerError: the archive is away, or the registry or the training's state cannot be read.
        """
        images = set(self._store.list_images())
        scored = self._scored(images)
        entries, champion = self._champions.entries(), self._champions.number()
        return Figures(
            images=len(images),
            days=self._labels_by_day(),
            checkpoints=_checkpoints(entries, self._champions.history()),
            champion=champion,
            modalities=_modalities(entries, champion),
            bins=binned([note["scores"]["disagreement"] for note in scored.values()]),
            next_cases=_next_cases({i: scored[i] for i in scored.keys() - self._store.labelled(FINAL)}),
            training=_training(self._run.state()),
            trouble=trouble,
        )

    def _labels_by_day(self) -> tuple[tuple[date, int], ...]:
        with self._counting:
            stamps = self._store.label_stamps(FINAL)
            self._days = {image: self._days[image] for image in self._days.keys() & stamps.keys()}
            for image, stamp in stamps.items():
                if image not in self._days or self._days[image][0] != stamp:
                    self._days[image] = stamp, self._day(image, stamp)
            counts = Counter(day for _, day in self._days.values())
        return tuple(sorted(counts.items()))

    def _day(self, image: str, stamp: int) -> date:
        """The day (UTC) on which a label was saved; that of its file where no record says so (MONAI Label's own)."""
        try:
            said = self._store.get_label_info(image, FINAL).get(NOTE, {}).get("saved_at")
        except UnknownLabel:  # removed since it was listed: the next look will not count it
            said = None
        return date.fromisoformat(said[:10]) if said else datetime.fromtimestamp(stamp / 1e9, timezone.utc).date()

    def _scored(self, images: set[str]) -> dict[str, dict[str, Any]]:
        """The notes of those images of which the disagreement is known, by image."""
        notes = {image: found.get(NOTE, {}) for image, found in self._store.notes().items() if image in images}
        return {image: note for image, note in notes.items() if "disagreement" in note.get("scores", {})}


def _training(state: dict[str, Any] | None) -> Training | None:
    if state is None:
        return None
    return Training(state["status"], state["progress"], state["step"], state["of"], without_folders(state["message"]))


def _checkpoints(entries: list[Lineage], served: list[int]) -> tuple[Checkpoint, ...]:
    """Every checkpoint by number, before them the reasoner as shipped as it was measured first."""
    first = next((entry for entry in entries if entry.parent_number == SHIPPED), None)
    shipped = [Checkpoint(SHIPPED, **_measured(first.champion), reason="as shipped")] if first else []
    local = [
        Checkpoint(
            entry.number,
            **_measured(entry.challenger),
            reason=entry.reason,
            made=entry.made_at[:10],
            labels=entry.labels,
            difference=(entry.difference["mean"], entry.difference["low"], entry.difference["high"]),
            published=entry.published or entry.number in served,
        )
        for entry in entries
    ]
    return (*shipped, *local)


def _measured(metrics: dict[str, Any]) -> dict[str, Any]:
    return {"cases": metrics["n"], "box_iou": metrics["box_iou"], "dice": metrics.get("dice")}


def _modalities(entries: list[Lineage], champion: int) -> tuple[Modality, ...]:
    """The champion's failures as they were counted last: its own, or as the one to beat of a later challenger."""
    for entry in reversed(entries):
        for number, metrics in ((entry.parent_number, entry.champion), (entry.number, entry.challenger)):
            if number == champion:
                found = metrics.get("by_modality", {}).items()
                return tuple(Modality(name, counts["n"], counts["failures"]) for name, counts in sorted(found))
    return ()


def _next_cases(scored: dict[str, dict[str, Any]]) -> tuple[NextCase, ...]:
    """Those that the strategy would choose first, were it not for the patients' turns."""
    wanted = islice(most_wanted(scored, "disagreement", among_like_sizes).items(), NEXT_CASES)
    asked = [(image, questions_of(scored[image])[at]) for image, at in wanted]
    return tuple(NextCase(i, str(q.get("question", "")), float(q["scores"]["disagreement"])) for i, q in asked)
