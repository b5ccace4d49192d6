"""Ask the cases of a collection in several processes, with the outcomes and the order of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event

from medreasoner.contract.errors import MedReasonerError
from medreasoner.evaluation.cases import Case
from medreasoner.evaluation.run import Answered, Examiner

_examiner: Examiner | None = None  # a worker's own: models do not travel between processes
_stopped: Event | None = None  # told to all workers when the rest is not wanted any more


def ask_here(examiner: Examiner, groups: list[list[Case]]) -> Generator[Answered, None, None]:
    """Yield the answers of all cases, in the order given; raises what `Examiner.ask` raises."""
    yield from (examiner.ask(case) for group in groups for case in group)


def ask_in_processes(
    make: Callable[[], Examiner], groups: list[list[Case]], jobs: int
) -> Generator[Answered, None, None]:
    """Yield the answers of all cases, in the order given, from `jobs` processes of one thread each.

    Args:
        make: loads the models; every process calls it for itself, so it has to pickle.
        groups: the cases picture by picture (`by_picture`); a process takes a picture at a time.
        jobs: processes, 1 or more.

    Raises:
        MedReasonerError: a process died, most often for want of memory; and all that `Examiner.ask` raises.
    """
    spawn = multiprocessing.get_context("spawn")  # a forked PyTorch may hang in its threads' locks
    stopped = spawn.Event()
    pool = ProcessPoolExecutor(min(jobs, len(groups)), spawn, _start, (make, stopped))
    try:
        for answers in pool.map(_ask_group, groups):
            yield from answers
    except BrokenProcessPool as error:
        raise MedReasonerError(
            f"one of {jobs} processes died, perhaps for want of memory", "give fewer --jobs"
        ) from error
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _start(make: Callable[[], Examiner], stopped: Event) -> None:
    global _examiner, _stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that writes the report
    os.environ["OMP_NUM_THREADS"] = "1"  # in time: PyTorch is imported where the models are loaded
    _examiner, _stopped = make(), stopped


def _ask_group(group: list[Case]) -> list[Answered]:
    assert _examiner is not None
    assert _stopped is not None
    answers = []
    for case in group:
        if _stopped.is_set():
            break
        answers.append(_examiner.ask(case))
    return answers
