"""The benchmark that measures an update of GRPO: its parts on a tiny model, and that none costs another its figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2_5_VLConfig

from benchmarks import grpo_parts
from benchmarks.grpo_step import STEP_FILE, Step, measure, run_part
from rl_training import shapes
from rl_training.checkpoints import checkpoints_of

LAYERS = 2  # text layers of the tiny model
TINY = Step(lora=4, updates=2, group=2, micro=2, completion=8)


def run(name: str, step: Step, where: Path) -> dict[str, Any]:
    """Run a part as its process does, in this one."""
    figures = grpo_parts.PARTS[name](step, where)
    (where / f"{name}.json").write_text(json.dumps(figures))
    return figures


def test_adapters_are_trained_saved_gone_on_with_and_merged(tmp_path: Path) -> None:
    run("start", TINY, tmp_path)
    ours = run("ours", TINY, tmp_path)
    assert ours["updates"] == TINY.updates
    assert ours["tokens_per_second"] > 0
    assert ours["saved"] != ours["begins_with"]
    resumed = run("resumed", TINY, tmp_path)
    assert resumed["updates"] == TINY.updates + 1
    assert resumed["begins_as_saved"]
    assert [p.name for p in checkpoints_of(tmp_path / "run")] == ["checkpoint-2"]  # "resumed" leaves it as it was
    merged = run("merged", TINY, tmp_path)
    assert merged["changed"] == 7 * LAYERS  # the linear layers that adapters are on
    assert merged["finite"] == merged["weights"]


def test_defaults_of_trl_take_one_completion_at_a_time_and_save_nothing(tmp_path: Path) -> None:
    run("start", TINY, tmp_path)
    assert run("trl_defaults", TINY, tmp_path)["updates"] == TINY.updates
    about = json.loads((tmp_path / "defaults" / "run.json").read_text())["config"]
    assert (about["micro_batch"], about["kl_weight"], about["recompute"]) == (1, 0.0, True)
    assert not checkpoints_of(tmp_path / "defaults")


def test_a_published_size_is_made_with_fewer_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = {"hidden_size": 56, "intermediate_size": 64, "num_attention_heads": 7, "num_key_value_heads": 1}
    monkeypatch.setitem(shapes._TEXT, "7b", {**shapes._TEXT["7b"], **narrow, "vocab_size": 512})
    monkeypatch.setitem(shapes._VISION, "depth", 1)
    figures = run("start", Step(shape="7b", layers=3), tmp_path)
    config = Qwen2_5_VLConfig.from_pretrained(tmp_path / "start")
    assert figures["layers"] == config.text_config.num_hidden_layers == len(config.text_config.layer_types) == 3
    words = grpo_parts.tokenizer()
    assert config.image_token_id == words.vocab["<|image_pad|>"]


def test_a_part_that_fails_says_why_and_one_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / STEP_FILE).write_text(json.dumps(asdict(TINY)))
    slow = run_part("start", TINY, tmp_path, tmp_path, seconds=0.2)
    assert slow["failed"] == "no end after 0.2 s"
    wrong = run_part("merged", TINY, tmp_path, tmp_path, seconds=300)  # there is no run yet
    assert wrong["failed"] == "exit status 1"
    assert "is not the folder of a run" in wrong["because"]


@pytest.mark.nightly
def test_two_processes_under_zero3(tmp_path: Path) -> None:
    step = Step(deepspeed="zero3", processes=2, updates=2, group=2, micro=2, completion=8, recompute=True)
    results = measure(step, tmp_path, tmp_path, seconds=500, total=900)
    assert [name for name, figures in results.items() if "failed" in figures] == []
    assert results["resumed"]["begins_as_saved"]
    assert results["merged"]["changed"] > 0
