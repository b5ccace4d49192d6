"""A DICOMweb archive (PS3.18): search, fetch and store, with a limit to every wait and errors that say what to do."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from requests.adapters import HTTPAdapter

from medreasoner.contract.errors import MedReasonerError
from monailabel_app.lib.settings import Settings

log = logging.getLogger(__name__)
NOT_IMAGES = {
    "SEG",
    "SR",
    "PR",
    "KO",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "RTRECORD",
    "REG",
    "FID",
    "DOC",
    "AU",
    "ECG",
    "RWV",
}
_FIELDS = ["Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances", "StudyInstanceUID", "StudyDate"]
_REFERENCES = "00081115"  # ReferencedSeriesSequence
_PAGE = 500
_AT_ONCE = 8  # requests to one archive
_UID = re.compile(r"[0-9][0-9.]{0,63}")


class ArchiveError(MedReasonerError):
    """The DICOMweb archive is away, refuses, or answers with what cannot be used."""

    status = 502

    def __init__(self, what: str, hint: str, is_away: bool = False) -> None:
        """Say so; `is_away`: it does not answer at all, or not in time."""
        super().__init__(what, hint)
        self.is_away = is_away


def is_uid(text: str) -> bool:
    """Say whether a text can be a UID: digits and dots; real ones break PS3.5 9.1's finer rules."""
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True)
class ArchivedSeries:
    """One series as the archive lists it; `instances` is None where it does not count them."""

    uid: str
    study: str
    modality: str
    description: str
    date: str
    instances: int | None


