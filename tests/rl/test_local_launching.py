"""How a stage that was asked to stop ended: saved, or of an error of its own, which must not be told as a stop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rl_training.checkpoints import seal
from rl_training.local.launching import StageError, follow
from rl_training.local.state import STOP, Stopped, locked
from rl_training.watching import PROGRESS

# What every stage here does: writes a line of progress, has the run asked to stop, and waits for SIGTERM.
STAGE = """
import signal, sys, time
{heed}
with open("{progress}", "a") as file:
    file.write('{{"step": 4, "of": 9}}' + chr(10))
open("{stop}", "w").close()
time.sleep(30)
"""
HEEDING = "signal.signal(signal.SIGTERM, lambda *_: ({then}))"
TOLD = "print('error: no room for update 4' + chr(10) + '  -> make room'), sys.exit({code})"


@pytest.fixture
def ended(tmp_path: Path) -> Callable[..., list[int]]:
    """Follow a stage that ends so after SIGTERM; returns the steps that it told of."""
    (tmp_path / "finetune").mkdir()

    def run(then: str, launched: bool = False, saved: int = 0, tells: bool = True) -> list[int]:
        if saved:
            checkpoint = tmp_path / "finetune" / f"checkpoint-{saved}"
            checkpoint.mkdir()
            seal(checkpoint)
        progress = tmp_path / "finetune" / PROGRESS
        heed = HEEDING.format(then=then) if then else ""
        text = STAGE.format(heed=heed, progress=progress if tells else os.devnull, stop=tmp_path / STOP)
        steps: list[int] = []
        with locked(tmp_path) as lock:
            told = lambda line: steps.append(line["step"])  # noqa: E731
            follow([sys.executable, "-c", text], tmp_path, "finetune", lock, told, launched)
        return steps

    return run


@pytest.mark.parametrize(
    ("then", "launched", "saved"),
    [
        ("sys.exit(143)", False, 4),  # as rl_training.running ends when it has saved
        ("", False, 0),  # still loading: the signal itself ends it
        ("sys.exit(1)", True, 4),  # torchrun, with whatever its workers ended
    ],
)
def test_a_stage_that_saved_has_stopped(ended: Callable[..., list[int]], then: str, launched: bool, saved: int) -> None:
    with pytest.raises(Stopped):
        ended(then, launched, saved)


@pytest.mark.parametrize(
    ("then", "launched", "saved", "said"),
    [
        (TOLD.format(code=2), False, 2, "finetune: no room for update 4"),
        ("1 / 0", False, 4, "ended with 1: ZeroDivisionError"),
        ("signal.raise_signal(signal.SIGKILL)", False, 2, "ended by SIGKILL"),  # as when memory runs out
        (TOLD.format(code=1), True, 2, "finetune: no room for update 4"),
        (TOLD.format(code=1), True, 0, "finetune: no room for update 4"),
    ],
)
def test_a_stage_that_fails_while_it_is_to_stop_has_failed(
    ended: Callable[..., list[int]], then: str, launched: bool, saved: int, said: str
) -> None:
    with pytest.raises(StageError, match=said):
        ended(then, launched, saved)


def test_a_stage_that_ends_well_after_a_wish_to_stop_is_done(ended: Callable[..., list[int]]) -> None:
    assert ended("sys.exit(0)") == [4]


def test_a_launcher_that_is_not_there_is_named(tmp_path: Path) -> None:
    with locked(tmp_path) as lock, pytest.raises(StageError, match="with no-such-launcher: No such file") as caught:
        follow(["no-such-launcher"], tmp_path, "finetune", lock, print)
    assert "launch" in caught.value.hint


def test_updates_of_a_killed_run_before_are_not_missed(ended: Callable[..., list[int]], tmp_path: Path) -> None:
    """It had come to update 7 and saved the fifth; the one that went on was stopped in its first."""
    (tmp_path / "finetune" / PROGRESS).write_text(json.dumps({"step": 7, "of": 9}) + "\n")
    with pytest.raises(Stopped):
        ended("sys.exit(1)", launched=True, saved=5, tells=False)
