"""A folder of DICOM files as they come: nested, series mixed, names that say nothing."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from medreasoner.contract.errors import ImageError
from medreasoner.imaging.dicom_dataset import is_image, read_attributes, read_header
from medreasoner.imaging.signatures import HEAD_BYTES, kind_of
from monailabel_app.lib.datastore.archive import is_uid
from monailabel_app.lib.datastore.dicom_datastore import DicomDatastore, UnknownSeries
from monailabel_app.lib.datastore.durable import write_durably
from monailabel_app.lib.datastore.label_shelf import FOLDER as LABELS
from monailabel_app.lib.datastore.label_shelf import LabelShelf

log = logging.getLogger(__name__)
ADDED = "added"
FRESH_SECONDS = 1.0  # one question to the server lists the images several times
_INFO = ("Modality", "SeriesDescription", "StudyDate", "StudyInstanceUID")


@dataclass
class _Series:
    files: list[Path] = field(default_factory=list)
    stamp: frozenset[tuple[Path, float, int]] = frozenset()
    folder: Path | None = None


class DicomFolderDatastore(DicomDatastore):
    """Series found in a folder and the folders below it, looked through again whenever the images are listed.

    Each series gets a folder of links to its files, for a series is read from a folder of its own; these links are
    gone when the server ends. Labels stay, in `LABELS`.
    """

    def __init__(self, studies: Path) -> None:
        super().__init__(studies.name, LabelShelf(studies / LABELS))
        self._studies = studies
        self._links = tempfile.TemporaryDirectory(prefix="medreasoner-series-")
        self._series: dict[str, _Series] = {}
        self._seen: dict[tuple[Path, float, int], str] = {}
        self._looking = threading.RLock()
        self.refresh()

    def refresh(self) -> None:
        """Look for new and changed files; those seen before are not opened again."""
        with self._looking:
            series: dict[str, _Series] = {}
            seen: dict[tuple[Path, float, int], str] = {}
            for path in sorted(self._studies.rglob("*")):
                if path.is_file() and LABELS not in path.relative_to(self._studies).parts:
                    stat = path.stat()
                    key = path, stat.st_mtime, stat.st_size
                    seen[key] = self._seen[key] if key in self._seen else _series_of(path)
                    if seen[key]:
                        series.setdefault(seen[key], _Series()).files.append(path)
            stamps: dict[str, set[tuple[Path, float, int]]] = {}
            for key, uid in seen.items():
                stamps.setdefault(uid, set()).add(key)
            for uid, found in series.items():
                found.stamp = frozenset(stamps[uid])
                before = self._series.get(uid)
                found.folder = before.folder if before is not None and before.stamp == found.stamp else None
            self._series, self._seen, self._looked_at = series, seen, time.monotonic()

    def __contains__(self, image_id: str) -> bool:
        """Whether there is such a series; looks again before it says no to what could be one."""
        if image_id not in self._series and is_uid(image_id):
            self.refresh()
        return image_id in self._series

    def list_images(self) -> list[str]:
        if time.monotonic() - self._looked_at > FRESH_SECONDS:
            self.refresh()
        return sorted(self._series)

    def get_image_uri(self, image_id: str) -> str:
        with self._looking:
            found = self._found(image_id)
            if found.folder is None:
                found.folder = Path(tempfile.mkdtemp(dir=self._links.name)) / image_id
                found.folder.mkdir()
                for number, file in enumerate(found.files):
                    (found.folder / f"{number:06d}.dcm").symlink_to(file.resolve())
            return str(found.folder)

    def image_facts(self, image_id: str) -> dict[str, Any]:
        with self._looking:
            found = self._found(image_id)
        header = read_attributes(found.files[0])
        return {**{word: str(header.get(word) or "") for word in _INFO}, "instances": len(found.files)}

    def add_image(self, image_id: str, image_filename: str, image_info: Any) -> str:  # noqa: ARG002
        """Take in one more DICOM file; returns its series, whatever id was wished.

        Raises:
            ImageError: no image, without identifiers, or there already.
        """
        path = Path(image_filename)
        uid = _series_of(path)
        if not uid:
            raise ImageError(f"{path.name} is not a DICOM image", "these studies are DICOM: send a .dcm file")
        name = str(read_attributes(path).get("SOPInstanceUID") or "")
        if not is_uid(name):
            raise ImageError(f"{path.name} has no SOPInstanceUID", "export it again from the archive")
        known = self._series[uid].files if uid in self else []
        if any(read_attributes(file).get("SOPInstanceUID") == name for file in known):
            raise ImageError(f"the instance {name} is there already", "ask about the series that it belongs to")
        write_durably(self._studies / ADDED / f"{name}.dcm", path.read_bytes())
        self.refresh()
        return uid

    def _found(self, image_id: str) -> _Series:
        if image_id not in self:
            raise UnknownSeries(f"there is no series {image_id[:64]!r} here", "ask for one of the listed images")
        return self._series[image_id]


def is_dicom(path: Path) -> bool:
    """Say whether a file is DICOM, by its first bytes."""
    with path.open("rb") as stream:
        return kind_of(stream.read(HEAD_BYTES)) == "DICOM"


def _series_of(path: Path) -> str:
    """Return a file's SeriesInstanceUID; an empty string for what is not a DICOM image, or damaged (logged)."""
    if not is_dicom(path):
        return ""
    try:
        header: Dataset = read_header(path)
    except ImageError as error:
        log.warning("leaving out %s: %s", path.name, error.what)
        return ""
    uid = str(header.get("SeriesInstanceUID") or "")
    if is_image(header) and not is_uid(uid):
        log.warning("leaving out %s: it names no series", path.name)
    return uid if is_image(header) and is_uid(uid) else ""
