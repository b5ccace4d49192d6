"""Does the panel in 3D Slicer ever block, and how long does it take beside the server?

python -m benchmarks.panel_latency [--slices 200] > benchmarks/results/panel_latency.json   (the last line is JSON)

The module's real file and .ui run off the screen on slicer-core (tests/slicer/stand_in), against the scripted server of
the tests in a process of its own, which answers from the brightness of a 512 x 512 volume. "Beside the server" is the
time from pressing Ask to the mask in the scene, less the time between the last byte sent and the reply: what the panel
itself needs. "Blocked" is the longest time in which a 1 ms timer of the user interface could not fire.

Needs Python 3.11 (slicer-core); set nothing else: QT_QPA_PLATFORM becomes offscreen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import print_figures

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


class Heartbeat:
    """A timer of the user interface; remembers its longest pause."""

    def __init__(self) -> None:
        import qt

        self._timer = qt.QTimer()
        self._timer.setTimerType(qt.Qt.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self.reset()
        self._timer.start(1)

    def reset(self) -> None:
        self.longest, self._last = 0.0, time.perf_counter()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now


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
    """Do something and wait for its end; seconds in all, beside the server, and blocked."""
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
    return {"total": took, "beside_server": took - watch.waited, "blocked": beat.longest}


def measure(slices: int, repeats: int) -> dict[str, Any]:
    """Medians and maxima in seconds by kind: the first question (with the upload), further ones, edited boxes."""
    from PySide6 import QtWidgets

    from tests.slicer.stand_in.host import install_host

    with tempfile.TemporaryDirectory() as folder, server_process() as address:
        host = install_host(Path(folder))
        application = QtWidgets.QApplication([])
        import slicer
        from MedReasoner import MedReasonerWidget
        from MedReasonerLib.network import Exchange

        panel = MedReasonerWidget()
        panel.setup()
        panel.parent.show()
        panel.ui.addressBox.setCurrentText(address)
        panel.panel.preferences.allow_upload(address)
        voxels = np.random.default_rng(0).integers(-50, 50, (slices, 512, 512)).astype(np.int16)
        voxels[:, 100:200, 150:300] = 400
        volume = slicer.util.addVolumeFromArray(voxels, np.diag([-0.7, -0.7, 1.5, 1.0]), "large")
        volume.CreateDefaultDisplayNodes()
        volume.GetDisplayNode().SetAutoWindowLevel(False)
        volume.GetDisplayNode().SetWindowLevel(400, 200)
        host.show(volume)
        panel.panel._show_slice()
        beat, watch = Heartbeat(), Stopwatch(Exchange)
        panel.ui.questionEdit.plainText = "Where is the block?"
        rows: dict[str, list[dict[str, float]]] = {"first": [], "further": [], "edited": []}
        for number in range(repeats):
            slicer.util.arrayFromVolume(volume)[0, 0, 0] = number
            slicer.util.arrayFromVolumeModified(volume)  # so that it is sent again
            rows["first"].append(timed(panel.ui.askButton.click, panel, beat, watch))
            rows["further"].append(timed(panel.ui.askButton.click, panel, beat, watch))
            rows["edited"].append(timed(panel.logic.refine, panel, beat, watch))
        panel.cleanup()
        del application
    found: dict[str, Any] = {"volume": f"512 x 512 x {slices} int16, {voxels.nbytes / 2**20:.0f} MiB"}
    for kind, runs in rows.items():
        found[kind] = {
            **{f"{n}_s": round(statistics.median(r[n] for r in runs), 4) for n in ("total", "beside_server")},
            "longest_block_s": round(max(r["blocked"] for r in runs), 4),
            "median_block_s": round(statistics.median(r["blocked"] for r in runs), 4),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200, help="of the 512 x 512 volume")
    parser.add_argument("--repeats", type=int, default=5, help="medians over this many")
    args = parser.parse_args()
    print_figures(measure(args.slices, args.repeats))


if __name__ == "__main__":
    main()
