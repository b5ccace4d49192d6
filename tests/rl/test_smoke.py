"""The four commands, one after another, on a model of 0.1 M weights: fine-tune, reinforce, merge, ask."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medreasoner.cli import app
from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.card import ReasonerCard
from rl_training import finetune, grpo, merge
from rl_training.tiny import make_tiny
from tests.collection import make_collection

CONFIGS = Path(str(files("rl_training"))) / "configs"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run everything as the comments of smoke_sft.yaml and smoke.yaml say; return the folder of the runs."""
    here = tmp_path_factory.mktemp("smoke")
    data, tiny = make_collection(here / "data"), make_tiny(here / "tiny")
    stage = ["--data", str(data), "--output"]
    finetune.main([str(CONFIGS / "smoke_sft.yaml"), *stage, str(here / "sft"), "--reasoner", str(tiny)])
    merge.main([str(here / "sft"), "--output", str(here / "start"), "--dtype", "float32"])
    grpo.main([str(CONFIGS / "smoke.yaml"), *stage, str(here / "grpo"), "--reasoner", str(here / "start")])
    merge.main([str(here / "grpo"), "--output", str(here / "merged")])
    return here


def test_ask_opens_the_merged_folder(runs: Path, tmp_path: Path) -> None:
    image = str(runs / "data" / "images" / "5.png")
    given = ["ask", image, "optic disc?", "--reasoner", str(runs / "merged"), "--out", str(tmp_path), "--device", "cpu"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert "confidence" in result.output


def test_evaluate_takes_the_merged_folder(runs: Path, tmp_path: Path) -> None:
    given = ["evaluate", str(runs / "data"), "--split", "val", "--reasoner", str(runs / "merged"), "--limit", "2"]
    result = CliRunner().invoke(app, [*given, "--no-oracle", "--device", "cpu", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["about"]["reasoner"] == "smoke"


def test_the_merged_folder_says_what_it_is(runs: Path) -> None:
    card = ReasonerCard.of(runs / "merged")
    assert (card.name, card.dialect, card.quantised, card.canvas) == ("smoke", "strict", "", 56)
    assert card.trained_with == instruction_hash("direct")
    told = json.loads((runs / "merged" / "training.json").read_text())
    assert told["stage"] == "grpo"
    assert told["checkpoint"] == "checkpoint-2"
    assert told["config"]["kl_weight"] == 0.01
    assert told["data"]["train_rows"] == 5
    assert "eval_rewards/iou/mean" in told["metrics"]["last"]
    assert str(runs) not in json.dumps(told["data"]), "a merged folder travels; paths of the machine do not"


def test_curves_are_drawn_and_logged(runs: Path) -> None:
    for stage in ("sft", "grpo"):
        assert (runs / stage / "summary.png").read_bytes().startswith(b"\x89PNG")
        assert list((runs / stage).rglob("events.out.tfevents.*")), "no TensorBoard log"
    last = json.loads((runs / "grpo" / "summary.json").read_text())["last"]
    for name in ("format_reward", "box_iou", "point_dice", "mask_dice", "absent", "brevity", "iou"):
        assert f"rewards/{name}/mean" in last
    assert {"kl", "completions/mean_length", "clip_ratio/region_mean"} <= last.keys()
