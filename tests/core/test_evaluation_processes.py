"""`medreasoner evaluate --jobs`: the outcomes of one process, and what is measured survives errors and Ctrl-C."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from medreasoner.cli import app
from medreasoner.contract.errors import ImageError, MedReasonerError
from medreasoner.evaluation.processes import ask_in_processes
from tests.collection import make_collection

ROOT = Path(__file__).parents[2]


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    data, found = make_collection(tmp_path / "data"), {}
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        arguments = ["evaluate", str(data), "--split", "train", "--limit", "4", "--jobs", jobs, "--out", str(out)]
        app(arguments, standalone_mode=False)
        found[jobs] = _rows(out)
        assert len(found[jobs]) == 4
        assert len(list((out / "overlays").iterdir())) == 4
    for one, other in zip(found["1"], found["2"], strict=True):
        assert float(one.pop("confidence")) == pytest.approx(float(other.pop("confidence")), abs=1e-3)
        assert one.pop("seconds") != other.pop("seconds")
        assert one == other


class _Scripted:
    """Stands in for an examiner: answers with the case itself, takes its time, or fails as the case says."""

    def ask(self, case: Any) -> Any:
        if case == "broken":
            raise ImageError("the mask cannot be read", "leave it out")
        if case == "killed":
            os._exit(1)
        if case == "slow":
            time.sleep(0.3)
        return case


def scripted() -> Any:
    """Make one; a function of this module, so that it pickles."""
    return _Scripted()


@pytest.mark.parametrize(
    ("trouble", "error", "before"),
    [
        ("broken", ImageError, ["a", "b", "c"]),
        ("killed", MedReasonerError, None),  # how many answers came back before the process died is a matter of time
    ],
)
def test_trouble_is_told(trouble: str, error: type[MedReasonerError], before: list[str] | None) -> None:
    groups: list[Any] = [["a", "b"], ["c"], [trouble], ["d"]]
    got: list[Any] = []
    with pytest.raises(error, match="->"):
        got.extend(ask_in_processes(scripted, groups, 2))
    assert before is None or got == before


INTERRUPTED = """
import signal
from tests.core.test_evaluation_processes import scripted
from medreasoner.evaluation.processes import ask_in_processes
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins by ignoring it
    try:
        for answer in ask_in_processes(scripted, [["quick"], ["slow"] * 1000, ["slow"] * 1000], 2):
            print(answer, flush=True)
    except KeyboardInterrupt:
        print("kept", flush=True)
"""


def test_interrupt_ends_every_process_and_keeps_what_came(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    start = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True, "cwd": ROOT}
    with subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)}, **start) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "quick\n"
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
            assert run.stdout.read() == "kept\n"  # ends when the last process that holds the pipe has ended
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
