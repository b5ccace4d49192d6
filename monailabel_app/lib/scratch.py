"""What lies on the disk for one request: uploads on their way, masks until they are sent. All are patients' images."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

PREFIX = "medreasoner-request-"
_LONGEST_S = 24 * 3600.0  # no request lasts so long


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        yield Path(folder)


@contextmanager
def scratch_file(ending: str) -> Iterator[Path]:
    """Yield an empty file to fill, which the caller removes; an error within removes it at once."""
    handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=ending)
    os.close(handle)
    try:
        yield Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def remove_left_overs() -> None:
    """Remove what servers that were killed have left here; what is younger may be in use, by another server too."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another server was quicker, or it cannot be removed: this comes again soon
            found = path.lstat()
            if found.st_uid == os.getuid() and found.st_mtime + _LONGEST_S < time.time():
                shutil.rmtree(path) if S_ISDIR(found.st_mode) else path.unlink()
