"""What takes minutes: MONAI Label's own launcher with the gateway, and a short load."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.server_load import measure
from tests.app.server import ROOT, START_S, free_port, make_studies

pytestmark = pytest.mark.nightly


def test_monai_label_s_launcher_starts_the_gateway(tmp_path):
    """From a copy of main.py, for the launcher makes folders beside it."""
    application, port = tmp_path / "app", free_port()
    application.mkdir()
    shutil.copy(ROOT / "monailabel_app" / "main.py", application)
    programs = Path(sys.executable).parent
    command = [programs / "monailabel", "start_server", "--app", application, "--studies", make_studies(tmp_path / "s")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--conf", "queue_length", "3"]
    command += ["--uvicorn_app", "monailabel_app.gateway.application:app"]
    own = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **own}, cwd=tmp_path, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert time.monotonic() < deadline
            try:
                ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.3)
        assert ready.json()["models"] == ["medreasoner", "medreasoner_refine", "medreasoner_volume"]
        assert httpx.get(f"http://127.0.0.1:{port}/logs/").status_code == 404
    finally:
        process.terminate()
        process.wait(60)


def test_no_answer_is_lost_or_crossed_under_load():
    found = measure(seconds=30, clients=8, queue=3)
    assert found["lost"] == found["crossed"] == 0, found["examples"]
    assert min(found["answers"].values()) > 0
    assert found["told_to_wait"] > 0  # eight clients and room for four: some were, and came back
