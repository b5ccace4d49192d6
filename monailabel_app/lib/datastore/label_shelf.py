"""Labels on disk: the mask, its DICOM forms where there are any, and what is known of it.

`<folder>/<tag>/<image id>.json` is the label: it names the other files. It is written last and in one step, so a
label that can be seen is complete, and a server that dies while it saves leaves the label before.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import now
from medreasoner.durable import PARTIAL, write_durably

log = logging.getLogger(__name__)
FOLDER = "medreasoner_labels"  # what a shelf in a folder of studies is called; its files are not studies
_VERSIONED = re.compile(r"(?P<image>.+)\.(?P<version>[0-9a-f]{8})\.(?P<name>mask|segmentation|report)\..+")
_SET_ASIDE = ".damaged-"  # begins the names of entries that could not be read
MASK = "mask"


class UnknownLabel(MedReasonerError):
    """There is no such label."""

    status = 404


class NotWritten(MedReasonerError):
    """The disk does not take what should be kept."""

    status = 507


class LabelShelf:
    """The labels in one folder. One process writes; its threads may."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, mend what is damaged in it, and remove what an earlier server did not finish."""
        self.folder, self._writing = folder, threading.RLock()
        for tag in self.tags():
            for entry in list(self._entries(tag)):
                self._mend(entry)
            self._sweep(tag)

    def put(self, image_id: str, tag: str, files: Mapping[str, bytes], info: Mapping[str, Any]) -> None:
        """Save a label, in place of the one before.

        Args:
            image_id, tag: what can be the name of a file; neither leads out of the folder.
            files: content by name with ending: ``mask.nii.gz``, ``segmentation.dcm``, ``report.dcm``.
            info: JSON values.

        Raises:
            NotWritten: the folder is full, or closed to this server.
            MedReasonerError: a name that could not be one.
        """
        entry = self._entry(image_id, tag)
        version = uuid.uuid4().hex[:8]
        names = {name.partition(".")[0]: f"{image_id}.{version}.{name}" for name in files}
        with self._writing:
            before = self._files_of(entry)
            try:
                for name, content in files.items():
                    write_durably(entry.parent / names[name.partition(".")[0]], content)
                write_durably(entry, json.dumps({"files": names, "info": info}, indent=2).encode())
            except OSError as error:
                raise NotWritten(
                    f"the label of {image_id} cannot be written: {error.strerror}", "make room or check who may write"
                ) from error
            self._drop(entry, before)

    def tags_of(self, image_id: str) -> list[str]:
        """Return the tags under which a series has a label."""
        return sorted(tag for tag in self.tags() if self._entry(image_id, tag).exists())

    def tags(self) -> list[str]:
        """Return every tag in use; hidden folders beside them hold other things."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(p.name for p in found if p.is_dir() and not p.name.startswith("."))

    def labelled(self, tag: str | None = None) -> set[str]:
        """Return the series that have a label with this tag, or with any."""
        return {entry.stem for one in ([tag] if tag else self.tags()) for entry in self._entries(one)}

    def stamps(self, tag: str) -> dict[str, int]:
        """Return when each label last changed, in ns of its file's clock: who has read it need not read it again."""
        found = {}
        for entry in self._entries(tag):
            with suppress(FileNotFoundError):  # removed meanwhile
                found[entry.stem] = entry.stat().st_mtime_ns
        return found

    def file(self, image_id: str, tag: str, name: str = MASK) -> Path:
        """Return where a label's file is; raises `UnknownLabel`."""
        entry = self._known(image_id, tag)
        found = self._read(entry)["files"].get(name)
        if found is None:
            raise UnknownLabel(f"the label of {image_id} has no {name}", "save the label again")
        return entry.parent / str(found)

    def content(self, image_id: str, tag: str, name: str = MASK) -> tuple[str, bytes]:
        """Return a label's file by name and content, whole also while the label is saved anew.

        Raises:
            UnknownLabel: there is no such label, or it has gone meanwhile.
            MedReasonerError: its file was taken away by someone else.
        """
        path = self.file(image_id, tag, name)
        while True:
            try:
                return path.name, path.read_bytes()
            except FileNotFoundError as error:
                before, path = path, self.file(image_id, tag, name)
                if path == before:  # no later save explains it
                    raise MedReasonerError(f"the {name} of {image_id} is gone", "save the label again") from error

    def info(self, image_id: str, tag: str) -> dict[str, Any]:
        """Return what is known of a label; raises `UnknownLabel`."""
        return dict(self._read(self._known(image_id, tag))["info"])

    def update_info(self, image_id: str, tag: str, info: Mapping[str, Any]) -> None:
        """Add to what is known of a label; raises `UnknownLabel`."""
        with self._writing:
            entry = self._known(image_id, tag)
            label = self._read(entry)
            write_durably(entry, json.dumps({**label, "info": {**label["info"], **info}}, indent=2).encode())

    def remove(self, image_id: str, tag: str) -> None:
        """Take a label away; raises `UnknownLabel`."""
        with self._writing:
            entry = self._known(image_id, tag)
            files = self._files_of(entry)
            entry.unlink()
            self._drop(entry, files)

    def _entry(self, image_id: str, tag: str) -> Path:
        for what, name in (("image id", image_id), ("tag", tag)):
            if not _is_name(name):
                raise MedReasonerError(
                    f"{name[:64]!r} cannot be the {what} of a label", "use letters, digits, dots and dashes"
                )
        return self.folder / tag / f"{image_id}.json"

    def _entries(self, tag: str) -> Iterator[Path]:
        return (path for path in (self.folder / tag).glob("*.json") if not path.name.startswith("."))

    def _known(self, image_id: str, tag: str) -> Path:
        entry = self._entry(image_id, tag)
        if not entry.exists():
            raise UnknownLabel(f"there is no label {tag!r} of {image_id}", "save one, or use another tag")
        return entry

    def _read(self, entry: Path) -> dict[str, Any]:
        try:
            label = json.loads(entry.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MedReasonerError(f"the label {entry.name} cannot be read: {error}", "save it again") from error
        parts = [label.get(key) for key in ("files", "info")] if isinstance(label, dict) else [None]
        if not all(isinstance(part, dict) for part in parts):
            raise MedReasonerError(f"the label {entry.name} is not one of ours", "save it again")
        return dict(label)

    def _files_of(self, entry: Path) -> dict[str, str]:
        """The files that an entry names; none where it is damaged: it can be replaced, and the next start sweeps."""
        try:
            return dict(self._read(entry)["files"]) if entry.exists() else {}
        except MedReasonerError as error:
            log.error("replacing or removing a label: %s", error.what)
            return {}

    def _drop(self, entry: Path, files: Mapping[str, str]) -> None:
        for name in files.values():
            (entry.parent / name).unlink(missing_ok=True)

    def _mend(self, entry: Path) -> None:
        """Where an entry cannot be read or its files are gone, let it name the newest files that are there."""
        try:
            if all((entry.parent / name).is_file() for name in self._read(entry)["files"].values()):
                return
            what = "names files that are gone"
        except MedReasonerError as error:
            if isinstance(error.__cause__, OSError):  # a network drive's, say: nothing is wrong with the label
                raise error.__cause__ from error
            what = error.what
        found = [(p, m) for p in entry.parent.iterdir() if (m := _VERSIONED.fullmatch(p.name))]
        found = [(p, m) for p, m in found if m["image"] == entry.stem]
        masks = sorted((p.stat().st_mtime_ns, m["version"]) for p, m in found if m["name"] == MASK)
        if not masks:
            log.error("setting the label %s aside: %s, and it has no mask", entry.name, what)
            entry.replace(entry.with_name(_SET_ASIDE + entry.name))
            return
        log.error("rebuilding the label %s from its mask: %s; question and author are lost", entry.name, what)
        files = {m["name"]: p.name for p, m in found if m["version"] == masks[-1][1]}
        write_durably(entry, json.dumps({"files": files, "info": {"rebuilt": now()}}, indent=2).encode())

    def _sweep(self, tag: str) -> None:
        """Remove what an earlier server did not finish: files of ours that no label names."""
        named = {name for entry in self._entries(tag) for name in self._read(entry)["files"].values()}
        for path in (self.folder / tag).iterdir():
            ours = path.name.startswith(PARTIAL) or _VERSIONED.fullmatch(path.name)
            if ours and path.name not in named:
                log.warning("removing %s, which an interrupted save left behind", path.name)
                path.unlink()


def _is_name(name: str) -> bool:
    """Whether this is the name of one visible file and no path."""
    return 0 < len(name) <= 200 and name == PurePath(name).name and not name.startswith(".") and name.isprintable()
