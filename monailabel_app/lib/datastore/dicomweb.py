"""Studies in a DICOMweb archive: series come as their own files, results go back as Segmentations and Reports."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from medreasoner.contract.errors import ImageError
from medreasoner.durable import write_durably
from medreasoner.imaging.dicom_dataset import read_attributes
from monailabel_app.lib.datastore.archive import NOT_IMAGES, Archive, ArchivedSeries, ArchiveError, is_uid
from monailabel_app.lib.datastore.dicom_datastore import DicomDatastore, UnknownSeries
from monailabel_app.lib.datastore.fresh import Fresh
from monailabel_app.lib.datastore.label_shelf import LabelShelf
from monailabel_app.lib.datastore.series_cache import SeriesCache
from monailabel_app.lib.datastore.shelved import FINAL
from monailabel_app.lib.settings import Settings

log = logging.getLogger(__name__)
LISTING_SECONDS = 5.0  # one question to the server lists series and Segmentations several times
MEGABYTE = 10**6


class DicomWebDatastore(DicomDatastore):
    """The image series of an archive.

    The .dcm files are kept as they are, for windows, identifiers and geometry come from them (MONAI Label's own
    datastore turns them into NIfTI). Labels stay on this machine, and final ones go into the archive too.
    """

    def __init__(self, url: str, settings: Settings, home: Path | None = None) -> None:
        """Prepare; the archive is first asked when someone asks for images.

        Args:
            url: of the archive's DICOMweb service.
            settings: those that begin with ``dicomweb``.
            home: folder for cache and labels; None is the user's own folders for each.
        """
        self._archive, self._modalities = Archive(url, settings), settings.dicomweb_modalities
        name = Path("medreasoner") / "dicomweb" / self._archive.fingerprint
        data = home or _user_folder("XDG_DATA_HOME", ".local/share") / name
        cache = home or _user_folder("XDG_CACHE_HOME", ".cache") / name
        super().__init__(url, LabelShelf(data / "labels"))
        self._cache = SeriesCache(cache / "series", settings.dicomweb_cache * MEGABYTE)
        self._listing = Fresh(self._listed, LISTING_SECONDS)
        self._segmented = Fresh(self._segmented_there, LISTING_SECONDS)
        self._references = data / "segmentations.json"
        self._segmentations, self._reading = _read(self._references), threading.Lock()

    def refresh(self) -> None:
        """Forget the listing, and what was segmented by others."""
        self._listing.forget()
        self._segmented.forget()

    def list_images(self) -> list[str]:
        return sorted(self._listing.get())

    def labelled(self, tag: str) -> set[str]:
        """Return what was labelled here, and for final labels also what others have segmented in the archive."""
        here = super().labelled(tag)
        return here | self._segmented.get() if tag == FINAL else here

    def get_image_uri(self, image_id: str) -> str:
        entry = self._entry(image_id)
        return str(self._cache.get(entry.uid, entry.instances, lambda folder: self._archive.fetch(entry, folder)))

    def image_facts(self, image_id: str) -> dict[str, Any]:
        entry = self._entry(image_id)
        return {
            "Modality": entry.modality,
            "SeriesDescription": entry.description,
            "StudyDate": entry.date,
            "StudyInstanceUID": entry.study,
            "instances": entry.instances,
        }

    def subject_of(self, image_id: str) -> str:
        return self._entry(image_id).study

    def status(self) -> dict[str, Any]:
        """Count series and labels; where the archive is away, say so, for the server starts and describes itself."""
        try:
            return super().status()
        except ArchiveError as error:
            log.warning("%s", error.what)
            return {"total": 0, "completed": 0, "label_tags": {}, "unreachable": error.what}

    def publish(self, datasets: list[Dataset]) -> None:
        if datasets:
            self._archive.store(datasets)

    def add_image(self, image_id: str, image_filename: str, image_info: Any) -> str:  # noqa: ARG002
        """Send one more DICOM file to the archive; returns its series, whatever id was wished."""
        path = Path(image_filename)
        uid = str(read_attributes(path).get("SeriesInstanceUID") or "")
        if not is_uid(uid):
            raise ImageError(f"{path.name} names no valid series", "export it again from where it came from")
        self._archive.store([dcmread(path)])
        self.refresh()
        return uid

    def _listed(self) -> dict[str, ArchivedSeries]:
        return {entry.uid: entry for entry in self._archive.series(self._modalities)}

    def _segmented_there(self) -> set[str]:
        """Ask about the Segmentations that are new; the others are on the disk, for each takes a request of its own."""
        with self._reading:
            before = len(self._segmentations)
            try:
                return self._archive.segmented(self._segmentations)
            finally:  # what was learnt before the archive went away too
                if len(self._segmentations) > before:
                    _write(self._references, self._segmentations)

    def _entry(self, image_id: str) -> ArchivedSeries:
        found = None
        if is_uid(image_id):
            found = self._listing.get().get(image_id) or self._archive.find(image_id)
        if found is None:
            raise UnknownSeries(f"the archive has no series {image_id[:64]!r}", "ask for one of the listed images")
        if found.modality in NOT_IMAGES:
            raise UnknownSeries(f"{image_id} holds no images but {found.modality} objects", "ask for an image series")
        return found


def _user_folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def _read(file: Path) -> dict[str, frozenset[str]]:
    """What `_write` has kept; nothing, and a line in the log, where it is damaged: the archive knows it all."""
    try:
        return {uid: frozenset(series) for uid, series in json.loads(file.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s); the archive is asked again", file.name, type(error).__name__)
        return {}


def _write(file: Path, references: dict[str, frozenset[str]]) -> None:
    try:
        write_durably(file, json.dumps({uid: sorted(series) for uid, series in references.items()}).encode())
    except OSError as error:
        log.warning("%s cannot be written: %s", file.name, error.strerror)
