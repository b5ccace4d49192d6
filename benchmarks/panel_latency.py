"""Does the panel in 3D Slicer ever block, and how long does it take beside the server?

python -m benchmarks.panel_latency [--slices 200] > benchmarks/results/panel_latency.json   (the last line is JSON)

The module's real file and .ui run off the screen on slicer-core (tests/slicer/stand_in), against the scripted server of
the tests in a process of its own, which answers from the brightness of a 512 x 512 volume. "Beside the server" is the
time from pressing Ask to the mask in the scene, less the time between the last byte sent and the reply: what the panel
itself needs. "Block" is the longest time in which a 1 ms timer of the user interface could not fire; "own" is how much
of such a time its thread spent at work, which a busy machine does not lengthen. VTK works on other threads too: with
VTK_SMP_BACKEND_IN_USE=Sequential all of it counts. Told apart is what no script can divide: for the next case Slicer
reads a file ("slicer_reads"), and Python tidies its memory at times ("python_collects"); the longest of each is given.

Needs Python 3.11 (slicer-core); set nothing else: QT_QPA_PLATFORM becomes offscreen.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import print_figures

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


class Heartbeat:
    """A timer of the user interface; remembers its longest pause, and the thread's most work in one."""

    def __init__(self) -> None:
        import qt

        self._timer = qt.QTimer()
        self._timer.setTimerType(qt.Qt.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self.reset()
        self._timer.start(1)

    def reset(self) -> None:
        self.longest = self.own = 0.0
        self._last, self._worked = time.perf_counter(), time.thread_time()

    @contextmanager
    def told_apart(self, seconds: list[float]) -> Iterator[None]:
        """What runs inside belongs to no pause; how long it took is added to the list."""
        start, worked = time.perf_counter(), time.thread_time()
        yield
        seconds.append(time.perf_counter() - start)
        self._last += seconds[-1]
        self._worked += time.thread_time() - worked

    def _beat(self) -> None:
        now, worked = time.perf_counter(), time.thread_time()
        self.longest, self.own = max(self.longest, now - self._last), max(self.own, worked - self._worked)
        self._last, self._worked = now, worked


def serve(to_parent: Connection) -> None:
    """Run the scripted server until the parent says stop."""
    from tests.slicer.scripted_server import scripted_server

    with scripted_server() as scripted:
        to_parent.send(scripted.address)
        to_parent.recv()


@contextmanager
def server_process() -> Iterator[str]:
    """Address of a scripted server in another process, so that it does not share Python's lock with the panel."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()  # so that a server that ends is noticed
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join()


class Stopwatch:
    """Adds up what the calls of `Exchange` wait for: from the last byte sent to the reply."""

    def __init__(self, exchange: Any) -> None:
        self.waited = 0.0
        begin, end = exchange.__init__, exchange._finished
        watch = self

        def started(one: Any, *arguments: Any) -> None:
            begin(one, *arguments)
            one.sent_at = time.perf_counter()

        def finished(one: Any) -> None:
            if one._call.queue_id:
                watch.waited += time.perf_counter() - one.sent_at
            end(one)

        exchange.__init__, exchange._finished = started, finished


def timed(work: Any, panel: Any, beat: Heartbeat, watch: Stopwatch) -> dict[str, float]:
    """Do something and wait for its end; seconds in all, beside the server, blocked, and blocked by own work."""
    from tests.slicer.stand_in.qt_binding import run_events

    beat.reset()
    watch.waited = 0.0
    start = time.perf_counter()
    work()
    while panel.logic.is_busy:
        run_events(1)
    took = time.perf_counter() - start
    run_events(50)  # what was put off until after the answer may block, too
    if panel.logic.error is not None:
        raise panel.logic.error
    return {"total": took, "beside_server": took - watch.waited, "block": beat.longest, "own_block": beat.own}


@contextmanager
def large_panel(slices: int) -> Iterator[tuple[Any, Any, Any]]:
    """Stand-in, panel and a volume of 512 x 512 with a bright block through most slices, ready to be asked about."""
    from PySide6 import QtWidgets

    from tests.slicer.stand_in.host import install_host

    with tempfile.TemporaryDirectory() as folder, server_process() as address:
        host = install_host(Path(folder))
        application = QtWidgets.QApplication([])
        import slicer
        from MedReasoner import MedReasonerWidget

        panel = MedReasonerWidget()
        panel.setup()
        panel.parent.show()
        panel.ui.addressBox.setCurrentText(address)
        panel.panel.preferences.allow_upload(address)
        voxels = np.random.default_rng(0).integers(-50, 50, (slices, 512, 512)).astype(np.int16)
        voxels[slices // 10 : -slices // 10, 100:300, 150:350] = 400
        volume = slicer.util.addVolumeFromArray(voxels, np.diag([-0.7, -0.7, 1.5, 1.0]), "large")
        volume.CreateDefaultDisplayNodes()
        volume.GetDisplayNode().SetAutoWindowLevel(False)
        volume.GetDisplayNode().SetWindowLevel(400, 200)
        panel.ui.questionEdit.plainText = "Where is the block?"
        yield host, panel, volume
        panel.cleanup()
        del application


def show(host: Any, panel: Any, volume: Any, tilt: float = 0.0) -> None:
    """The middle slice in the red view, turned about the patient's x axis by some degrees."""
    import slicer

    node = host.show(volume).GetSliceNode()
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    angle = np.radians(tilt)
    turn = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(turn) * [-1, 1, 1]  # the patient's left is on the right
    matrix[:3, 3] = (bounds[::2] + bounds[1::2]) / 2
    node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(matrix))
    node.UpdateMatrices()
    panel.panel._show_slice()


