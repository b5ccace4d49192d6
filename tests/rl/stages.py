"""Short stage runs for tests: a tiny reasoner, a made collection, and a reward that any text can earn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import Qwen2_5_VLForConditionalGeneration

from rl_training import finetune, grpo

GRPO = {
    "rewards": {"letters": 1.0},
    "group": 2,
    "questions_per_generation": 2,
    "questions_per_update": 1,
    "micro_batch": 2,
    "max_updates": 6,
    "learning_rate": 1e-3,
    "max_completion": 8,
    "save_every": 2,
    "keep": 9,
}
FINETUNE = {"batch": 2, "micro_batch": 2, "max_updates": 4, "learning_rate": 1e-2, "save_every": 2, "keep": 9}
_BOTH = {"precision": "fp32", "recompute": False, "absent_share": 0.0}


def letters(completions: Sequence[Any], **_: Any) -> list[float]:
    """Share of lower-case letters: random text of a random model differs in it, so that there is a gradient."""
    texts = [turn[0]["content"] for turn in completions]
    return [sum(c.islower() for c in text) / max(1, len(text)) for text in texts]


def run_grpo(run: Path, data: Path, reasoner: Path, *flags: str, **changes: Any) -> Path:
    """Run the command with `GRPO` and changes; returns the run's folder."""
    return _run(grpo, {**GRPO, **_BOTH, **changes}, run, data, reasoner, *flags)


def run_finetune(run: Path, data: Path, reasoner: Path, *flags: str, **changes: Any) -> Path:
    """Run the command with `FINETUNE` and changes; returns the run's folder."""
    return _run(finetune, {**FINETUNE, **_BOTH, **changes}, run, data, reasoner, *flags)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return a folder's weights, under the model's own names."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype="auto").state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Say whether two models are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _run(module: Any, config: dict[str, Any], run: Path, data: Path, reasoner: Path, *flags: str) -> Path:
    path = run.with_name(run.name + ".yaml")
    path.write_text(yaml.safe_dump({"reasoner": str(reasoner), **config}))
    module.main([str(path), "--data", str(data), "--output", str(run), *flags])
    return run
