"""Runs tests/slicer/gui: the stand-in for PythonQt changes PySide6 for the whole process, so it gets one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]


@pytest.mark.parametrize("files", [["test_asking.py", "test_editing.py"], ["test_real_server.py"]])
def test_the_panel_in_a_process_of_its_own(files: list[str]) -> None:
    run_panel_tests(files, "not nightly", 600)


@pytest.mark.nightly
def test_the_panel_and_the_slow_tasks_of_the_real_server() -> None:
    run_panel_tests(["test_real_server.py"], "nightly", 1200)


def run_panel_tests(files: list[str], marker: str, seconds: int) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    environment = {**inherited, "QT_QPA_PLATFORM": "offscreen", "SLICER_PANEL_TESTS": "1"}
    command = [*COMMAND, "-m", marker, *(f"tests/slicer/gui/{name}" for name in files)]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-3_000:]
    assert " passed" in run.stdout
