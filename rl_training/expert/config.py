"""Every knob of the expert's tuning, with its unit."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from medreasoner.contract.errors import MedReasonerError


@dataclass(frozen=True)
class ExpertConfig:
    """Tuning of LiteMedSAM's prompt encoder and mask decoder."""

    pictures: int = 1500  # training pictures to look at, balanced by target
    validation_pictures: int = 64
    steps: int = 1200  # of the whole schedule, all runs of it together
    pictures_a_step: int = 8
    prompts_a_picture: int = 1
    rate: float = 1e-4  # peak learning rate
    weight_decay: float = 0.01
    warmup: int = 50  # steps
    ema: float = 0.99  # decay of the averaged weights, which are the ones saved
    balance: float = 0.5  # 0 draws targets as often as they occur, 1 draws every name equally often
    dispersed: float = 0.25  # weight of a dispersed target against a compact one
    box_only: float = 0.25  # share of pictures asked with boxes alone
    true_boxes: float = 0.3  # share of boxes as they are
    near_boxes: float = 0.35  # share with each edge moved by up to a tenth of the side; the rest are loose
    point_jitter: float = 0.04  # standard deviation of a point, as a share of the box's diagonal
    shifted_points: float = 0.5  # share of loose boxes whose points move along, as a reasoner's do
    dice_weight: float = 1.0
    quality_weight: float = 1.0  # of the squared error of the estimated IoU
    whole_pictures: float = 0.2  # share decoded whole; the others in a window around the target, four times as quick
    brain_floats: bool = True  # bfloat16 for encoder and decoder: twice as quick on processors that have it
    seed: int = 0

    @classmethod
    def from_yaml(cls, path: Path) -> ExpertConfig:
        """Read a YAML file.

        Raises:
            MedReasonerError: unknown keys, or a value of another type or out of range.
        """
        values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        known = {f.name: f.default for f in fields(cls)}
        if unknown := sorted(values.keys() - known.keys()):
            raise MedReasonerError(f"{path}: unknown keys {', '.join(unknown)}", f"known keys: {', '.join(known)}")
        for name, value in values.items():
            right = bool if isinstance(known[name], bool) else (int, float) if isinstance(known[name], float) else int
            if not isinstance(value, right) or (isinstance(value, bool) and right is not bool) or value < 0:
                raise MedReasonerError(f"{path}: {name} is {value!r}", f"give a number like {known[name]}")
        return cls(**values)
