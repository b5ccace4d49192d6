"""Every knob of a local training run, with its unit (rl_training/configs/local.yaml)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from medreasoner.contract.errors import MedReasonerError
from medreasoner.expert.catalogue import DEFAULT_EXPERT
from medreasoner.reasoner.lineage import RULE, Rule
from rl_training.config import FinetuneConfig, GrpoConfig
from rl_training.config.reading import read_yaml


@dataclass(frozen=True)
class RuleConfig:
    """When a challenger may take over (medreasoner.reasoner.lineage)."""

    margin: float = RULE.margin  # of box IoU
    false_absent: float = RULE.false_absent  # share of present targets
    cases: int = RULE.cases  # of the hold-out, at least
    absent_recognised: float = RULE.absent_recognised  # share of absent targets

    def rule(self) -> Rule:
        return Rule(self.margin, self.false_absent, self.cases, self.absent_recognised)


@dataclass(frozen=True)
class LocalConfig:
    """What is trained, how it is started, and by which rule it takes over.

    `finetune.reasoner` is what is trained; the reinforcement stage, where there is one, goes on with its adapter.
    `launch` comes before ``-m rl_training.finetune``: empty is this Python; for several GPUs for example
    ``[accelerate, launch, --num_processes, "8"]``.
    """

    finetune: FinetuneConfig
    grpo: GrpoConfig | None = None
    launch: tuple[str, ...] = ()
    tag: str = "final"  # of the labels
    holdout: float = 0.2  # share of the labels, whole patients, that nothing is ever trained on
    expert: str = DEFAULT_EXPERT  # of the comparison
    device: str = ""  # of the comparison: cpu or cuda; empty: a GPU where there is one
    rule: RuleConfig = field(default_factory=RuleConfig)
    keep: int = 5  # checkpoints of the registry, beside the champion and the one before it

    def __post_init__(self) -> None:
        for stage in self.stages.values():
            if stage.lora is None or stage.adapter:
                raise MedReasonerError(
                    "a local run trains adapters, and its own only", "set lora in every stage, and no adapter"
                )
            if stage.reasoner != self.finetune.reasoner:
                raise MedReasonerError("the stages name two reasoners", "let both train the same one")
        if not 0 < self.holdout < 1:
            raise MedReasonerError(f"a hold-out of {self.holdout:g} of the labels is none", "give a share, such as 0.2")

    @property
    def stages(self) -> dict[str, FinetuneConfig | GrpoConfig]:
        """The stages in their order, by the name of their command."""
        return {"finetune": self.finetune, **({"grpo": self.grpo} if self.grpo else {})}

    @classmethod
    def from_yaml(cls, path: Path) -> LocalConfig:
        """Read a YAML file; raises `MedReasonerError` naming what does not fit."""
        return read_yaml(path, cls)

    def of(self, reasoner: str) -> LocalConfig:
        """Return the configuration for another reasoner; the same one where no name is given."""
        if not reasoner:
            return self
        grpo = replace(self.grpo, reasoner=reasoner) if self.grpo else None
        return replace(self, finetune=replace(self.finetune, reasoner=reasoner), grpo=grpo)