@contextmanager
def undivided(beat: Heartbeat) -> Iterator[tuple[list[float], list[float]]]:
    """Tell apart Slicer's reading of files and Python's full collections; yields the seconds that each of them took."""
    import slicer

    reads: list[float] = []
    collections: list[float] = []
    read, running = slicer.util.loadVolume, ExitStack()

    def load(*arguments: Any) -> Any:
        with beat.told_apart(reads):
            return read(*arguments)

    def collect(phase: str, about: dict[str, int]) -> None:
        if about["generation"] == 2 and phase == "start":
            running.enter_context(beat.told_apart(collections))
        elif about["generation"] == 2:
            running.close()

    slicer.util.loadVolume = load
    gc.callbacks.append(collect)
    try:
        yield reads, collections
    finally:
        gc.callbacks.remove(collect)
        slicer.util.loadVolume = read


def measure(slices: int, repeats: int) -> dict[str, Any]:
    """Seconds by kind of work: medians, and the longest that the user interface stood still."""
    rows: dict[str, list[dict[str, float]]] = {}
    with large_panel(slices) as (host, panel, volume):
        import slicer
        from MedReasonerLib.exchange import Exchange

        ui, beat, watch = panel.ui, Heartbeat(), Stopwatch(Exchange)

        def run(kind: str, work: Any) -> None:
            rows.setdefault(kind, []).append(timed(work, panel, beat, watch))

        with undivided(beat) as (reads, collections):
            for number in range(repeats):
                slicer.util.arrayFromVolume(volume)[0, 0, 0] = number
                slicer.util.arrayFromVolumeModified(volume)  # so that it is sent again
                show(host, panel, volume)
                run("first", ui.askButton.click)
                run("further", ui.askButton.click)
                run("edited", panel.logic.refine)
                run("whole_volume", ui.volumeButton.click)
                run("undone", ui.undoButton.click)
                run("saved", ui.saveButton.click)
                show(host, panel, volume, tilt=25.0)
                run("oblique", ui.askButton.click)
                run("oblique_edited", panel.logic.refine)
                run("next_case", ui.nextButton.click)
    found: dict[str, Any] = {"volume": f"512 x 512 x {slices} int16, {slices // 2} MiB"}
    for kind, runs in rows.items():
        found[kind] = {
            **{f"{n}_s": round(statistics.median(r[n] for r in runs), 4) for n in ("total", "beside_server")},
            **{f"median_{n}_s": round(statistics.median(r[n] for r in runs), 4) for n in ("block", "own_block")},
            **{f"longest_{n}_s": round(max(r[n] for r in runs), 4) for n in ("block", "own_block")},
        }
    return {**found, "slicer_reads_s": round(max(reads), 4), "python_collects_s": round(max(collections, default=0), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200, help="of the 512 x 512 volume")
    parser.add_argument("--repeats", type=int, default=5, help="medians over this many")
    args = parser.parse_args()
    print_figures(measure(args.slices, args.repeats))


if __name__ == "__main__":
    main()
