"""Series fetched from an archive, kept on disk within a limit."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from medreasoner.durable import PARTIAL

log = logging.getLogger(__name__)
IN_USE_SECONDS = 600.0  # a series asked for so lately may still be read


class SeriesCache:
    """One folder a series, complete or not there. Threads that want the same series wait for one fetch."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Keep at most `limit` bytes, save for what is in use."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limit = folder, limit
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._sharing = threading.Lock()
        for left_over in folder.glob(f"{PARTIAL}*"):
            if time.time() - left_over.stat().st_mtime > IN_USE_SECONDS:  # else another server may be writing it
                shutil.rmtree(left_over, ignore_errors=True)

    def get(self, uid: str, count: int | None, fetch: Callable[[Path], None]) -> Path:
        """Return the folder of a series.

        Args:
            uid: a valid UID; names the folder.
            count: how many files it should have, where known; a series that has grown is fetched anew.
            fetch: writes the files into the folder it is given; whatever it raises leaves no folder behind.
        """
        with self._sharing:
            lock = self._locks[uid]
        with lock:
            kept = self._folder / uid
            if not kept.is_dir() or (count is not None and len(list(kept.iterdir())) != count):
                self._fetch(kept, fetch)
            os.utime(kept, ns=(time.time_ns(), time.time_ns()))  # finer than the file system's own clock
        self._trim()
        return kept

    def _fetch(self, kept: Path, fetch: Callable[[Path], None]) -> None:
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self._folder))
        try:
            fetch(partial)
            if kept.exists():
                self._remove(kept)
            partial.replace(kept)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _trim(self) -> None:
        """Drop the series used longest ago until the rest fits."""
        with self._sharing:
            kept = sorted((_used_at(p), p) for p in self._folder.iterdir() if not p.name.startswith("."))
            sizes = {folder: _size(folder) for _, folder in kept}
            total = sum(sizes.values())
            for used, folder in kept:
                if total <= self._limit or time.time() - used < IN_USE_SECONDS:
                    return
                if self._drop(folder, used):
                    log.info("dropped a series of %d MB from the cache", sizes[folder] // 10**6)
                    total -= sizes[folder]

    def _drop(self, folder: Path, used: float) -> bool:
        """Remove a series, unless a thread is about to get it or has used it since."""
        lock = self._locks[folder.name]
        if not lock.acquire(blocking=False):
            return False
        try:
            free = _used_at(folder) == used
            if free:
                self._remove(folder)
            return free
        finally:
            lock.release()

    def _remove(self, folder: Path) -> None:
        """Out of sight first: a server that ends here must not leave a part of a series under its name."""
        shutil.rmtree(folder.replace(tempfile.mkdtemp(prefix=PARTIAL, dir=self._folder)))


def _used_at(folder: Path) -> float:
    """When, in seconds of the system's clock; 0 where another thread is replacing the series by one that has grown."""
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    """In bytes; 0 as `_used_at`."""
    with suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0
