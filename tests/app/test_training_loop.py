"""The loop on a real server: ask, correct, save, next case, train, published, asked again, rolled back.

A model of random weights stands for the reasoner: what comes out of it is nonsense, but every step is the real one.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from monailabel.client import MONAILabelClient
from PIL import Image

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingResult
from medreasoner.reasoner.champions import Champions
from medreasoner.reasoner.quantised import folder_hash
from monailabel_app.lib.settings import Settings
from monailabel_app.lib.trainers import run_folder
from monailabel_app.lib.trainers import training as task
from monailabel_app.lib.trainers.run_folder import RunFolder
from rl_training.local import state
from rl_training.tiny import make_tiny
from tests.app.server import RunningServer, running
from tests.collection import DISC, retina
from tests.rl.labelled import SIDE, write_local

QUESTION = "Where does the optic nerve leave the eye?"
PATIENTS = 6
PATIENCE_S = 300


@dataclass(frozen=True)
class Department:
    """A department that begins to use the server."""

    server: RunningServer
    registry: Path
    tiny: Path
    client: httpx.Client


def crop(number: int) -> tuple[Image.Image, list[float]]:
    """A patient's photograph, and where its optic disc lies."""
    left, top = 20 + 3 * number, 500 + 2 * number
    box = [float(v) for v in (DISC[0] - left, DISC[1] - top, DISC[2] - left, DISC[3] - top)]
    return retina().crop((left, top, left + SIDE, top + SIDE)), box


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    here = tmp_path_factory.mktemp("department")
    tiny, studies = make_tiny(here / "tiny"), here / "studies"
    studies.mkdir()
    for number in range(PATIENTS):
        crop(number)[0].save(studies / f"patient-{number}.png")
    config = write_local(here / "local.yaml", str(tiny), max_updates=12, save_every=2)
    conf = (f"reasoner={tiny}", f"registry={here / 'registry'}", f"training_config={config}", "device=cpu")
    with running(studies, here / "run", *conf) as server, server.client() as client:
        yield Department(server, here / "registry", tiny, client)


@pytest.fixture(scope="module")
def labelled(department: Department, tmp_path_factory: pytest.TempPathFactory) -> Department:
    """Every case asked about, corrected and saved, in the order in which the server proposes them."""
    for _ in range(PATIENTS):
        image = department.client.post("/activelearning/first", json={}).json()["id"]
        ask(department.client, image)
        correct(department, image, tmp_path_factory.mktemp("labels"))
    return department


def ask(client: httpx.Client, image: str) -> dict[str, Any]:
    wish = {"params": (None, json.dumps({"question": QUESTION}))}
    reply = client.post(f"/infer/medreasoner?image={image}&output=json", files=wish)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def correct(department: Department, image: str, work: Path) -> None:
    """Move the box to where the optic disc is, look at the new mask, and save it with its record."""
    box = crop(int(image.rsplit("-", 1)[1]))[1]
    client = MONAILabelClient(department.server.url, tmpdir=str(work))
    mask, reply = client.infer(
        "medreasoner_refine", image, {"box": box, "question": QUESTION, "result_extension": ".png"}
    )
    record = LabelRecord.of(GroundingResult.from_reply(reply)).edited("box")
    params = {"label_info": [{"name": "optic disc", "idx": 1}], "medreasoner": json.loads(record.to_json())}
    client.save_label(image, mask, "final", params)


def wait_until(met: Callable[[], bool], log: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end, log()
        time.sleep(0.2)


def training(department: Department) -> dict[str, Any]:
    found: dict[str, Any] = department.client.get("/train/").json()
    return found


def wait_for_training(department: Department) -> dict[str, Any]:
    wait_until(lambda: training(department)["status"] != "RUNNING", lambda: str(training(department)))
    return training(department)


def in_service(department: Department) -> dict[str, Any]:
    found: dict[str, Any] = department.client.get("/readyz").json()["reasoner"]
    return found


def test_both_sides_mean_the_same_files() -> None:
    """The server never imports the training, so it names its files a second time."""
    theirs = (state.STATE, state.LOG, state.LOCK, state.STOP, state.OVER)
    assert theirs == (run_folder.STATE, run_folder.LOG, run_folder.LOCK, run_folder.STOP, run_folder.OVER)


def test_a_run_lives_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.state() is None and not run.alive()
    run.make_ready(anew=True)
    with state.locked(run.path):
        state.StateFile(run.path).update(status="training", progress=0.5)
        assert run.alive()
        assert run.state() == json.loads((run.path / state.STATE).read_text())
        with pytest.raises(MedReasonerError, match="is being trained"), state.locked(run.path, patience=0):
            pass
    assert not run.alive()
    found = run.state()
    assert found is not None and (found["status"], found["progress"]) == ("interrupted", 0.5)
    run.ask_to_stop()
    assert state.stop_wished(run.path)
    run.make_ready(anew=False)
    assert not state.stop_wished(run.path), "a wish of before does not stop the next start"
    assert run.state() == found


@pytest.mark.parametrize(
    ("studies", "setting", "missing", "why"),
    [
        ("https://archive/dicom-web", {}, (), "in an archive"),
        ("studies", {"reasoner": "server"}, (), "another server"),
        ("studies", {}, ("peft", "trl"), "peft, trl not installed"),
    ],
)
def test_a_server_that_cannot_train_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, studies: str, setting: dict, missing: tuple, why: str
) -> None:
    monkeypatch.setattr(task, "find_spec", lambda name: None if name in missing else name)
    training = task.Training(studies, tmp_path / "registry", Settings(**setting))
    with pytest.raises(task.TrainingRefused, match=why):
        training({"model": "medreasoner"})
    assert not (tmp_path / "registry").exists()


