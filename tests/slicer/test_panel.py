"""Runs tests/slicer/gui: the stand-in for PythonQt changes PySide6 for the whole process, so it gets one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_panel_in_a_process_of_its_own() -> None:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "MEDREASONER_PANEL_TESTS": "1"}
    environment = {k: v for k, v in environment.items() if not k.startswith(("PYTEST_", "COV_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/slicer/gui"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-3_000:]
    assert " passed" in run.stdout
