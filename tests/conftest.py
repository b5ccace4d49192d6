"""Shared by all tests."""

import os
import shutil
import tempfile

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, with a thread for every core each, they are ten times slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import medreasoner  # noqa: F401  it sets how OpenMP's threads wait, which counts only before torch is imported

_NEW_FOLDER = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Let all temporary files of a run, of its workers and of programs that it starts, be in one folder."""
    if "PYTEST_XDIST_WORKER" not in os.environ and config.option.basetemp is None:
        tempfile.tempdir = os.environ["TMPDIR"] = config.stash[_NEW_FOLDER] = tempfile.mkdtemp(prefix="tests-")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Leave nothing behind, since disks fill up; but what failed tests wrote can be looked at."""
    folder = config.stash.get(_NEW_FOLDER, None)
    if folder and exitstatus == pytest.ExitCode.OK:
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    elif folder:
        terminalreporter.line(f"What failed tests wrote is in {folder}.")
