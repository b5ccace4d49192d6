"""LiteMedSAM tuned to a box and two points: its own image encoder, our prompt encoder and mask decoder.

`python -m rl_training.expert` made the weights; weights/litemedsam_points/README.md says from what and how good.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file

from medreasoner.contract.errors import CheckpointError
from medreasoner.expert.checkpoint import load_strictly, sha256_of
from medreasoner.expert.litemedsam import LiteMedSam
from medreasoner.expert.protocol import BOX_AND_POINTS

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, CARD = "decoder.safetensors", "card.json"
TUNED = ("prompt_encoder", "mask_decoder")


class LiteMedSamPoints(LiteMedSam):
    """Takes a box with points on the target, or a box alone."""

    def __init__(self, folder: Path, encoder: Path, pictures_kept: int = 16) -> None:
        """Load the tuned parts from a folder and the image encoder from LiteMedSAM's published file.

        Raises:
            CheckpointError: a file is missing or damaged, or the folder's weights are not those that its card names.
        """
        super().__init__(encoder, pictures_kept=pictures_kept)
        path = folder / WEIGHTS
        own = checked_sha256(path, folder / CARD)
        self.name, self.takes = "litemedsam-points", BOX_AND_POINTS
        self.sha256 = own  # the encoder's file is always the published one
        load_tuned(self.network, path)


def load_tuned(network: nn.Module, path: Path) -> None:
    """Put a prompt encoder and a mask decoder into a LiteMedSAM network.

    Raises:
        CheckpointError: the file is damaged, or of another model.
    """
    try:
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged", "fetch the repository's files again") from error
    for part in TUNED:
        own = {n.removeprefix(f"{part}."): tensor for n, tensor in weights.items() if n.startswith(f"{part}.")}
        load_strictly(network.get_submodule(part), own, path)


def checked_sha256(path: Path, card: Path) -> str:
    """Return the SHA-256 of the weights, which must be the one that the card beside them names.

    Raises:
        CheckpointError: a file cannot be read, or the hashes differ.
    """
    found = sha256_of([path])
    try:
        expected = json.loads(card.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{card} is missing or names no SHA-256", "fetch the repository's files again") from error
    if found != expected:
        raise CheckpointError(
            f"{path} is not what its card describes: its SHA-256 begins with {found[:12]}",
            "fetch the repository's files again, or write the card anew with `python -m rl_training.expert export`",
        )
    return found
