"""A real server process on loopback, for every end-to-end test of the application."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import nibabel
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
START_S, END_S = 300, 60  # generous: the machine may be busy with other tests


@dataclass(frozen=True)
class RunningServer:
    """One server process: where it listens, what it works on, what it wrote to its log."""

    url: str
    studies: Path | str
    log_file: Path
    temporary: Path  # its TMPDIR, sessions included
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def client(self, token: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)


@contextlib.contextmanager
def running(
    studies: Path | str, work: Path, *conf: str, environment: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """Start `python -m monailabel_app.serve` on a free port, wait until it is ready, and end it at the end.

    Args:
        studies: folder of images or DICOMweb URL.
        work: an empty folder for the log, the sessions and temporary files.
        conf: settings as ``key=value``.
        environment: more variables.
    """
    temporary, log = work / "temporary", work / "server.log"
    temporary.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "monailabel_app.serve", str(studies), "--port", str(port)]
    for pair in conf:
        command += ["--conf", pair]
    own = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(temporary),
        "MONAI_LABEL_SESSION_PATH": str(temporary / "sessions"),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=work, stdout=out, stderr=out, env={**os.environ, **own, **(environment or {})}
        )
    server = RunningServer(f"http://127.0.0.1:{port}", studies, log, temporary, process)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        finally:  # a server that does not end fails the test, but does not outlive it
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(server: RunningServer) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"the server ended with {server.process.returncode}:\n{server.log[-4000:]}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/readyz", timeout=5).is_success:
                return
        time.sleep(0.2)
    raise AssertionError(f"the server was not ready after {START_S} s:\n{server.log[-4000:]}")


def data_folder(package: str) -> Path:
    """The folder of an installed package, for the files that it carries."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def make_studies(folder: Path) -> Path:
    """A fundus photograph (`retina`), a head MR (`anatomical`), an oblique volume (`oblique`) and a DICOM CT slice."""
    folder.mkdir(parents=True)
    photograph = data_folder("skimage") / "data" / "retina.jpg"
    Image.open(photograph).resize((512, 512)).save(folder / "retina.jpg")
    anatomical = nibabel.load(data_folder("nibabel") / "tests" / "data" / "anatomical.nii")
    nibabel.save(anatomical, folder / "anatomical.nii")
    shutil.copy(data_folder("pydicom") / "data" / "test_files" / "CT_small.dcm", folder / "slice.dcm")
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([0.8, 0.9, 2.5]), (-30, 20, 5)
    nibabel.save(nibabel.Nifti1Image(np.asarray(anatomical.dataobj), affine), folder / "oblique.nii.gz")
    return folder
