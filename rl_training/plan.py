"""What a run will do and need, before it does it: steps, tokens, memory. docs/scaling.md shows the arithmetic."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from medreasoner.contract.errors import CheckpointError
from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.card import ReasonerCard
from rl_training.config import GrpoConfig, Stage
from rl_training.shapes import Shape, configuration, shape_in, shape_of
from rl_training.stage import attention_of, canvases, devices
from rl_training.starting import find_folder, stage_card

GIB = 1024**3
# Values that a layer keeps for its backward pass, in widths of the trunk, counted as Korthikanti et al. do (2022,
# https://arxiv.org/abs/2205.05198, 4.1): 5 of attention without its matrix, which neither flash-attn nor sdpa keeps, 3
# of each norm, which is computed in fp32, the input of the gated MLP, and 4 of its own width inside
_KEPT, _KEPT_INSIDE = 12, 4
TEXT_TOKENS = {"direct": 48, "full": 272}  # of a prompt, beside the picture's: instruction, marks, a question of 20
ANSWER_TOKENS = 256  # of a taught answer, where numbers are written digit by digit


@dataclass(frozen=True)
class Memory:
    """GiB on each GPU, by what holds them."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    rollouts: float

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))


def memory(config: Stage, shape: Shape, prompt: int, gpus: int) -> Memory:
    """Estimate the peak on each GPU for prompts of so many tokens.

    Mixed precision: 2 bytes a weight and gradient, 12 a trained parameter for the optimizer (fp32 copy, two moments),
    spread over the GPUs by ZeRO-2 (gradients, optimizer) or ZeRO-3 (weights too). Without DeepSpeed the trained weights
    themselves are fp32.
    """
    everywhere, trained = shape.parameters, shape.parameters
    if config.lora is not None:
        trained = shape.adapter_parameters(config.lora.rank, config.lora.layers)
        everywhere += trained
    sharded, halved = bool(config.deepspeed), config.precision == "bf16"
    wide = 2 if halved and (sharded or config.lora) else 4
    spread = gpus if sharded else 1
    spread_weights = gpus if config.deepspeed == "zero3" else 1
    grpo = config if isinstance(config, GrpoConfig) else None
    tokens = prompt + (grpo.max_completion if grpo else ANSWER_TOKENS)
    held = config.micro_batch * tokens * shape.hidden * (2 if halved else 4)
    kept = _KEPT + _KEPT_INSIDE * shape.inner / shape.hidden
    layers = held * (shape.layers + kept if config.recompute else shape.layers * kept)
    logits = 0 if grpo else config.micro_batch * tokens * shape.vocabulary * 8  # TRL never makes GRPO's whole
    return Memory(
        weights=everywhere * wide / spread_weights / GIB,
        gradients=trained * wide / spread / GIB,
        optimizer=trained * (12 if wide == 2 else 8) / spread / GIB,
        reference=shape.parameters * wide / spread_weights / GIB
        if grpo and grpo.kl_weight and not config.lora
        else 0.0,
        activations=(layers + logits) / GIB,
        rollouts=_rollouts(grpo, shape, tokens, gpus) if grpo else 0.0,
    )


def _rollouts(config: GrpoConfig, shape: Shape, tokens: int, gpus: int) -> float:
    """GiB of a colocated vLLM, or of transformers' keys and values for all completions of a generation at once.

    Under ZeRO-3 TRL gathers the whole weights on each GPU while transformers generates.
    """
    if config.vllm is not None:
        return config.vllm.memory_share * config.gpu_memory_gb if config.vllm.mode == "colocate" else 0.0
    rows = math.ceil(config.questions_per_generation * config.group / gpus)
    gathered = shape.parameters if config.deepspeed == "zero3" else 0
    kept = rows * tokens * shape.layers * 2 * shape.key_value
    return (kept + gathered) * (2 if config.precision == "bf16" else 4) / GIB


def prompt_tokens(shape: Shape, card: ReasonerCard) -> int:
    """Tokens of a prompt: the picture's and, about, the text's."""
    return (card.canvas // shape.image_side) ** 2 + TEXT_TOKENS[card.instruction]


def updates(config: Stage, rows: int) -> int:
    """Updates of the whole run."""
    if config.max_updates:
        return config.max_updates
    if isinstance(config, GrpoConfig):
        return int(config.epochs * (rows // config.questions_per_generation) * config.updates_per_generation)
    return math.ceil(config.epochs * math.ceil(rows / config.examples_per_update))


def print_plan(config: Stage, data: Path) -> None:
    """Print the configuration and what follows from it.

    Raises:
        CheckpointError: the starting folder is not here and the configuration names no shape to reckon with.
        MedReasonerError: the data cannot be used.
    """
    out = Console(highlight=False)
    out.print(yaml.safe_dump(plain_values(asdict(config)), sort_keys=False).rstrip(), style="dim", markup=False)
    try:
        folder = find_folder(config.reasoner)
        shape, known = shape_in(folder), "measured from its config.json"
    except CheckpointError:
        if not config.shape:
            raise
        folder = Path(config.reasoner)
        shape, known = (
            shape_of(configuration(config.shape)),
            f"not on this machine; reckoned with the {config.shape} shape",
        )
    card = stage_card(config, folder)
    train, held = canvases(config, data, card)
    prompt = prompt_tokens(shape, card)
    gpus = devices() if devices() > 1 else config.gpus
    table = Table("plan", "", title=f"{type(config).__name__} of {folder.name}")
    for line in (
        ("starting folder", f"{known}, {shape.parameters / 1e9:.2f} B parameters"),
        ("instruction", f"{card.instruction}, {instruction_hash(card.instruction)[:12]}"),
        (
            "canvas",
            f"{card.canvas} px, {prompt} prompt tokens, about {TEXT_TOKENS[card.instruction]} of them text",
        ),
        ("questions", f"{len(train)} to train on, {0 if held is None else len(held)} to validate with"),
        (
            "an update",
            f"{config.examples_per_update} examples: {config.micro_batch} x {config.accumulation(gpus)} x {gpus} GPUs",
        ),
        ("updates", str(updates(config, len(train)))),
        ("attention", attention_of(config)),
        *_memory_lines(memory(config, shape, prompt, gpus), config.gpu_memory_gb),
    ):
        table.add_row(*line)
    out.print(table)


def _memory_lines(needed: Memory, there: float) -> list[tuple[str, str]]:
    lines = [(f"GiB a GPU, {name}", f"{value:.1f}") for name, value in asdict(needed).items()]
    fits = "fits" if needed.total < there else "does NOT fit"
    return [*lines, ("GiB a GPU, total", f"{needed.total:.1f} of {there:g}: {fits}")]


def plain_values(values: object) -> Any:
    if isinstance(values, dict):
        return {key: plain_values(value) for key, value in values.items()}
    return [plain_values(v) for v in values] if isinstance(values, (list, tuple)) else values
