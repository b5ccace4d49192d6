"""The audit log: one line of JSON for each answer and each saved label. The only place that keeps what was asked."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import IO, Any

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
                _opened(self._path).close()
        except OSError as error:
            raise SettingsError(f"the audit log {path} cannot be written: {error.strerror}", "name another") from error

    def write(self, what: str, who: str, **details: Any) -> None:
        """Append one record and wait until the disk has it.

        Raises:
            Unavailable: the file cannot be written; an answer without its record must not leave the server.
        """
        if self._path is None:
            return
        record = {"at": now(), "what": what, "who": who, **details}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with self._lock, _opened(self._path) as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable("the audit log cannot be written", "tell the server's administrator", 60) from error


def _opened(path: Path) -> IO[bytes]:
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
