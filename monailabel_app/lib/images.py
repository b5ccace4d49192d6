"""Images that were opened a moment ago, so that the second question about a volume does not read it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path
from typing import Any

from medreasoner.imaging import StoredImage, open_image


class OpenedImages:
    """Keeps the images used last; a file that has changed since is opened anew. Any number of threads may ask."""

    def __init__(self, entries: int = 4) -> None:
        """Keep at most so many images, at least 1; a CT of 512 x 512 x 300 takes 150 MiB."""
        if entries < 1:
            raise ValueError(f"a cache of {entries} entries keeps nothing")
        self._entries = entries
        self._kept: OrderedDict[str, Future[StoredImage]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, path: Path) -> StoredImage:
        """Return the image, opened by whoever asks first while the others wait; errors as `open_image`."""
        state = state_of(path)
        with self._lock:
            opening = self._kept.get(state)
            first = opening is None
            if opening is None:
                opening = self._kept[state] = Future()
            self._kept.move_to_end(state)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)
        if first:
            self._open(path, state, opening)
        return opening.result()

    def _open(self, path: Path, state: str, opening: Future[StoredImage]) -> None:
        try:
            opening.set_result(open_image(path))
        except BaseException as error:  # whatever it is, those who wait must hear of it; the next one tries again
            with self._lock:
                self._kept.pop(state, None)
            opening.set_exception(error)


def state_of(path: Path) -> str:
    """Return what changes when a file, or one in a folder, does: 64 characters, for a folder may hold thousands."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return sha256(repr((str(path), [_file_state(file) for file in files])).encode()).hexdigest()


def _file_state(file: Path) -> tuple[str, int, int]:
    """Path, time of change in ns, size in bytes."""
    found: Any = file.stat() if file.exists() else None  # `open_image` says what is wrong with a missing file
    return (str(file), 0, -1) if found is None else (str(file), found.st_mtime_ns, found.st_size)
