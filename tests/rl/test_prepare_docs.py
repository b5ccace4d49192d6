"""docs/train_on_your_data.md, word by word: every command in it is run, in its order."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pydicom
import pytest

from rl_training.dataset.question_file import COLUMNS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "train_on_your_data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_the_page_tells_every_column() -> None:
    table = {name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert COLUMNS.keys() <= table


def test_the_page_names_files_that_exist() -> None:
    for name in re.findall(r"`(\w+\.yaml)`", PAGE):
        assert (ROOT / "rl_training" / "configs" / name).is_file()
    for name in re.findall(r"`(?:rl_training/launch/)?(\w+\.(?:sh|sbatch))`", PAGE):
        assert (ROOT / "rl_training" / "launch" / name).is_file()


@pytest.mark.nightly
def test_every_command_runs_and_the_server_answers_with_the_new_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "rl_training").symlink_to(ROOT / "rl_training")
    *blocks, serving = BLOCKS
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euc", block], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr[-3000:]}"
    assert json.loads((tmp_path / "runs" / "evaluation" / "evaluation.json").read_text())["summary"]["present"] > 0
    assert list((tmp_path / "runs" / "answers").glob("*.mask.png"))
    card = json.loads((tmp_path / "prepared" / "data_card.json").read_text())
    assert json.loads((tmp_path / "runs" / "smoke-merged" / "data_card.json").read_text()) == card

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*shlex.split(serving), "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
        try:
            answer = first_answer(f"http://127.0.0.1:{port}", tmp_path, server)
        finally:
            server.terminate()
            server.wait(30)
    assert answer["reasoner"]["name"] == "smoke"


def first_answer(url: str, folder: Path, server: subprocess.Popen[bytes]) -> dict[str, dict[str, str]]:
    """Wait until the server is ready, and ask about the first practice image."""
    image = pydicom.dcmread(folder / "practice" / "images" / "01.dcm", stop_before_pixels=True).SeriesInstanceUID
    with httpx.Client(base_url=url, timeout=120) as client:
        for _ in range(600):  # a busy machine takes minutes to import what a server needs
            assert server.poll() is None, (folder / "server.log").read_text()[-3000:]
            try:
                if client.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:  # not listening yet
                pass
            time.sleep(1)
        params = json.dumps({"question": "Which vessel carries blood to the legs?"})
        reply = client.post("/infer/medreasoner", params={"image": image, "output": "json"}, data={"params": params})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())
