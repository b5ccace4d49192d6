"""Write what the product loads: the tuned parts in half precision, and a card that names their hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from medreasoner.expert.checkpoint import sha256_of
from medreasoner.expert.litemedsam_points import CARD, WEIGHTS
from rl_training.expert.train import Tuning


def export(tuning: Tuning, validation: Mapping[str, float], folder: Path) -> None:
    """Write the averaged weights as float16 (the decoder's are below 100, so nothing overflows) and card.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS
    save_file({name: tensor.detach().half().contiguous() for name, tensor in tuning.tuned().items()}, path)
    card = {
        "sha256": sha256_of([path]),
        "steps": tuning.step,
        "seconds": round(tuning.elapsed),
        "validation_dice": dict(validation),
        "config": asdict(tuning.config),
    }
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
