"""Load a folder's model of the Qwen2.5-VL family onto a device: plain or int8 rows, with its adapter merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.adapter import has_adapter, merge_adapter
from medreasoner.reasoner.card import ReasonerCard, base_folder
from medreasoner.reasoner.quantised import folder_hash, load_quantised


def out_of_memory(error: BaseException) -> bool:
    """Say whether PyTorch, which raises RuntimeError for it, ran out of memory."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def checked_device(device: str | None) -> str:
    """Return the device, a GPU for None where there is one; raises `CheckpointError` for one that is not there."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise CheckpointError(f"there is no device called {device!r}", "use cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("PyTorch finds no GPU here", "use --device cpu, or check the driver with nvidia-smi")
    return device


def load_model(folder: Path, card: ReasonerCard, device: str) -> tuple[Any, str]:
    """Load the model in float32 on the CPU, bfloat16 on a GPU; return it with the hash of its weights.

    Raises:
        CheckpointError: files are missing or damaged, the model is of another kind, or the adapter of other weights.
        MemoryError: it does not fit.
    """
    base = base_folder(folder, card)
    if not (base / "config.json").exists():
        raise CheckpointError(f"no model in {base}", "give a folder with config.json, tokenizer and safetensors files")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    try:
        config = Qwen2_5_VLConfig.from_pretrained(base)
        if config.model_type != "qwen2_5_vl":
            raise CheckpointError(
                f"{base.name} is a {config.model_type} model", "use a checkpoint of the Qwen2.5-VL family"
            )
        if ReasonerCard.of(base).quantised == "int8-rows":
            with torch.device("meta"):
                model: Any = Qwen2_5_VLForConditionalGeneration(config)
            model.to_empty(device="cpu")
            missing, unexpected = model.load_state_dict(load_quantised(base), strict=False)
            if unexpected or [name for name in missing if name != "lm_head.weight"]:
                raise CheckpointError(f"the weights in {base} do not fit its config.json", "fetch the folder again")
            model.tie_weights()
            _restore_buffers(model)
        else:
            _check_plain(base)
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=dtype, local_files_only=True)
        if folder != base:
            _check_base(folder, card, base)
            merge_adapter(model.state_dict(), folder)
        folders = (base,) if folder == base else (base, folder)
        return model.to(device=device, dtype=dtype).eval(), folder_hash(*folders)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        if out_of_memory(error):
            raise MemoryError from error
        raise CheckpointError(f"the model in {folder} cannot be loaded: {error}", "fetch the folder again") from error


def _check_base(folder: Path, card: ReasonerCard, base: Path) -> None:
    """Refuse an adapter that was trained on other weights than its base now holds."""
    if card.base_sha256 not in ("", folder_hash(base)):
        raise CheckpointError(
            f"{folder} was trained on other weights than those in {base}, which an update has replaced",
            "train it again, or go back to the release that it was trained with",
        )


def _check_plain(base: Path) -> None:
    """Refuse an adapter beside plain weights: transformers adds it where PEFT is installed, and else leaves it out."""
    if has_adapter(base):
        raise CheckpointError(
            f"{base} holds an adapter beside plain weights",
            "put it into a folder of its own, with a medreasoner.json that names this one as its base",
        )


def _restore_buffers(model: Any) -> None:
    """Compute the rotary frequencies again: buffers that no checkpoint stores are empty after building on meta."""
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            fresh = type(module)(config=module.config)
            module.inv_freq = fresh.inv_freq
            if hasattr(module, "original_inv_freq"):
                module.original_inv_freq = fresh.original_inv_freq
