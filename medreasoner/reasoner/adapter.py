"""Low-rank adapters (LoRA, Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685) in PEFT's own two files.

A folder with an adapter is small: it names the folder whose weights it changes (`ReasonerCard.base`). Beside int8 rows
an adapter may also lie in the same folder. The product merges adapters when it loads a folder, so that an answer costs
the same with and without one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medreasoner.contract.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_UNKNOWN_HERE = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "fan_in_fan_out")


def has_adapter(folder: Path) -> bool:
    """Say whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


@torch.no_grad()
def merge_adapter(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Add an adapter's ``alpha / rank * B A`` to the matrices it belongs to.

    Args:
        state: weights by name, each (outputs, inputs) where the adapter has A (rank, inputs) and B (outputs, rank);
            changed in place.
        folder: holds `CONFIG` and `WEIGHTS`.

    Raises:
        CheckpointError: the adapter is damaged, of a kind that cannot be merged here, or of other weights.
    """
    scale = _scale(folder)
    try:
        parts = load_file(folder / WEIGHTS)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error}", "fetch the folder again") from error
    downs = {name.removesuffix(_DOWN): tensor for name, tensor in parts.items() if name.endswith(_DOWN)}
    ups = {name.removesuffix(_UP): tensor for name, tensor in parts.items() if name.endswith(_UP)}
    names = {name: name.removeprefix(_PREFIX) + ".weight" for name in downs}
    if not downs or downs.keys() != ups.keys() or len(parts) != 2 * len(downs):
        raise CheckpointError(f"{folder / WEIGHTS} does not hold pairs of matrices", "save it as a plain LoRA adapter")
    for name, down in downs.items():
        weight, up = state.get(names[name]), ups[name]
        if weight is None or weight.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
            raise CheckpointError(f"the adapter in {folder} is of other weights: {name}", "give its own base folder")
        weight.add_((scale * (up.float() @ down.float())).to(weight))


def _scale(folder: Path) -> float:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG} is no adapter's description: {error}", "fetch it again") from error
    odd = [name for name in _UNKNOWN_HERE if config.get(name)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or odd or rank < 1:
        raise CheckpointError(
            f"the adapter in {folder} is no plain LoRA ({', '.join(odd) or config.get('peft_type')})",
            "merge it with PEFT into its base folder first",
        )
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
