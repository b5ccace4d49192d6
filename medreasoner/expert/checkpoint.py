"""Weights on disk: where they belong, and reading them so that a wrong file gives one clear error."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medreasoner.contract.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn


def sha256_of(paths: Sequence[Path]) -> str:
    """Hash the bytes of files, one after the other.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}", "give the checkpoint's file") from error
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a torch checkpoint, unwrapping the ``{"model": weights}`` of a training run; runs no code from the file.

    Raises:
        CheckpointError: the file is damaged, or holds something else.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged or is no torch checkpoint", "fetch the file again") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path} is a torch file without weights", "fetch the file again")
    return state


def load_strictly(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put weights into a network; each tensor must be there, fit, and have a place.

    Raises:
        CheckpointError: they are of another network.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds the weights of another network than {type(module).__name__}",
            "check the file's name against `medreasoner models`",
        ) from error
