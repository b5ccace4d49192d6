"""What a run says of itself and is told: files in its folder, which the server uses too (monailabel_app/lib/trainers).

state.json       where the run stands; replaced as a whole
progress.jsonl   each state it had
log.txt          what its stages print
.lock            locked as long as a process of the run lives; process numbers are used again, a lock is not
stop             made by whoever wants the run to save and stop
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import now
from medreasoner.durable import write_durably
from rl_training.stopping import asked_to_stop

STATE, PROGRESS, LOG, LOCK, STOP = "state.json", "progress.jsonl", "log.txt", ".lock", "stop"
_PATIENCE_S = 300  # for a stage that still saves after its run was killed
Status = Literal["preparing", "training", "evaluating", "published", "refused", "stopped", "failed"]
OVER: tuple[Status, ...] = ("published", "refused")  # a run that ended so is not gone on with


class Stopped(Exception):
    """The run was asked to stop, and what was done of it is saved."""


@dataclass(frozen=True)
class State:
    """Where a run stands; `step` and `of` count a stage's updates, or the questions of the comparison."""

    status: Status
    progress: float  # of the whole run, 0 to 1
    step: int
    of: int
    started: str
    updated: str
    pid: int  # for people; the lock says whether it lives
    message: str
    number: int | None  # in the registry, once it has one

    @classmethod
    def begin(cls) -> State:
        """This process begins."""
        return cls("preparing", 0.0, 0, 0, now(), now(), os.getpid(), "", None)


class StateFile:
    """The state of one run, kept on the disk."""

    def __init__(self, run: Path) -> None:
        """Begin, or go on; the caller holds the run's lock."""
        self._run = run
        self.state = State.begin()
        self.update()

    def update(self, **changes: Any) -> None:
        """Change the state, and write it; the moment is added."""
        self.state = replace(self.state, **changes, updated=now())
        text = json.dumps(asdict(self.state))
        write_durably(self._run / STATE, text.encode())
        with (self._run / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def status_of(run: Path) -> str:
    """Return the last status that a run wrote down, or "" where there is none."""
    try:
        return str(json.loads((run / STATE).read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, KeyError):
        return ""


def stop_wished(run: Path) -> bool:
    """Say whether the run is to save and stop."""
    return asked_to_stop() or (run / STOP).exists()


@contextmanager
def locked(run: Path, patience: float = _PATIENCE_S) -> Iterator[int]:
    """Hold a run's lock, whose descriptor its stages share.

    Raises:
        MedReasonerError: somebody else holds it for longer than `patience` seconds.
    """
    end = time.monotonic() + patience
    with (run / LOCK).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise MedReasonerError(f"{run} is being trained", "stop that process first, or wait") from error
                time.sleep(0.2)
        yield file.fileno()
