"""A folder of DICOM files as they come: nested, series mixed, names that say nothing."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from pydicom.dataset import Dataset

from medreasoner.contract.errors import ImageError
from medreasoner.durable import PARTIAL, write_durably
from medreasoner.imaging.dicom_dataset import is_image, read_attributes, read_header
from medreasoner.imaging.signatures import HEAD_BYTES, kind_of
from monailabel_app.lib.datastore.archive import is_uid
from monailabel_app.lib.datastore.dicom_datastore import DicomDatastore, UnknownSeries
from monailabel_app.lib.datastore.label_shelf import FOLDER as LABELS
from monailabel_app.lib.datastore.label_shelf import LabelShelf
from monailabel_app.lib.datastore.shelved import StudiesAway, remove_unfinished

log = logging.getLogger(__name__)
ADDED = "added"
FRESH_SECONDS = 1.0  # one question to the server lists the images several times
_INFO = ("Modality", "SeriesDescription", "StudyDate", "StudyInstanceUID")


_Stamp = tuple[str, int, int]  # path, time of change in ns, size in bytes: a file is read again when one differs


class _Instance(NamedTuple):
    """What a file is; two that agree in all three are taken for copies when they are counted. No series: no image."""

    series: str = ""
    name: str = ""
    place: str = ""  # some anonymisers give all slices one name


@dataclass
class _Series:
    stamps: list[_Stamp]
    folder: Path | None = None  # of links, made when someone asks for the series
    attributes: dict[str, str] = field(default_factory=dict)  # of its first file, read when someone asks

    @property
    def files(self) -> list[Path]:
        return [Path(path) for path, _, _ in self.stamps]


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
        self._seen: dict[_Stamp, _Instance] = {}
        self._looking = threading.RLock()
        remove_unfinished(studies / ADDED)
        self.refresh()

    def refresh(self) -> None:
        """Look for new and changed files; those seen before are not opened again. Raises `StudiesAway`."""
        with self._looking:
            try:
                stamps = list(_stamps(self._studies))
            except OSError as error:
                raise StudiesAway.because(error) from error
            seen = {stamp: self._seen.get(stamp) or _instance_of(Path(stamp[0])) for stamp in stamps}
            grouped: dict[str, list[_Stamp]] = {}
            for stamp, instance in seen.items():
                if instance.series:
                    grouped.setdefault(instance.series, []).append(stamp)
            before = {uid: known for uid, known in self._series.items() if known.stamps == grouped.get(uid)}
            self._series = {uid: before.get(uid) or _Series(stamps) for uid, stamps in grouped.items()}
            self._seen, self._looked_at = seen, time.monotonic()

    def close(self) -> None:
        """Remove the links: a process that ends by a signal does nothing more of its own."""
        self._links.cleanup()

    def __contains__(self, image_id: str) -> bool:
        """Whether there is such a series; looks again before it says no to what could be one."""
        if image_id not in self._series and is_uid(image_id):  # as the name 0042.nii may be too
            self._look()
        return image_id in self._series

    def list_images(self) -> list[str]:
        self._look()
        return sorted(self._series)

    def _look(self) -> None:
        if time.monotonic() - self._looked_at > FRESH_SECONDS:
            self.refresh()

    def get_image_uri(self, image_id: str) -> str:
        with self._looking:
            found = self._found(image_id)
            if found.folder is None:
                folder = Path(tempfile.mkdtemp(dir=self._links.name)) / image_id
                folder.mkdir()
                for number, file in enumerate(found.files):
                    (folder / f"{number:06d}.dcm").symlink_to(file.resolve())
                found.folder = folder  # not before it is complete
            return str(found.folder)

    def image_facts(self, image_id: str) -> dict[str, Any]:
        with self._looking:
            found = self._found(image_id)
            instances = len({self._seen[stamp] for stamp in found.stamps})
            attributes = self._attributes(found)
        return {**{word: attributes[word] for word in _INFO}, "instances": instances}

    def subject_of(self, image_id: str) -> str:
        with self._looking:
            attributes = self._attributes(self._found(image_id))
        return attributes["PatientID"] or attributes["StudyInstanceUID"] or image_id

    def add_image(self, image_id: str, image_filename: str, image_info: Any) -> str:  # noqa: ARG002
        """Take in one more DICOM file; returns its series, whatever id was wished.

        Raises:
            ImageError: no image, without identifiers, or there already.
        """
        path = Path(image_filename)
        uid, name, _ = _instance_of(path)
        if not uid:
            raise ImageError(f"{path.name} is not a DICOM image", "these studies are DICOM: send a .dcm file")
        if not is_uid(name):
            raise ImageError(f"{path.name} has no SOPInstanceUID", "export it again from the archive")
        self.refresh()
        if any((known.series, known.name) == (uid, name) for known in self._seen.values()):
            raise ImageError(f"the instance {name} is there already", "ask about the series that it belongs to")
        write_durably(self._studies / ADDED / f"{name}.dcm", path.read_bytes())
        self.refresh()
        return uid

    def _attributes(self, series: _Series) -> dict[str, str]:
        """What a series says of itself; the caller holds the lock."""
        if not series.attributes:
            header = read_attributes(series.files[0])
            series.attributes = {word: str(header.get(word) or "") for word in (*_INFO, "PatientID")}
        return series.attributes

    def _found(self, image_id: str) -> _Series:
        if image_id not in self:
            raise UnknownSeries(f"there is no series {image_id[:64]!r} here", "ask for one of the listed images")
        return self._series[image_id]


def is_dicom(path: Path) -> bool:
    """Say whether a file is DICOM, by its first bytes."""
    with path.open("rb") as stream:
        return kind_of(stream.read(HEAD_BYTES)) == "DICOM"


def _stamps(folder: Path | str) -> Iterator[_Stamp]:
    """The files in a folder and below, but for labels, uploads on their way, and what has vanished meanwhile."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # just renamed by a receiver, or not ours to read
        return
    for entry in found:
        with suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                if entry.name != LABELS:
                    yield from _stamps(entry.path)
            elif not entry.name.startswith(PARTIAL) and S_ISREG((stat := entry.stat()).st_mode):
                yield entry.path, stat.st_mtime_ns, stat.st_size


def _instance_of(path: Path) -> _Instance:
    """Return what a file is; nothing for what is not a DICOM image, or cannot be read (logged)."""
    try:
        if not is_dicom(path):
            return _Instance()
        header: Dataset = read_header(path)
    except (ImageError, OSError) as error:
        log.warning("leaving out %s: %s", path.name, error.what if isinstance(error, ImageError) else error.strerror)
        return _Instance()
    uid = str(header.get("SeriesInstanceUID") or "")
    if is_image(header) and not is_uid(uid):
        log.warning("leaving out %s: it names no series", path.name)
    if not is_image(header) or not is_uid(uid):
        return _Instance()
    name, place = (str(header.get(word) or "") for word in ("SOPInstanceUID", "ImagePositionPatient"))
    return _Instance(uid, name or str(path), place)
