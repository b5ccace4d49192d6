"""Saved labels to champion on a tiny model: the hold-out stays, a killed run goes on to the same adapter."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medreasoner.console import BAD_INPUT
from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.reasoner.adapter import WEIGHTS
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.champions import Champions
from medreasoner.reasoner.local import LocalReasoner
from medreasoner.reasoner.quantised import folder_hash
from rl_training.checkpoints import checkpoints_of, is_whole, last_whole
from rl_training.dataset import DataError
from rl_training.local import __main__ as local
from rl_training.local.challenger import adapter_of
from rl_training.local.config import LocalConfig
from rl_training.local.holdout import FILE, remembered_sides
from rl_training.local.state import STOP, locked
from rl_training.stopping import STOPPED
from rl_training.tiny import make_tiny
from tests.rl.labelled import LOOSE, save_labels, state_of, write_local

LONG = {"max_updates": 12, "save_every": 3, "keep": 9}


@dataclass(frozen=True)
class Place:
    """Where a run happens."""

    studies: Path
    config: Path
    run: Path
    registry: Path

    @property
    def words(self) -> list[str]:
        given = ["--output", str(self.run), "--registry", str(self.registry), "--config", str(self.config)]
        return [str(self.studies), *given]

    def carry_out(self, *flags: str) -> None:
        local.main([*self.words, *flags])

    def begin(self, *flags: str, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Start the run as the server does, in a session of its own; no file may grow beyond `limit` bytes."""
        return subprocess.Popen(
            [sys.executable, "-m", "rl_training.local", *self.words, *flags],
            start_new_session=True,
            preexec_fn=lambda: limit and resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def first(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run from the first labels to a published checkpoint."""
    here = tmp_path_factory.mktemp("first")
    studies, config = save_labels(here / "studies", range(10)), write_local(here / "local.yaml", str(tiny), **LONG)
    place = Place(studies, config, here / "run", here / "registry")
    place.carry_out()
    return place


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def test_labels_become_the_champion(first: Place, tiny: Path) -> None:
    champions = Champions(first.registry)
    (lineage,) = champions.entries()
    assert lineage.published and champions.number() == lineage.number == 1
    assert lineage.challenger["n"] >= 2 and lineage.challenger["absent_recognised"] is not None
    assert lineage.difference["low"] <= lineage.difference["mean"] <= lineage.difference["high"]
    assert lineage.configuration["finetune"]["lora"]["rank"] == 4
    shipped, trained = LocalReasoner(tiny, "cpu"), LocalReasoner(champions.path(1), "cpu")
    assert lineage.parent == shipped.sha256 != trained.sha256
    assert trained.name == "tiny-local"
    state = state_of(first.run)
    assert (state["status"], state["number"], state["progress"]) == ("published", 1, 1.0)
    told = [json.loads(line)["status"] for line in (first.run / "progress.jsonl").read_text().splitlines()]
    assert sorted(set(told), key=told.index) == ["preparing", "training", "evaluating", "published"]


def test_no_patient_of_the_hold_out_is_trained_on(first: Place) -> None:
    samples = [json.loads(line) for line in (first.run / "prepared" / "samples.jsonl").read_text().splitlines()]
    train, held = ({s["group"] for s in samples if s["split"] == side} for side in ("train", "test"))
    assert len(held) == 3 and not train & held
    trained = json.loads((first.run / "finetune" / "run.json").read_text())["data"]
    assert trained["train_rows"] <= sum(s["split"] == "train" for s in samples)


def test_the_next_run_goes_on_with_the_champions_adapter_and_may_be_refused(first: Place, tmp_path: Path) -> None:
    """With a rate of 0 it comes out as it went in, so nothing was added up or rounded; the rule asks for a gain."""
    studies = save_labels(tmp_path / "studies", range(13))
    before = json.loads((first.registry / FILE).read_text())
    reasoner = LocalConfig.from_yaml(first.config).finetune.reasoner
    gain = {"margin": -0.01, "false_absent": 1.0, "cases": 2}
    config = write_local(tmp_path / "local.yaml", reasoner, gain, max_updates=1, learning_rate=0.0, warmup=0)
    place = Place(studies, config, tmp_path / "run", first.registry)
    place.carry_out()
    champions = Champions(first.registry)
    one, two = adapter(champions.path(1)), adapter(champions.path(2))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    second = champions.entries()[1]
    assert (second.parent_number, second.difference) == (1, {"mean": 0.0, "low": 0.0, "high": 0.0})
    assert not second.published and champions.number() == 1
    assert state_of(place.run)["status"] == "refused"
    assert "box IoU may have fallen" in state_of(place.run)["message"]
    after = json.loads((first.registry / FILE).read_text())
    assert len(after) == 13 and before.items() <= after.items(), "a patient changed sides"


def test_a_killed_run_goes_on_to_the_same_adapter(first: Place, tmp_path: Path) -> None:
    place = another(first, tmp_path)
    process = place.begin()
    wait_for_checkpoint(place, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert state_of(place.run)["status"] == "training"
    with pytest.raises(SystemExit):
        place.carry_out()  # without --resume nothing is overwritten
    place.carry_out("--resume")
    assert_same(first, place)


@pytest.mark.nightly
def test_whatever_ends_it_a_run_goes_on_to_the_same_adapter(first: Place, tmp_path: Path) -> None:
    """Killed alone, when its stage notices and saves; stopped by SIGTERM; stopped by a file."""
    reasoner = LocalConfig.from_yaml(first.config).finetune.reasoner
    config = write_local(tmp_path / "local.yaml", reasoner, max_updates=250, save_every=10, learning_rate=1e-3)
    straight = replace(another(first, tmp_path), config=config)
    straight.carry_out()
    place = replace(straight, run=tmp_path / "often", registry=tmp_path / "other")
    process = place.begin()
    wait_for_checkpoint(place, process)
    process.kill()
    process.wait()
    for stop in (process_end, make_stop_file):
        with locked(place.run):  # once the stage has saved
            saved = updates(place)
        process = place.begin("--resume")
        wait_for(lambda had=saved: updates(place) > had, process)
        stop(place, process)
        assert process.wait() == STOPPED
        assert state_of(place.run)["status"] == "stopped"
    assert saved < updates(place) < 250
    place.carry_out("--resume")
    assert_same(straight, place)


@pytest.mark.nightly
def test_two_processes_train_behind_a_launcher_and_stop_together(first: Place, tmp_path: Path) -> None:
    reasoner = LocalConfig.from_yaml(first.config).finetune.reasoner
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    many = {"max_updates": 400, "save_every": 10, "micro_batch": 1, "learning_rate": 1e-3}
    config = write_local(tmp_path / "local.yaml", reasoner, launch=launch, **many)
    place = replace(another(first, tmp_path), config=config)
    process = place.begin()
    wait_for_checkpoint(place, process)
    process.terminate()
    assert process.wait() == STOPPED
    assert updates(place) < 400
    write_local(config, reasoner, launch=launch, **{**many, "max_updates": updates(place) + 2})
    place.carry_out("--resume")
    assert state_of(place.run)["status"] == "published"
    assert json.loads((place.run / "finetune" / "run.json").read_text())["devices"] == 2


@pytest.mark.nightly
def test_reinforcement_goes_on_with_the_adapter_of_the_supervised_stage(first: Place, tmp_path: Path) -> None:
    reasoner = LocalConfig.from_yaml(first.config).finetune.reasoner
    few = {"group": 2, "questions_per_generation": 2, "questions_per_update": 2, "max_completion": 8}
    grpo = {**few, "rewards": {"format_reward": 1, "box_iou": 1}, "kl_weight": 0.02, "learning_rate": 0.0}
    place = another(first, tmp_path)
    write_local(tmp_path / "local.yaml", reasoner, grpo=grpo)
    Place(place.studies, tmp_path / "local.yaml", place.run, place.registry).carry_out()
    supervised, published = adapter(place.run / "after-finetune"), adapter(Champions(place.registry).path(1))
    assert all(torch.equal(supervised[name], published[name]) for name in supervised)
    history = (place.run / "grpo" / "progress.jsonl").read_text()
    assert all(json.loads(line).get("kl", 0) < 1e-6 for line in history.splitlines()), "the reference is the start"


def test_a_full_disk_leaves_the_champion_and_what_is_saved(first: Place, tmp_path: Path) -> None:
    place = another(first, tmp_path, first.registry)
    shutil.copytree(first.run / "prepared", place.run / "prepared")
    shutil.copytree(first.run / "finetune" / "checkpoint-3", place.run / "finetune" / "checkpoint-3")
    champion, known = Champions(first.registry).number(), len(Champions(first.registry).entries())
    (place.run / "parent.json").write_text(str(champion))
    assert place.begin(limit=30_000).wait() == BAD_INPUT
    state = state_of(place.run)
    assert state["status"] == "failed"
    assert "could not be written" in state["message"] and "make room on the disk" in state["message"]
    assert [c.name for c in checkpoints_of(place.run / "finetune")] == ["checkpoint-3"]
    assert is_whole(place.run / "finetune" / "checkpoint-3")
    assert (Champions(first.registry).number(), len(Champions(first.registry).entries())) == (champion, known)


def test_a_few_labels_are_refused_before_anything_is_trained(first: Place, tmp_path: Path) -> None:
    reasoner = LocalConfig.from_yaml(first.config).finetune.reasoner
    config = write_local(tmp_path / "local.yaml", reasoner, {**LOOSE, "cases": 10})
    place = Place(first.studies, config, tmp_path / "run", tmp_path / "registry")
    with pytest.raises(SystemExit):
        place.carry_out()
    state = state_of(place.run)
    assert state["status"] == "failed" and "the hold-out has" in state["message"]
    assert {p.name for p in place.run.iterdir() if p.is_dir()} == set(), "the next start takes the labels of then"


def test_a_run_does_not_mix_two_champions(first: Place, tmp_path: Path) -> None:
    place = another(first, tmp_path)
    place.run.mkdir()
    (place.run / "parent.json").write_text("7")
    with pytest.raises(SystemExit):
        place.carry_out()
    assert "began from number 7, and 0 is the champion now" in state_of(place.run)["message"]


def test_new_patients_never_move_the_old_ones(tmp_path: Path) -> None:
    file, seen = tmp_path / FILE, {}
    for count, share in ((2, 0.2), (10, 0.2), (11, 0.5), (60, 0.2), (30, 0.2)):
        sides = remembered_sides(file, [f"patient {n}" for n in range(count)], share)
        assert seen.items() <= sides.items()
        assert "patient" not in file.read_text(), "no patient's id is kept"
        seen = sides
    assert len(seen) == 60
    assert 0.15 <= sum(side == "test" for side in seen.values()) / 60 <= 0.35


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "val"}'])
def test_a_damaged_hold_out_is_not_dealt_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(DataError, match="hold-out"):
        remembered_sides(tmp_path / FILE, ["a", "b"], 0.5)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"lora": None}, "trains adapters"),
        ({"adapter": "x"}, "its own only"),
        ({"lora": {"rank": 4, "ranks": 4}}, "ranks"),
        ({"learning_rates": 1}, "learning_rates"),
    ],
)
def test_what_a_local_run_cannot_be_told(tmp_path: Path, changes: dict, what: str) -> None:
    with pytest.raises(MedReasonerError, match=what):
        LocalConfig.from_yaml(write_local(tmp_path / "local.yaml", "embedded", **changes))


def test_several_gpus_get_the_same_command_through_a_launcher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = ["accelerate", "launch", "--num_processes", "8"]
    config = write_local(tmp_path / "local.yaml", "embedded", launch=launch)
    local.main(["studies", "--output", "run", "--config", str(config), "--dry-run"])
    said = capsys.readouterr().out
    assert said.startswith("accelerate launch --num_processes 8 -m rl_training.finetune run/finetune.yaml")


def another(first: Place, tmp_path: Path, registry: Path | None = None) -> Place:
    """A place for a run with the same labels as the first."""
    studies = save_labels(tmp_path / "studies", range(10))
    return Place(studies, first.config, tmp_path / "run", registry or tmp_path / "registry")


def assert_same(first: Place, other: Place) -> None:
    """Both learnt from the same labels, and came to the same adapter bit for bit."""
    one, two = ((p.run / "prepared" / "samples.jsonl").read_text() for p in (first, other))
    assert one == two
    one, two = (adapter(p.run / "after-finetune") for p in (first, other))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def updates(place: Place) -> int:
    """How many updates are saved."""
    return int(checkpoints_of(place.run / "finetune")[-1].name.removeprefix("checkpoint-"))


def process_end(_: Place, process: subprocess.Popen[bytes]) -> None:
    process.terminate()


def make_stop_file(place: Place, _: subprocess.Popen[bytes]) -> None:
    (place.run / STOP).touch()


def wait_for_checkpoint(place: Place, process: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: last_whole(place.run / "finetune") is not None, process)


def wait_for(there: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, f"the run ended with {process.returncode}"
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_champion_on_weights_that_an_update_replaced_is_not_gone_on_with(
    first: Place, tiny: Path, tmp_path: Path
) -> None:
    champion = tmp_path / "0001"
    shutil.copytree(first.registry / "0001", champion)
    assert adapter_of(champion, tiny) == str(champion)
    card = ReasonerCard.of(champion)
    assert card.base_sha256 == folder_hash(tiny)
    replace(card, base_sha256="0" * 64).save(champion)
    with pytest.raises(CheckpointError, match="an update has replaced"):
        adapter_of(champion, tiny)


def test_a_crash_after_the_proposal_leaves_nothing_to_do(first: Place) -> None:
    """The registry had taken the challenger in; the run's own last words were not written."""
    state = json.loads((first.run / "state.json").read_text())
    (first.run / "state.json").write_text(json.dumps({**state, "status": "evaluating", "number": None}))
    before = Champions(first.registry).entries()
    first.carry_out("--resume")
    assert Champions(first.registry).entries() == before
    assert (state_of(first.run)["status"], state_of(first.run)["number"]) == ("published", 1)
