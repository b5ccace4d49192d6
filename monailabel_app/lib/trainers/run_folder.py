"""The folder of a training run, as `rl_training.local` writes it (rl_training/local/state.py); never imported here."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import MedReasonerError

RUN = "training"  # folder of the one run, in the registry of checkpoints
STATE, LOG, LOCK, STOP = "state.json", "log.txt", ".lock", "stop"
OVER = ("published", "refused")  # such a run is not gone on with
_AT_WORK = ("preparing", "training", "evaluating")
_LOG_BYTES = 8000


class RunFolder:
    """The one training run of a registry: how it goes, whether a process works on it, and the wish that it stop."""

    def __init__(self, registry: Path) -> None:
        self.path = registry / RUN

    def state(self) -> dict[str, Any] | None:
        """Return what the run says of itself; None where there never was one.

        A run that is neither over nor alive is `interrupted`, whatever it said last.

        Raises:
            MedReasonerError: the file cannot be read.
        """
        file = self.path / STATE
        try:
            state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise MedReasonerError(
                f"the training's {STATE} cannot be read: {error}", 'start it anew: {"restart": true}'
            ) from error
        if state["status"] in _AT_WORK and not self.alive():
            state |= {"status": "interrupted", "message": "its process is gone; the next start goes on from there"}
        return state

    def alive(self) -> bool:
        """Say whether a process of the run lives: it holds the lock, which no other process can be mistaken for."""
        try:
            with (self.path / LOCK).open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            raise MedReasonerError(
                f"whether a training runs cannot be told: {error}", f"let the server write into {self.path}"
            ) from error
        return False

    def ask_to_stop(self) -> None:
        """Let the run save and stop."""
        (self.path / STOP).touch()

    def make_ready(self, anew: bool) -> None:
        """Make the folder, empty if it is to begin anew, and forget an earlier wish to stop."""
        if anew:
            shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / STOP).unlink(missing_ok=True)

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the end of the log."""
        file = self.path / LOG
        if not file.is_file():
            return []
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - _LOG_BYTES))
            text = log.read().decode("utf-8", "replace").replace("\r", "\n")
        return [line for line in text.splitlines() if line.strip()][-count:]
