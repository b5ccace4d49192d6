"""What both stages' trainers are made of: arguments, model, adapters, attention, rows."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.card import ReasonerCard
from rl_training.config import Stage
from rl_training.rows import Canvas, rows_of
from rl_training.starting import find_folder, plain_folder, stage_card

if TYPE_CHECKING:
    from peft import LoraConfig

DEEPSPEED = Path(__file__).parent / "configs" / "deepspeed"


@dataclass(frozen=True)
class Start:
    """Everything a trainer is made of, but its arguments."""

    folder: Path
    card: ReasonerCard
    model: Any
    processor: Any
    train: Canvas
    validation: Canvas | None


def devices() -> int:
    """Return how many processes torchrun or accelerate started; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def attention_of(config: Stage) -> str:
    """Return the attention that will be used; "auto" takes flash-attn where a GPU and the package are there."""
    if config.attention != "auto":
        return config.attention
    flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if flash and config.precision == "bf16" else "sdpa"


def open_start(config: Stage, data: Path, run: Path, arguments: Any) -> Start:
    """Load model, processor and rows; raises `MedReasonerError` for whatever of it cannot be used."""
    given = find_folder(config.reasoner)
    card = stage_card(config, given)
    train, validation = canvases(config, data, card)
    with arguments.main_process_first(local=False, desc="unpack the starting folder"):
        run.mkdir(parents=True, exist_ok=True)
        folder = plain_folder(given, run)
    model = load_model(config, folder)
    return Start(folder, card, model, AutoProcessor.from_pretrained(folder), train, validation)


def load_model(config: Stage, folder: Path) -> Any:
    """Load a plain folder in the precision that the configuration trains in."""
    if config.deepspeed:
        import deepspeed

        deepspeed.init_distributed()  # transformers does it on GPUs only; the model is loaded in parts of this world
    half = config.precision == "bf16" and torch.cuda.is_available()
    # without DeepSpeed the trained weights themselves must be fp32; frozen ones under adapters need not
    dtype = torch.bfloat16 if half and (config.deepspeed or config.lora) else torch.float32
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention_of(config), local_files_only=True
    )


def canvases(config: Stage, data: Path, card: ReasonerCard) -> tuple[Canvas, Canvas | None]:
    """Return the training rows, and the validation rows where they are asked for."""
    absent = config.absent_share if card.may_abstain else 0.0
    rows = rows_of(data, "train", absent, config.wordings, config.seed)
    train = Canvas(rows, card, config.augment, config.seed)
    if not config.validate_every:
        return train, None
    held = rows_of(data, "val", absent, 1, config.seed)[: config.validation_questions]
    return train, Canvas(held, card)


def common_arguments(config: Stage, run: Path) -> dict[str, Any]:
    """Return what transformers' TrainingArguments take for either stage."""
    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(run),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_updates or -1,
        "per_device_train_batch_size": config.micro_batch,
        "per_device_eval_batch_size": config.micro_batch,
        "gradient_accumulation_steps": config.accumulation(devices()),
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup,  # a share of all updates when below 1
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.clip_gradient,
        "bf16": config.precision == "bf16" and gpu,
        "use_cpu": not gpu,
        "activation_checkpointing": config.recompute,
        "deepspeed": deepspeed_settings(config.deepspeed) if config.deepspeed else None,
        "logging_steps": config.log_every,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "eval_strategy": "steps" if config.validate_every else "no",
        "eval_steps": config.validate_every or None,
        "report_to": ["tensorboard"],
        "remove_unused_columns": False,
        "seed": config.seed,
        "disable_tqdm": False,
    }


def deepspeed_settings(name: str) -> dict[str, Any]:
    """Read one of configs/deepspeed; "auto" in it is filled in by transformers."""
    settings: dict[str, Any] = yaml.safe_load((DEEPSPEED / f"{name}.yaml").read_text(encoding="utf-8"))
    return settings


def adapters(config: Stage) -> LoraConfig | None:
    """Describe new adapters on the text trunk, whose layers alone are matched; None where none are to be made."""
    if config.lora is None or config.adapter:
        return None
    from peft import LoraConfig

    layers = "|".join(config.lora.layers)
    return LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=rf".*language_model\..*\.({layers})",
        task_type="CAUSAL_LM",
    )


def with_given_adapter(config: Stage, model: Any) -> Any:
    """Return the model with the adapter that the configuration goes on training; the model as it is without one.

    Raises:
        CheckpointError: the adapter is not there, or is of other weights.
    """
    if not config.adapter:
        return model
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, config.adapter, is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the adapter in {config.adapter} cannot be trained further: {error}", "name the folder it was made for"
        ) from error
