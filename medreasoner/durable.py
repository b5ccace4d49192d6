"""Files and folders that are there as a whole or not at all, whatever ends the program. Standard library only."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PARTIAL = ".partial-"  # begins the names of files and folders that were never finished


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, replacing any, so that a crash leaves the old one or the new one and never a part of it.

    Raises:
        OSError: the folder cannot be written.
    """
    with _replacing(path) as stream:
        stream.write(content)


def copy_durably(source: Path, path: Path) -> None:
    """Copy a file of any size as `write_durably` writes one."""
    with source.open("rb") as content, _replacing(path) as stream:
        shutil.copyfileobj(content, stream)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill, which takes the free name `path` once all that was written into it is on the disk.

    Raises:
        OSError: there is something at `path`, or the folder around it cannot be written.
    """
    partial = _beside(path)
    try:
        partial.mkdir()
        yield partial
        for found in (*partial.rglob("*"), partial):
            _sync(found)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(path.parent)


def _beside(path: Path) -> Path:
    """Name what is not finished yet; tempfile would make it, and close it to other users for good."""
    return path.parent / f"{PARTIAL}{uuid.uuid4().hex[:8]}"


def _sync(path: Path) -> None:
    """Make a file's content or a folder's names last: a rename is durable only once its folder is."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
