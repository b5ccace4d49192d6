"""A real Orthanc with its DICOMweb plug-in, on a free loopback port, for as long as a test needs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.app.server import free_port
from tests.missing import missing

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "archive", "secret"


@contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """Run an empty archive that asks for USER and PASSWORD, and give its DICOMweb URL; it ends with the block.

    Where Orthanc is not installed the test is skipped, except in CI, where it fails.
    """
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.exists():
        missing("Orthanc with its DICOMweb plug-in")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}/dicom-web"
            _wait(url, process, folder / "orthanc.log")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        try:
            if requests.get(f"{url}/studies", auth=(USER, PASSWORD), timeout=1).ok:
                return
        except requests.ConnectionError:
            pass  # not listening yet
        time.sleep(0.1)
    pytest.fail(f"Orthanc did not start:\n{log.read_text()[-2000:]}")
