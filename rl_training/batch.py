"""What the feed hands over: the tokens of some questions and answers, and which pictures and masks go with them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch


@dataclass
class Batch:
    """Tokens on the CPU; `numbers` and `words` say where the place goes in.

    Attributes:
        ids: (batch, length) long, right-padded.
        weight: (batch, length) float, loss weight of each token as a target; 0 for prompt, padding and numbers.
        image_start: (batch,) long.
        numbers: (batch, 8) long, positions of the coordinates; -1 where absent.
        words: (batch, 3) long, positions of size, row and column words; -1 where absent.
        sample: (batch,) long, row of the sample whose picture is shown.
        there: (batch,) bool, whether the target is in the picture.
        warp, across, down: (batch,) bool, see rl_training.warp.Freedom.
    """

    ids: torch.Tensor
    weight: torch.Tensor
    image_start: torch.Tensor
    numbers: torch.Tensor
    words: torch.Tensor
    sample: torch.Tensor
    there: torch.Tensor
    warp: torch.Tensor
    across: torch.Tensor
    down: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy to the device without waiting."""
        moved = {
            f.name: getattr(self, f.name).pin_memory() if device.type == "cuda" else getattr(self, f.name)
            for f in fields(self)
        }
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in moved.items()})
