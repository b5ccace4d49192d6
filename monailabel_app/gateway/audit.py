"""The audit log: a line of JSON for each answer and each change. The only place that keeps what was asked.

Changes are labels and images that are saved or deleted, trainings, and checkpoints that are put in service.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from medreasoner.contract.label import now
from monailabel_app.gateway.errors import Unavailable
from monailabel_app.lib.settings import SettingsError


class AuditLog:
    """Appends to a file that only the server's own user can read. Without a path it records nothing."""

    def __init__(self, path: str) -> None:
        """Open the file to see that it can be written; raises `SettingsError` where it cannot."""
        self._path = Path(path).expanduser() if path else None
        self._lock = threading.Lock()
        try:
            if self._path is not None:
                os.close(_opened(self._path))
        except OSError as error:
            raise SettingsError(f"the audit log {path} cannot be written: {error.strerror}", "name another") from error

    def write(self, what: str, who: str, **details: Any) -> None:
        """Append one record, whole or not at all, and wait until the disk has it.

        Raises:
            Unavailable: the file cannot be written; an answer without its record must not leave the server.
        """
        if self._path is None:
            return
        record = {"at": now(), "what": what, "who": who, **details}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with self._lock:
                _append(self._path, line.encode())
        except OSError as error:
            raise Unavailable("the audit log cannot be written", "tell the server's administrator", 60) from error


def _append(path: Path, content: bytes) -> None:
    file = _opened(path)
    try:
        before = os.lseek(file, 0, os.SEEK_END)
        try:
            if os.write(file, content) != len(content):  # of a full disk, the last bytes
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, before)  # else the next record would stand on the rest of this one's line
            raise
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
