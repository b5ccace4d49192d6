"""Every knob of the two stages that train any Qwen2.5-VL folder, with its unit (rl_training/finetune.py, grpo.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medreasoner.contract.errors import MedReasonerError
from rl_training.config.reading import read_yaml
from rl_training.rewards import REWARDS


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the text trunk; the vision tower stays frozen."""

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.0
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Vllm:
    """Rollouts by vLLM, in an environment that has it (docs/scaling.md)."""

    mode: Literal["colocate", "server"] = "colocate"  # on the training GPUs, or `trl vllm-serve` elsewhere
    host: str = "127.0.0.1"  # of the server
    port: int = 8000
    memory_share: float = 0.3  # of each GPU, for a colocated engine
    tensor_parallel: int = 1  # GPUs that share one colocated engine


@dataclass(frozen=True)
class Stage(ABC):
    """What both stages share.

    `reasoner` is what `medreasoner ask --reasoner` takes: "embedded", a folder's name or path. `shape` stands for it in
    a dry run on a machine that does not have the folder. `gpus` and `gpu_memory_gb` are what a dry run reckons with.
    """

    reasoner: str
    name: str = "medreasoner"  # in the card of the folder that comes out
    shape: Literal["", "embedded", "3b", "7b"] = ""
    canvas: int | None = None  # pixels a side; None here and below: as the starting folder's card says
    instruction: Literal["direct", "full"] | None = None
    may_abstain: bool | None = None
    absent_share: float = 0.1  # of the questions, at most, ask for what is not there, if the reasoner may say so
    wordings: int = 1  # questions about each target in an epoch
    augment: bool = False  # move and vary each question's picture (rl_training.dataset.augmentation)
    epochs: float = 1.0
    max_updates: int = 0  # 0: as many as the epochs have
    micro_batch: int = 1  # examples, or completions, a device at a time
    learning_rate: float = 1e-6
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: float = 0.0  # share of all updates
    weight_decay: float = 0.01
    clip_gradient: float = 1.0  # norm
    precision: Literal["bf16", "fp32"] = "bf16"  # on a GPU; the CPU always computes in fp32
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = "auto"  # auto: flash-attn where it is installed
    recompute: bool = True  # activations in the backward pass, for memory
    deepspeed: Literal["", "zero2", "zero3"] = ""  # rl_training/configs/deepspeed
    lora: Lora | None = None
    adapter: str = ""  # folder of an adapter to go on training, as it is, instead of a new one
    save_every: int = 50  # updates
    keep: int = 2  # checkpoints
    log_every: int = 1  # updates
    validate_every: int = 0  # updates; 0: never
    validation_questions: int = 64
    minutes: float = 0.0  # of one run, after which it saves and stops; 0: no limit
    seed: int = 0
    gpus: int = 1
    gpu_memory_gb: float = 80.0

    def __post_init__(self) -> None:
        if (self.lora is not None or self.adapter) and self.deepspeed == "zero3":
            raise MedReasonerError(
                "adapters under zero3 are saved as shards that cannot be merged",
                "use zero2: adapters need little memory",
            )

    @property
    @abstractmethod
    def examples_per_update(self) -> int:
        """Examples, or completions, whose gradients make one update, all devices together."""

    def accumulation(self, devices: int) -> int:
        """Return how many micro-batches of each device make one update.

        Raises:
            MedReasonerError: the batch does not divide into whole micro-batches on so many devices.
        """
        steps, rest = divmod(self.examples_per_update, self.micro_batch * devices)
        if rest or not steps:
            raise MedReasonerError(
                f"{self.examples_per_update} examples an update do not divide into micro-batches of {self.micro_batch} "
                f"on {devices} devices",
                "change micro_batch, the batch or the number of devices",
            )
        return steps


@dataclass(frozen=True)
class FinetuneConfig(Stage):
    """The supervised stage; the defaults are the paper's baseline but for the number of GPUs."""

    learning_rate: float = 5e-6
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: float = 0.1
    batch: int = 16  # examples an update
    max_tokens: int = 2048  # prompt and answer; a longer example is an error
    only_known: bool = False  # teach no kind of image and no lack of looks that nobody knows (rl_training.reasoning)

    @property
    def examples_per_update(self) -> int:
        return self.batch

    @classmethod
    def from_yaml(cls, path: Path) -> FinetuneConfig:
        """Read a YAML file; raises `MedReasonerError` naming what does not fit."""
        return read_yaml(path, cls)


@dataclass(frozen=True)
class GrpoConfig(Stage):
    """Group relative policy optimisation; the defaults are the paper's but for the number of GPUs.

    `questions_per_generation` is the paper's batch: each gets `group` completions, then `questions_per_update` of them
    at a time make an update. `kl_weight` weighs the low-variance estimator of the divergence from the starting folder.
    """

    rewards: dict[str, float] = field(default_factory=lambda: {"paper_soft": 1.0})  # name -> weight (docs/rewards.md)
    free_tokens: int = 128  # of `brevity`
    limit_tokens: int = 512
    expert: str = "litemedsam"  # of `mask_dice`
    group: int = 16
    questions_per_generation: int = 128
    questions_per_update: int = 64
    kl_weight: float = 0.01
    clip: float = 0.2  # of the probability ratio, downwards and upwards ...
    clip_high: float | None = None  # ... unless this says otherwise upwards
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "dapo"  # dapo: mean over the tokens of an update
    temperature: float = 1.0
    max_prompt: int = 2048  # tokens; a longer prompt is an error
    max_completion: int = 2048  # tokens; longer ones are cut and earn no format reward
    vllm: Vllm | None = None  # None: transformers generates

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.rewards if name not in REWARDS]:
            raise MedReasonerError(f"no such rewards: {unknown}", f"choose from {', '.join(REWARDS)}")
        if not self.rewards:
            raise MedReasonerError("nothing is rewarded", f"choose from {', '.join(REWARDS)}")
        if self.group < 2:
            raise MedReasonerError("a group of one completion has no advantage to compare", "set group to 2 or more")
        if self.questions_per_generation % self.questions_per_update:
            raise MedReasonerError(
                "questions_per_generation is no multiple of questions_per_update",
                "let whole updates use up a generation",
            )
        if self.save_every % self.updates_per_generation:
            raise MedReasonerError(
                f"save_every {self.save_every} would fall into a generation, where no run can be resumed exactly",
                f"make it a multiple of {self.updates_per_generation}",
            )

    @property
    def updates_per_generation(self) -> int:
        """Updates made from the completions of one generation."""
        return self.questions_per_generation // self.questions_per_update

    @property
    def examples_per_update(self) -> int:
        return self.questions_per_update * self.group

    @classmethod
    def from_yaml(cls, path: Path) -> GrpoConfig:
        """Read a YAML file; raises `MedReasonerError` naming what does not fit."""
        return read_yaml(path, cls)