class Archive:
    """The client of one archive. Any number of threads may use it."""

    def __init__(self, url: str, settings: Settings) -> None:
        """Prepare; nothing is sent yet, so that a server starts while its archive is away.

        Args:
            url: of the service, the part before ``/studies``.
            settings: who we are, and how long to wait.
        """
        session = requests.Session()
        patient = _Patient(settings.dicomweb_timeout)
        session.mount("http://", patient)
        session.mount("https://", patient)
        if settings.dicomweb_user:
            session.auth = (settings.dicomweb_user, settings.dicomweb_password)
        if settings.dicomweb_token:
            session.headers["Authorization"] = f"Bearer {settings.dicomweb_token}"
        self.url = url
        self._damaged: set[str] = set()  # Segmentations that do not say what they are about
        self._client = DICOMwebClient(url, session)
        self._client.set_http_retry_params(retry=False)  # who asks is waiting: fail, and let them ask again

    @property
    def fingerprint(self) -> str:
        """Names this archive in paths."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def series(self, modalities: Sequence[str]) -> list[ArchivedSeries]:
        """List the image series of these modalities, or of all where none is named; raises `ArchiveError`."""
        filters: list[dict[str, Any]] = [{"Modality": modality} for modality in modalities] or [{}]
        found = [entry for one in filters for entry in self._search(one)]
        return [entry for entry in found if entry.modality not in NOT_IMAGES]

    def find(self, uid: str) -> ArchivedSeries | None:
        """Look one series up, of whatever modality; raises `ArchiveError`."""
        found = self._search({"SeriesInstanceUID": uid})
        return next((entry for entry in found if entry.uid == uid), None)

    def segmented(self, known: dict[str, frozenset[str]]) -> set[str]:
        """Return the series that some Segmentation in the archive is about.

        No query tells that: each Segmentation is asked about by itself, several at once. One whose reply cannot be used
        is logged, counts for nothing, and is asked about again by the next server.

        Args:
            known: what each Segmentation series refers to, as far as it was asked before; extended here, for a stored
                Segmentation never changes.

        Raises:
            ArchiveError: the Segmentations cannot be listed, or the archive goes away meanwhile; `known` holds what was
                learnt until then.
        """
        listed = self._search({"Modality": "SEG"})
        new = [entry for entry in listed if entry.uid not in known and entry.uid not in self._damaged]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="segmentations") as threads:
            for entry, references in zip(new, threads.map(self._references, new), strict=True):
                if references is None:
                    self._damaged.add(entry.uid)
                else:
                    known[entry.uid] = references
        return {uid for entry in listed for uid in known.get(entry.uid, ())}

    def _references(self, entry: ArchivedSeries) -> frozenset[str] | None:
        """The series that a Segmentation refers to; None where its own reply cannot be used."""
        try:
            with self._speaking():
                metadata = self._client.retrieve_series_metadata(entry.study, entry.uid)
                instances = [Dataset.from_json({k: one[k] for k in (_REFERENCES,) if k in one}) for one in metadata]
                references = (ref for one in instances for ref in one.get("ReferencedSeriesSequence") or [])
                return frozenset(str(reference.SeriesInstanceUID) for reference in references)
        except ArchiveError as error:
            if error.is_away:
                raise
            log.warning("the Segmentation %s is left out: %s", entry.uid, error.what)
            return None

    def fetch(self, entry: ArchivedSeries, folder: Path) -> None:
        """Write the files of a series into a folder, one at a time, compressed as they are stored.

        Raises:
            ArchiveError: see the class; files may have been written.
        """
        as_stored = (("application/dicom", "*"),)
        count = 0
        with self._speaking():
            for instance in self._client.iter_series(entry.study, entry.uid, media_types=as_stored):
                instance.save_as(folder / f"{count:06d}.dcm", write_like_original=False)
                count += 1
        if not count or (entry.instances is not None and count < entry.instances):
            raise ArchiveError(
                f"the archive sent {count} of {entry.instances} files", "ask again, or check the archive"
            )

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Store instances; raises `ArchiveError` unless the archive has taken every one."""
        with self._speaking():
            outcome = self._client.store_instances(list(datasets))
        failed = outcome.get("FailedSOPSequence") or []
        if failed:
            reason = failed[0].get("FailureReason", "unknown")
            raise ArchiveError(f"the archive refused {len(failed)} files (reason {reason})", "see the archive's log")

    def _search(self, filters: dict[str, Any]) -> list[ArchivedSeries]:
        """Ask page by page; an archive that ignores pages repeats itself, which ends it too."""
        found: dict[str, ArchivedSeries] = {}
        while True:
            with self._speaking():
                page = self._client.search_for_series(
                    search_filters=filters, fields=_FIELDS, limit=_PAGE, offset=len(found)
                )
                new = [entry for entry in map(_entry, page) if entry.uid not in found]
            found |= {entry.uid: entry for entry in new}
            if not new or len(page) < _PAGE:
                return list(found.values())

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what the network and the client raise into one error."""
        try:
            yield
        # Before the next ones, for a wrong URL is a ValueError. What lacks a field is an AttributeError of pydicom's.
        except (ValueError, KeyError, AttributeError, TypeError, InvalidDicomError) as error:
            raise ArchiveError(
                f"the DICOMweb archive's reply cannot be read: {str(error)[:120]}",
                "check that the URL is its DICOMweb root",
            ) from error
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            hint = "see the archive's log"
            if status in (401, 403):
                hint = "check dicomweb_user and dicomweb_password, or dicomweb_token"
            raise ArchiveError(f"the DICOMweb archive answered with status {status}", hint) from error
        except requests.Timeout as error:
            raise ArchiveError(
                "the DICOMweb archive does not answer in time",
                "ask again later, or raise dicomweb_timeout",
                is_away=True,
            ) from error
        except requests.RequestException as error:
            raise ArchiveError(
                "the DICOMweb archive cannot be reached", "start it, or correct its URL, and ask again", is_away=True
            ) from error


class _Patient(HTTPAdapter):
    """Puts a limit to each wait: requests itself waits for ever."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__()

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        return super().send(request, **{**options, "timeout": options.get("timeout") or self._seconds})


def _entry(found: dict[str, Any]) -> ArchivedSeries:
    series = Dataset.from_json(found)
    count = series.get("NumberOfSeriesRelatedInstances")
    return ArchivedSeries(
        uid=str(series.SeriesInstanceUID),
        study=str(series.StudyInstanceUID),
        modality=str(series.get("Modality") or ""),
        description=str(series.get("SeriesDescription") or ""),
        date=str(series.get("StudyDate") or ""),
        instances=None if count is None else int(count),
    )
