"""Uploaded volumes that are asked about for a while, and kept no longer than that."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from pathlib import Path

from monailabel.utils.sessions import SessionInfo, Sessions

_INFO = "meta.info"  # MONAI Label's file of one session's times


class UploadedVolumes(Sessions):
    """MONAI Label's sessions, a folder each, whose cleaning withstands what a server that died has left.

    MONAI Label's own ends for good at the first folder without `meta.info`, as an upload has that is still on its way
    or that met a full disk; the volumes of patients would stay for ever.
    """

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """Move a file or folder in; on failure nothing of it stays. The id cannot be guessed, which uuid1's can."""
        id = session_id or str(uuid.uuid4())
        try:
            added: tuple[str, SessionInfo] = super().add_session(data_file, expiry, uncompress, id)
        except BaseException:
            self.remove_session(id)
            raise
        return added

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """Return a session, or None where there is none; one whose times a crash has torn is none, until it expires."""
        try:
            found: SessionInfo | None = super().get_session(session_id, update_ts, fetch_cache)
        except (ValueError, TypeError, AttributeError):  # of no JSON, no path in it, no object
            return None
        return found

    def remove_expired(self) -> int:
        """Remove the sessions whose time is over, those of earlier servers too; return how many."""
        store = Path(self.store_path)
        folders = [folder for folder in store.iterdir() if folder.is_dir()] if store.is_dir() else []
        over = [folder for folder in folders if self._is_over(folder)]
        for folder in over:
            self.remove_session(folder.name)
        return len(over)

    def _is_over(self, folder: Path) -> bool:
        """Whether a session has expired; one that names no times lasts from when it was last written to."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # unfinished, or being written at this moment
            info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
            return bool(info["last_access_ts"] + info["expiry"] < time.time())
        with suppress(FileNotFoundError):  # removed meanwhile
            return max(path.stat().st_mtime for path in (folder, *folder.iterdir())) + self.expiry < time.time()
        return False
