"""Every knob of the embedded reasoner's two stages (rl_training/sft.py, embedded_grpo.py), with its unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medreasoner.contract.errors import MedReasonerError
from rl_training.config.reading import read_yaml
from rl_training.rewards import REWARDS


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
    splits: dict[str, float] = field(default_factory=lambda: {"train": 1.0})  # drawn from, and weight of each target
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.splits or not set(self.splits) <= {"train", "val"}:
            raise MedReasonerError(f"nothing is learnt from the splits {list(self.splits)}", "use train, val or both")

    @classmethod
    def from_yaml(cls, path: Path) -> SftConfig:
        """Read a YAML file; raises `MedReasonerError` naming what does not fit."""
        return read_yaml(path, cls)


@dataclass(frozen=True)
class EmbeddedGrpoConfig:
    """Reinforcement learning of the embedded reasoner by low-rank adapters (rl_training/embedded_grpo.py)."""

    rewards: dict[str, float] = field(default_factory=dict)  # name -> weight (docs/rewards.md); none: supervised only
    supervised_weight: float = 0.0  # of the supervised stage's loss on the same pictures and questions
    steps: int = 300  # of the whole schedule, all runs of it together
    questions: int = 32  # a step
    group: int = 16  # answers to each
    micro_batch: int = 8  # questions whose answers are in memory at a time
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 2e-4  # peak
    warmup: int = 10  # steps
    kl_weight: float = 0.02  # of the low-variance estimator of the divergence from the start
    clip_gradient: float = 1.0  # norm
    prompt: int = 208  # tokens of the longest prompt, 144 of them the picture's
    answer: int = 128  # tokens of the longest answer; longer ones are cut and earn nothing
    absent_share: float = 0.12  # see SftConfig for this and what follows of the same name
    warp_share: float = 0.65
    warp_strength: float = 1.0  # of the moves, see rl_training.warp
    roughen: float = 0.25
    balance: float = 0.3
    max_question: int = 48
    splits: dict[str, float] = field(default_factory=lambda: {"train": 1.0})
    save_every: int = 20  # steps
    validate_every: int = 100  # steps; 0: never
    validation_questions: int = 192
    seed: int = 0

    def __post_init__(self) -> None:
        known = [name for name in REWARDS if name != "brevity"]  # answers end before it begins to fall
        if unknown := [name for name in self.rewards if name not in known]:
            raise MedReasonerError(f"no such rewards: {unknown}", f"choose from {', '.join(known)}")
        if not self.rewards and not self.supervised_weight:
            raise MedReasonerError("nothing is rewarded or taught", "set rewards, supervised_weight or both")
        if self.group < 2:
            raise MedReasonerError("a group of one answer has no advantage to compare", "set group to 2 or more")
        if self.questions % self.micro_batch:
            raise MedReasonerError(
                f"{self.questions} questions do not divide into micro-batches of {self.micro_batch}",
                "change micro_batch",
            )
        self.supervised()  # refuses splits that nothing is learnt from
        if self.validate_every and "val" in self.splits:
            raise MedReasonerError("what is learnt from cannot validate", "set validate_every to 0, or leave val out")

    def supervised(self) -> SftConfig:
        """Return what the supervised stage's data and losses take, without its mask heads."""
        return SftConfig(
            batch=self.questions,
            max_question=self.max_question,
            absent_share=self.absent_share,
            warp_share=self.warp_share,
            roughen=self.roughen,
            balance=self.balance,
            mask_layers=(),
            splits=self.splits,
            seed=self.seed,
        )

    @classmethod
    def from_yaml(cls, path: Path) -> EmbeddedGrpoConfig:
        """Read a YAML file; raises `MedReasonerError` naming what does not fit."""
        return read_yaml(path, cls)
