"""Another reasoner takes over while the server runs: published, broken, rolled back, and with questions under way."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medreasoner.contract.answer import Box
from medreasoner.folders import embedded_folder
from medreasoner.imaging import open_image
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.adapter import CONFIG, WEIGHTS
from medreasoner.reasoner.card import EMBEDDED, ReasonerCard
from medreasoner.reasoner.champions import CHAMPION, SHIPPED, Champions, Lineage
from medreasoner.reasoner.local import LocalReasoner
from medreasoner.reasoner.protocol import Reply
from monailabel_app.lib.succession import Succession
from tests.app.plain_models import BrightInBox, ToldReasoner, found
from tests.app.server import make_studies, running
from tests.app.small import SmallApplication, served

METRICS = {"n": 40, "box_iou": 0.5, "false_absent": 0.0}
BETTER = {"mean": 0.1, "low": 0.05, "high": 0.15}
QUESTION = "Where do the nerve fibres leave the eye as one bundle?"
LATENCIES = {"timings", "latencies"}


def lineage(parent: int, difference: dict[str, float] = BETTER) -> Lineage:
    return Lineage("2026-11-28T01:00:00Z", "a" * 64, parent, "b" * 64, 40, METRICS, METRICS, difference)


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def make_adapter(folder: Path) -> Path:
    """A LoRA of noise on three late layers, strong enough to move the box and weak enough to leave an answer."""
    folder.mkdir(parents=True)
    card = ReasonerCard.of(embedded_folder())
    replace(card, name="medreasoner-local", base=EMBEDDED, quantised="").save(folder)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "bias": "none", "target_modules": ["down_proj"]}
    (folder / CONFIG).write_text(json.dumps(config))
    random, parts = torch.Generator().manual_seed(3), {}
    for layer in (24, 26, 28):
        name = f"base_model.model.model.language_model.layers.{layer}.mlp.down_proj"
        parts[f"{name}.lora_A.weight"] = torch.randn((2, 1536), generator=random) * 0.1
        parts[f"{name}.lora_B.weight"] = torch.randn((576, 2), generator=random) * 0.6
    save_file(parts, folder / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return make_adapter(tmp_path_factory.mktemp("trained") / "adapter")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return Champions(tmp_path_factory.mktemp("models") / "registry")


@pytest.fixture(scope="module")
def server(tmp_path_factory, registry):
    work = tmp_path_factory.mktemp("reloading")
    audit = f"audit_log={work / 'run' / 'audit.jsonl'}"
    with running(make_studies(work / "studies"), work / "run", f"registry={registry.folder}", audit) as found:
        yield found


def asked(client: httpx.Client) -> dict:
    form = {"params": json.dumps({"question": QUESTION})}
    reply = client.post("/infer/medreasoner?image=retina&output=json", data=form)
    assert reply.status_code == 200, reply.text
    return {name: value for name, value in reply.json().items() if name not in LATENCIES}


def in_service(client: httpx.Client) -> dict:
    return client.get("/readyz").json()["reasoner"]


def weights_hash(*folders: Path) -> str:
    kinds = ("*.safetensors", "adapter_config.json")
    files = [file for folder in folders for kind in kinds for file in sorted(folder.glob(kind))]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def test_published_broken_and_rolled_back_while_the_server_runs(server, registry, adapter, tmp_path):
    shipped, trained = weights_hash(embedded_folder()), weights_hash(embedded_folder(), adapter)
    with server.client() as client:
        before = asked(client)
        assert before["reasoner"]["sha256"] == shipped
        assert client.get("/models").json()["models"] == []

        registry.propose(adapter, lineage(SHIPPED))  # as the training process does; nobody tells the server
        wait_for(lambda: in_service(client)["number"] == 1)
        after = asked(client)
        assert after["reasoner"]["sha256"] == trained
        assert after["box"] != before["box"]
        reasoner, stored = LocalReasoner(adapter, "cpu"), open_image(server.studies / "retina.jpg")
        expected = reasoner.answer(QUESTION, stored.picture(None, None, None)).answer
        np.testing.assert_allclose(after["box"], expected.box.as_list(), atol=1e-3)
        assert after["reasoning"] == expected.reasoning

        broken = make_adapter(tmp_path / "broken")
        (broken / WEIGHTS).write_bytes((broken / WEIGHTS).read_bytes()[:1000])
        registry.propose(broken, lineage(1))
        wait_for(lambda: in_service(client)["trouble"])
        assert in_service(client)["number"] == 1
        assert "number 2 cannot be loaded; number 1 answers on" in in_service(client)["trouble"]
        assert client.get("/readyz").is_success
        assert client.get("/info/").json()["reasoner"] == in_service(client)
        assert asked(client) == after
        assert "number 2 cannot be loaded" in server.log
        assert "Traceback" not in server.log

        told = client.post("/models/rollback").json()
        assert told["champion"] == 1
        wait_for(lambda: not in_service(client)["trouble"])
        assert asked(client) == after
        assert client.post("/models/rollback").json()["champion"] == SHIPPED
        wait_for(lambda: in_service(client)["number"] == SHIPPED)
        assert asked(client) == before  # to the last digit

        told = client.post("/models/1/publish").json()
        assert [model["number"] for model in told["models"]] == [1, 2]
        assert told["history"] == [1]
        wait_for(lambda: in_service(client)["number"] == 1)
        assert asked(client) == after
        assert client.post("/models/9/publish").status_code == 404
    audit = [json.loads(line) for line in (server.log_file.parent / "audit.jsonl").read_text().splitlines()]
    assert [line["number"] for line in audit if line["what"] == "champion"] == [1, SHIPPED, 1]
    hashes = [line["answer"]["reasoner"]["sha256"] for line in audit if line["what"] == "answer"]
    assert hashes == [shipped, trained, trained, trained, shipped, trained]


class SlowReasoner(ToldReasoner):
    """Answers once it may; its hash tells where it came from."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(found(Box(2, 2, 6, 6)))
        self.sha256 = "shipped" if folder is None else folder.name
        self.may_answer = threading.Event()

    def answer(self, question: str, picture: Picture) -> Reply:
        reply = super().answer(question, picture)
        assert self.may_answer.wait(30)
        return reply