def test_before_the_first_training_there_is_none(department: Department) -> None:
    assert "medreasoner" in department.client.get("/info/").json()["trainers"]
    assert department.client.get("/train/").status_code == 404
    assert department.client.delete("/train/").status_code == 404
    assert department.client.post("/train/other").status_code == 404
    refused = department.client.post("/train/medreasoner", json={"epochs": 3})
    assert (refused.status_code, refused.json()["kind"]) == (400, "MedReasonerError")


def test_from_questions_to_the_next_reasoner_and_back(labelled: Department) -> None:
    client = labelled.client
    assert not client.post("/activelearning/first", json={}).json().get("id"), "every case is labelled"
    before = ask(client, "patient-0")

    started = client.post("/train/medreasoner", json={})
    assert started.status_code == 200, started.text
    assert started.json()["status"] == "RUNNING"
    assert client.post("/train/medreasoner", json={}).status_code == 409
    assert client.get("/train/?check_if_running=true").status_code == 200
    ended = wait_for_training(labelled)
    assert ended["training"]["status"] == "published", ended
    assert client.get("/train/?check_if_running=true").status_code == 404

    wait_until(lambda: in_service(labelled)["number"] == 1, lambda: str(in_service(labelled)))
    after = ask(client, "patient-0")
    assert after["reasoner"]["sha256"] == folder_hash(labelled.tiny, Champions(labelled.registry).path(1))
    assert after["reasoner"]["sha256"] != before["reasoner"]["sha256"]

    assert client.post("/models/rollback").status_code == 200
    wait_until(lambda: in_service(labelled)["number"] == 0, lambda: str(in_service(labelled)))
    back = ask(client, "patient-0")
    assert back["reasoner"] == before["reasoner"]
    assert (back["box"], back["reasoning"]) == (before["box"], before["reasoning"])


@pytest.mark.nightly
def test_a_killed_training_is_shown_as_interrupted_and_goes_on(labelled: Department) -> None:
    client = labelled.client
    client.post("/train/medreasoner", json={})
    wait_until(lambda: saved(labelled), lambda: str(training(labelled)))
    os.killpg(training(labelled)["training"]["pid"], signal.SIGKILL)
    wait_until(lambda: training(labelled)["status"] != "RUNNING", lambda: str(training(labelled)))
    assert training(labelled)["training"]["status"] == "interrupted"
    client.post("/train/medreasoner", json={})
    ended = wait_for_training(labelled)
    assert ended["training"]["status"] == "published", ended
    assert "goes on from checkpoint-" in (labelled.registry / run_folder.RUN / "log.txt").read_text()


@pytest.mark.nightly
def test_a_training_outlives_its_server_and_the_next_one_can_stop_it(labelled: Department, tmp_path: Path) -> None:
    conf = (f"reasoner={labelled.tiny}", f"registry={labelled.registry}", "device=cpu")
    conf += (
        f"training_config={write_local(tmp_path / 'local.yaml', str(labelled.tiny), max_updates=400, save_every=2)}",
    )
    studies = Path(labelled.server.studies)
    with running(studies, tmp_path / "one", *conf) as server, server.client() as client:
        client.post("/train/medreasoner", json={"restart": True})
        wait_until(lambda: saved(labelled), lambda: server.log)
    with running(studies, tmp_path / "two", *conf) as server, server.client() as client:
        assert client.get("/train/").json()["status"] == "RUNNING"
        assert client.delete("/train/").status_code == 200
        wait_until(lambda: client.get("/train/").json()["status"] == "STOPPED", lambda: server.log)
        assert client.get("/train/?check_if_running=true").status_code == 404


def saved(department: Department) -> bool:
    """Whether the training has come to its first checkpoint."""
    return any((department.registry / run_folder.RUN / "finetune").glob("checkpoint-*/complete.json"))
