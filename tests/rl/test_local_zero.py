"""A department's 7 B reasoner in small: accelerate starts two processes, DeepSpeed's ZeRO-2 trains the adapter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from medreasoner.reasoner.champions import Champions
from medreasoner.reasoner.local import LocalReasoner
from rl_training.local import __main__ as local
from rl_training.tiny import make_tiny
from tests.rl.labelled import save_labels, state_of, write_local

ROOT = Path(__file__).parents[2]
TWO = ["--num_processes", "2", "--main_process_port", "0", str(ROOT / "tests" / "rl" / "gloo_worker.py")]


@pytest.mark.nightly
def test_accelerate_and_deepspeed_train_a_checkpoint_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of docs/train_on_your_data.md, but for the model, its size and the number of processes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", os.defpath)  # as a service has it: the launcher lies beside this Python
    text = (ROOT / "docs" / "train_on_your_data.md").read_text(encoding="utf-8")
    (example,) = (part for part in text.split("```yaml\n")[1:] if part.startswith("launch:"))
    wanted = yaml.safe_load(example.split("```")[0])
    *words, file = wanted["launch"]
    launch = [*words, str(ROOT / file), *TWO]
    tiny = make_tiny(tmp_path / "tiny")
    stage = {"deepspeed": wanted["finetune"]["deepspeed"], "micro_batch": 1, "max_updates": 2}
    config = write_local(tmp_path / "local.yaml", str(tiny), launch=launch, **stage)
    studies, registry = save_labels(tmp_path / "studies", range(10)), tmp_path / "registry"
    place = ["--output", str(tmp_path / "run"), "--registry", str(registry), "--config", str(config)]
    local.main([str(studies), *place])
    log = (tmp_path / "run" / "log.txt").read_text(errors="replace")
    assert state_of(tmp_path / "run")["status"] == "published", log[-4000:]
    about = json.loads((tmp_path / "run" / "finetune" / "run.json").read_text())
    assert (about["devices"], about["config"]["deepspeed"]) == (2, "zero2")
    shards = tmp_path / "run" / "finetune" / "checkpoint-2" / "global_step2"
    assert len(list(shards.glob("*zero_pp_rank_*_optim_states.pt"))) == 2
    trained = LocalReasoner(Champions(registry).path(1), "cpu")
    assert trained.sha256 != LocalReasoner(tiny, "cpu").sha256
