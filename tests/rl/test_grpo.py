"""GRPO on a tiny model: it learns, resumes bit for bit, keeps its last good checkpoint, and stops in time."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medreasoner.contract.errors import MedReasonerError
from medreasoner.reasoner.card import ReasonerCard
from rl_training import grpo
from rl_training.checkpoints import checkpoints_of, is_whole, last_whole
from rl_training.config import GrpoConfig
from rl_training.rewards import REWARDS
from rl_training.rows import Canvas, rows_of
from rl_training.tiny import make_tiny
from tests.collection import STYLES, make_collection
from tests.rl.stages import letters, run_grpo, same, weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    here = tmp_path_factory.mktemp("grpo")
    return make_collection(here / "data"), make_tiny(here / "tiny")


@pytest.fixture(scope="module", autouse=True)
def reward() -> Any:
    REWARDS["letters"] = letters
    yield
    del REWARDS["letters"]


@pytest.fixture(scope="module")
def straight(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six updates without a break: over the end of an epoch, which has four."""
    return run_grpo(tmp_path_factory.mktemp("straight") / "run", *made)


def test_every_update_changes_the_weights(straight: Path, made: tuple[Path, Path]) -> None:
    assert [p.name for p in checkpoints_of(straight)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    states = [weights(folder) for folder in (made[1], *checkpoints_of(straight))]
    assert not any(same(first, second) for first, second in itertools.pairwise(states))
    history = json.loads((straight / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    assert max(entry.get("reward_std", 0) for entry in history) > 0
    assert history[0]["kl"] == pytest.approx(0, abs=1e-6)  # the policy starts as its own reference
    assert history[-1]["kl"] > 0


@pytest.mark.parametrize("broken_off_at", ["checkpoint-2", "checkpoint-4"])
def test_a_resumed_run_takes_the_same_steps_bit_for_bit(
    straight: Path, made: tuple[Path, Path], tmp_path: Path, broken_off_at: str
) -> None:
    """After update 4 a new epoch begins, whose order must be the second one's and not the first's again."""
    shutil.copytree(straight / broken_off_at, tmp_path / "run" / broken_off_at)
    resumed = run_grpo(tmp_path / "run", *made)
    assert same(weights(straight / "checkpoint-6"), weights(resumed / "checkpoint-6"))
    ours, theirs = (json.loads((r / "checkpoint-6" / "trainer_state.json").read_text()) for r in (resumed, straight))
    compared = ("loss", "kl", "reward", "grad_norm", "completions/mean_length")
    for one, other in zip(ours["log_history"], theirs["log_history"], strict=True):
        assert [one.get(name) for name in compared] == [other.get(name) for name in compared]


def test_a_half_written_checkpoint_is_passed_over(
    straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(straight, tmp_path / "run")
    weights_file = run / "checkpoint-6" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-100])
    (run / "checkpoint-4" / "complete.json").unlink()
    assert last_whole(run) == run / "checkpoint-2"
    assert "checkpoint-6 is not whole" in capsys.readouterr().out


def test_a_full_disk_leaves_the_last_good_checkpoint(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = torch.save

    def full(thing: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        if "checkpoint-4" in str(path) and str(path).endswith("optimizer.pt"):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        save(thing, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SystemExit) as stopped:
        run_grpo(tmp_path / "run", *made)
    assert stopped.value.code == 3
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "checkpoint-2" in said
    assert [p.name for p in checkpoints_of(tmp_path / "run")] == ["checkpoint-2"]
    assert is_whole(tmp_path / "run" / "checkpoint-2")
    assert not (tmp_path / "run" / ".part").exists()


def test_a_run_saves_and_stops_inside_its_time(made: tuple[Path, Path], tmp_path: Path) -> None:
    run = run_grpo(tmp_path / "run", *made, "--minutes", "0.0001")
    assert [p.name for p in checkpoints_of(run)] == ["checkpoint-2"], "a whole generation is used up first"


def test_adapters_train_and_resume(made: tuple[Path, Path], tmp_path: Path) -> None:
    lora = {"lora": {"rank": 4, "alpha": 8}}
    straight = run_grpo(tmp_path / "straight", *made, max_updates=4, **lora)
    first = straight / "checkpoint-2"
    assert (first / "adapter_model.safetensors").is_file()
    assert not (first / "model.safetensors").exists()
    shutil.copytree(first, tmp_path / "resumed" / "checkpoint-2")
    resumed = run_grpo(tmp_path / "resumed", *made, max_updates=4, **lora)
    ours, theirs = ((r / "checkpoint-4" / "adapter_model.safetensors").read_bytes() for r in (resumed, straight))
    assert ours == theirs


def test_validation_answers_are_greedy_and_leave_the_steps_alone(
    straight: Path, made: tuple[Path, Path], tmp_path: Path
) -> None:
    run = run_grpo(tmp_path / "run", *made, validate_every=2, validation_questions=1)
    assert same(weights(straight / "checkpoint-6"), weights(run / "checkpoint-6"))
    history = json.loads((run / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    assert sum("eval_rewards/iou/mean" in entry for entry in history) == 3
    assert json.loads((run / "summary.json").read_text())["best_validation_iou"] == {"update": 2, "value": 0.0}


def test_bad_input_names_the_row(made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shutil.copytree(made[0], tmp_path / "data")
    (data / "images" / "2.png").unlink()
    with pytest.raises(SystemExit):
        run_grpo(tmp_path / "run", data, made[1])
    assert "samples.jsonl line 3" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_grpo(tmp_path / "run2", *made, max_prompt=20)
    assert "its prompt has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "rewards", "said"),
    [
        ({"question_key": "endless"}, {"letters": 1.0}, "its prompt has"),
        ({"mask": None}, {"letters": 1.0, "mask_dice": 1.0}, "has no mask"),
    ],
)
def test_a_bad_validation_row_is_named_before_the_first_update(
    row: dict[str, Any],
    rewards: dict[str, float],
    said: str,
    made: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = shutil.copytree(made[0], tmp_path / "data")
    questions = json.loads((data / "questions.json").read_text())
    endless = {style: ["Where " * 1500] * 10 for style in STYLES}
    (data / "questions.json").write_text(json.dumps({**questions, "endless": {**questions["optic disc"], **endless}}))
    samples = [json.loads(line) for line in (data / "samples.jsonl").read_text().splitlines()]
    changed = [{**sample, **row} if sample["split"] == "val" else sample for sample in samples]
    (data / "samples.jsonl").write_text("".join(f"{json.dumps(sample)}\n" for sample in changed))
    with pytest.raises(SystemExit):
        run_grpo(tmp_path / "run", data, made[1], validate_every=2, validation_questions=1, rewards=rewards)
    assert f"samples.jsonl line 5 (made/4): {said}" in capsys.readouterr().err
    assert not checkpoints_of(tmp_path / "run")


def test_a_run_is_not_gone_on_with_from_another_checkpoint(
    straight: Path, made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(SystemExit):
        run_grpo(run, made[0], make_tiny(tmp_path / "other"))
    assert "was started from" in capsys.readouterr().err


def test_the_mask_reward_needs_masks(made: tuple[Path, Path]) -> None:
    rows = rows_of(made[0], "train")
    unmasked = replace(rows[1], example=replace(rows[1].example, mask=None))
    with pytest.raises(MedReasonerError, match="has no mask"):
        grpo.check_masks(Canvas([rows[0], unmasked], ReasonerCard("any")))


def test_the_papers_batch_is_translated(tmp_path: Path) -> None:
    """Batch 128, mini-batch 64, group 16 on one device, a completion at a time: 2,048 completions, two updates."""
    made = grpo.make_arguments(GrpoConfig("x", precision="fp32"), tmp_path)
    assert (made.generation_batch_size, made.num_generations) == (2048, 16)
    assert (made.gradient_accumulation_steps, made.steps_per_generation) == (1024, 2048)
    assert (made.beta, made.epsilon, made.learning_rate, made.temperature) == (0.01, 0.2, 1e-6, 1.0)
