"""What strategies and scores note of images, kept on the disk: one JSON file an image, each written as a whole."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import MedReasonerError
from medreasoner.durable import write_durably
from monailabel_app.lib.datastore.label_shelf import NotWritten

log = logging.getLogger(__name__)

Notes = dict[str, Any]  # JSON values by key


class ImageNotes:
    """The notes in one folder, read once. One process writes; its threads may."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder, which need not exist; it is read when someone first asks."""
        self._folder, self._lock = folder, threading.RLock()
        self._read: dict[str, Notes] | None = None

    def all(self) -> dict[str, Notes]:
        """Return the notes of every image that has some."""
        with self._lock:
            return dict(self._notes())

    def of(self, image_id: str) -> Notes:
        """Return the notes of one image; none are an empty dict."""
        with self._lock:
            return self._notes().get(image_id, {})

    def add(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Add to an image's notes, in place of what has the same keys; raises `NotWritten` where that fails."""
        with self._lock:
            notes = {**self.of(image_id), **info}
            try:
                write_durably(self._file(image_id), json.dumps(notes, indent=2).encode())
            except OSError as error:
                raise NotWritten(
                    f"what is noted of an image cannot be written: {error.strerror}", "make room or check who may write"
                ) from error
            self._notes()[image_id] = notes

    def remove(self, image_id: str) -> None:
        """Forget an image."""
        with self._lock:
            self._notes().pop(image_id, None)
            self._file(image_id).unlink(missing_ok=True)

    def _file(self, image_id: str) -> Path:
        if not image_id or Path(image_id).name != image_id or image_id.startswith("."):
            raise MedReasonerError(f"{image_id[:64]!r} cannot be the id of an image", "use a name without slashes")
        return self._folder / f"{image_id}.json"

    def _notes(self) -> dict[str, Notes]:
        if self._read is None:
            self._read = {file.name.removesuffix(".json"): _read(file) for file in self._folder.glob("[!.]*.json")}
        return self._read


def _read(file: Path) -> Notes:
    """What a file says; nothing, and a line in the log, where it is damaged: scores can be made again."""
    try:
        return {**json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError) as error:  # of no file, no JSON, no object
        log.warning("the notes of an image cannot be read (%s) and are left out", type(error).__name__)
        return {}
