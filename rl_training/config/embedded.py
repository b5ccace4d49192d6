"""Every knob of the embedded reasoner's supervised stage (rl_training/sft.py), with its unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rl_training.config.reading import read_yaml


@dataclass(frozen=True)
class SftConfig:
    """The supervised stage of the embedded reasoner."""

    seconds: float = 540.0  # training time of the whole schedule, all runs of it together
    batch: int = 96  # examples a step
    length: int = 320  # tokens of a sequence, prompt and answer
    max_question: int = 48  # tokens of a question; longer ones are cut in training
    canvas: int = 336  # pixels
    text_rate: float = 2e-4  # peak learning rate of the text trunk
    vision_rate: float = 6e-4  # of the vision tower and the two mask heads
    weight_decay: float = 0.05
    warmup: int = 200  # steps
    ema: float = 0.9985  # decay of the averaged weights, which are the ones saved
    absent_share: float = 0.12  # of examples ask for what is not there
    warp_share: float = 0.65  # of pictures are moved; the rest keep their place
    roughen: float = 0.25  # of questions get a typing slip
    balance: float = 0.3  # 0 draws targets as often as they occur, 1 draws every name equally often
    number_spread: float = 2.5  # pixels; width of the soft label of a coordinate
    text_weight: float = 1.5
    number_weight: float = 1.0
    overlap_weight: float = 1.0  # of 1 - GIoU of the expected box
    mask_weight: float = 0.6  # of each mask head
    mask_layers: tuple[int, ...] = (14, 22)  # text layers that carry a mask head
    mix: dict[str, float] = field(
        default_factory=lambda: {"implicit": 0.34, "visual": 0.18, "clinical": 0.18, "terse": 0.18, "explicit": 0.12}
    )
    seed: int = 0

    @classmethod
    def from_yaml(cls, path: Path) -> SftConfig:
        """Read a YAML file; raises `MedReasonerError` naming what does not fit."""
        return read_yaml(path, cls)