class Loader:
    """Opens reasoners, but not while it is held up, and not what is named in `broken`."""

    def __init__(self, *broken: str) -> None:
        self.broken, self.opened = broken, []
        self.may_load = threading.Event()
        self.may_load.set()

    def __call__(self, folder: Path | None) -> SlowReasoner:
        assert self.may_load.wait(30)
        if folder is not None and folder.name in self.broken:
            raise KeyError("a bug in the loading")
        self.opened.append(SlowReasoner(folder))
        return self.opened[-1]


@pytest.fixture
def champions(tmp_path):
    return Champions(tmp_path / "registry")


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "medreasoner.json").write_text("{}")
    return folder


def who_answers(pipeline: GroundingPipeline) -> str:
    picture = Picture(np.zeros((8, 8, 3), np.uint8))
    return pipeline.result(pipeline.ground("Where?", picture), picture).reasoner["sha256"]


def test_a_question_under_way_ends_with_the_reasoner_it_began_with(champions, checkpoint):
    load = Loader()
    succession = Succession(champions, load, BrightInBox())
    with ThreadPoolExecutor(1) as other:
        first = other.submit(who_answers, succession.pipeline)
        wait_for(lambda: load.opened[0].asked)
        load.may_load.clear()
        champions.propose(checkpoint, lineage(SHIPPED))
        succession.look()
        assert succession.standing()["loading"]
        load.opened[0].may_answer.set()
        assert who_answers(succession.pipeline) == "shipped"  # nobody waits for the new one
        load.opened[0].may_answer.clear()
        second = other.submit(who_answers, succession.pipeline)
        wait_for(lambda: len(load.opened[0].asked) == 3)
        load.may_load.set()
        wait_for(lambda: succession.standing()["number"] == 1)
        load.opened[1].may_answer.set()
        assert who_answers(succession.pipeline) == "0001"
        load.opened[0].may_answer.set()
        assert (first.result(), second.result()) == ("shipped", "shipped")


def test_a_server_starts_with_the_champion(champions, checkpoint):
    champions.propose(checkpoint, lineage(SHIPPED))
    load = Loader()
    standing = Succession(champions, load, BrightInBox()).standing()
    assert (standing["number"], standing["sha256"], standing["trouble"]) == (1, "0001", "")
    assert len(load.opened) == 1


@pytest.mark.parametrize("damage", [CHAMPION, "0001/lineage.json", "the checkpoint itself"])
def test_a_server_that_cannot_load_its_champion_starts_with_the_reasoner_as_shipped(champions, checkpoint, damage):
    champions.propose(checkpoint, lineage(SHIPPED))
    if damage == CHAMPION:
        (champions.folder / damage).write_text("{")
    elif damage.startswith("0001"):
        (champions.folder / damage).unlink()
    succession = Succession(champions, Loader("0001"), BrightInBox())
    assert succession.standing()["sha256"] == "shipped"
    assert "number 0 answers on" in succession.standing()["trouble"]
    champions.folder.joinpath(CHAMPION).unlink()
    succession.look()
    wait_for(lambda: not succession.standing()["trouble"])
    assert succession.standing()["number"] == SHIPPED


def test_of_several_changes_the_last_one_counts(champions, checkpoint):
    load = Loader("0002")
    succession = Succession(champions, load, BrightInBox())
    load.may_load.clear()
    for parent in (SHIPPED, 1, 2):
        champions.propose(checkpoint, lineage(parent))
        succession.look()
    champions.trim(1)
    load.may_load.set()
    wait_for(lambda: not succession.standing()["loading"])
    assert succession.standing()["number"] == 3
    assert [reasoner.sha256 for reasoner in load.opened][-1] == "0003"


def test_trimming_loads_nothing_anew(champions, checkpoint):
    for parent in (SHIPPED, 1, 2):
        champions.propose(checkpoint, lineage(parent))
    load = Loader()
    succession = Succession(champions, load, BrightInBox())
    assert champions.trim(1) == [1]
    succession.look()
    wait_for(lambda: not succession.standing()["loading"])
    assert len(load.opened) == 1


def test_a_reasoner_in_another_server_is_not_exchanged_here():
    with served(SmallApplication()) as address:
        assert "reasoner" not in httpx.get(f"{address}/readyz").json()
        for method, path in (("GET", "/models"), ("POST", "/models/rollback"), ("POST", "/models/1/publish")):
            reply = httpx.request(method, f"{address}{path}")
            assert reply.status_code == 409
            assert "another server" in reply.json()["detail"]


def test_nothing_lies_before_the_reasoner_as_shipped(champions):
    application = SmallApplication()
    application.succession = Succession(champions, Loader(), BrightInBox())
    with served(application) as address:
        reply = httpx.post(f"{address}/models/rollback")
        assert reply.status_code == 409
        assert "as shipped" in reply.json()["detail"]
        assert httpx.post(f"{address}/models/0/publish").json()["champion"] == SHIPPED
        assert httpx.post(f"{address}/models/x/publish").status_code == 404
