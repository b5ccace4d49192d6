"""Configurations of the training stages: YAML on disk, a frozen dataclass in code."""

from rl_training.config.embedded import EmbeddedGrpoConfig, SftConfig
from rl_training.config.stages import FinetuneConfig, GrpoConfig, Lora, Stage, Vllm

__all__ = ["EmbeddedGrpoConfig", "FinetuneConfig", "GrpoConfig", "Lora", "SftConfig", "Stage", "Vllm"]
