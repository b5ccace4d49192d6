"""Start a stage as a process of its own, follow it, and stop it when the run is stopped."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from medreasoner.contract.errors import MedReasonerError
from rl_training.checkpoints import last_whole, step_of
from rl_training.config import Stage
from rl_training.local.state import LOG, Stopped, stop_wished
from rl_training.plan import plain_values
from rl_training.stopping import STOPPED
from rl_training.watching import PROGRESS

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LOOK_S = 0.5
_SHUTDOWN = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}  # seconds; torchrun's 30 are less than an update of a 7 B model
_STOPS = (STOPPED, -signal.SIGTERM)  # of a stage that has saved, or that was still loading


class StageError(MedReasonerError):
    """A stage ended before it was done."""


def command_of(stage: str, run: Path, launch: tuple[str, ...]) -> list[str]:
    """Return the command that trains a stage of a run, or goes on with it."""
    start = launch or (sys.executable,)
    given = [str(run / f"{stage}.yaml"), "--data", str(run / "prepared"), "--output", str(run / stage)]
    return [*start, "-m", f"rl_training.{stage}", *given]


def write_config(config: Stage, path: Path) -> None:
    """Write a stage's configuration where its command reads it."""
    path.write_text(yaml.safe_dump(plain_values(asdict(config)), sort_keys=False), encoding="utf-8")


def follow(
    command: list[str],
    run: Path,
    stage: str,
    lock: int,
    told: Callable[[dict[str, Any]], None],
    launched: bool = False,
) -> None:
    """Run a stage's command to its end.

    The process gets SIGTERM, upon which it saves and stops, when the run is to stop and also when this process is
    killed; it shares the run's lock, so that nobody goes on before it has saved.

    Args:
        command: from `command_of`.
        run: the run's folder, where the log is.
        stage: its name.
        lock: descriptor of the run's lock.
        told: called with each new line of the stage's progress.
        launched: a launcher stands between, which ends with 1 whatever became of the stage.

    Raises:
        Stopped: the run is to stop; the stage has saved, or has not begun.
        StageError: the stage failed, be it while it was to stop.
    """
    if stop_wished(run):
        raise Stopped
    progress = run / stage / PROGRESS
    before = seen = len(_lines(progress))
    with (run / LOG).open("ab") as log:
        begins = log.tell()
        process = _start(command, stage, log, lock)
    asked = False
    while process.poll() is None:
        if not asked and stop_wished(run):
            process.terminate()
            asked = True
        time.sleep(_LOOK_S)
        for line in _lines(progress)[seen:]:
            seen += 1
            told(json.loads(line))
    if not process.returncode:
        return
    if asked and (_has_saved(run / stage, before) if launched else process.returncode in _STOPS):
        raise Stopped
    raise _failure(stage, process.returncode, run / LOG, begins)


def _start(command: list[str], stage: str, log: BinaryIO, lock: int) -> subprocess.Popen[bytes]:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])  # accelerate
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            preexec_fn=_die_with_parent,
            env={**_SHUTDOWN, **os.environ, "PATH": beside},
        )
    except OSError as error:
        raise StageError(
            f"the stage {stage} cannot be started with {command[0]}: {error.strerror}",
            "correct `launch` in the configuration",
        ) from error


def _has_saved(folder: Path, before: int) -> bool:
    """Say whether all updates that a stage told of, after so many lines of its progress, are in a checkpoint."""
    made, newest = _lines(folder / PROGRESS)[before:], last_whole(folder)
    saved = step_of(newest) if newest else 0
    return not made or saved >= int(json.loads(made[-1])["step"])


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent ends, however it ends; elsewhere the run's lock alone keeps order."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _lines(file: Path) -> list[str]:
    """Return the whole lines of a file that another process writes."""
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []


def _failure(stage: str, code: int, log: Path, begins: int) -> StageError:
    """Find what the stage said at its end, as `medreasoner.console.tell` prints it."""
    if code < 0:
        name = signal.Signals(-code).name
        return StageError(f"the stage {stage} was ended by {name}", "look for want of memory, then start the run again")
    if code == STOPPED:
        return StageError(f"the stage {stage} was stopped from outside", "start the run again: it goes on")
    with log.open("rb") as file:
        file.seek(begins)
        lines = file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    for at in reversed(range(len(lines))):
        _, error, what = lines[at].partition("error: ")  # a progress bar may stand before it
        if error:
            _, arrow, hint = lines[at + 1].partition("-> ") if at + 1 < len(lines) else ("", "", "")
            return StageError(f"{stage}: {what}", hint if arrow else f"see {LOG} in the run's folder")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    return StageError(f"the stage {stage} ended with {code}: {said[:200]}", f"see {LOG} in the run's folder")
