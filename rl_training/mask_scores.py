"""Dice of the masks that a frozen LiteMedSAM draws for many answers about a few pictures, on the training device.

`rl_training.rewards.mask_dice` asks the product's expert once an answer; this asks for all answers about a picture at
once, on the canvas of the network. tests/rl/test_embedded_grpo.py holds the two to each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from medreasoner.contract.answer import Answer, GroundingAnswer
from medreasoner.expert import load_expert
from medreasoner.expert.box_decoder import decode_prompts
from medreasoner.expert.litemedsam import CANVAS, LiteMedSam


class MaskScores:
    """The default expert, of the LiteMedSAM family, frozen."""

    def __init__(self, device: torch.device) -> None:
        """Load the default expert; raises `CheckpointError` where its weights are missing."""
        expert = load_expert()
        assert isinstance(expert, LiteMedSam)
        self._network = expert.network.to(device).eval().requires_grad_(False)
        self._with_points = "points" in expert.takes

    @torch.no_grad()
    def dice(self, pictures: torch.Tensor, masks: torch.Tensor, answers: Sequence[Answer | None]) -> list[float]:
        """Score answers, which lie group after group.

        Args:
            pictures: (questions, 3, side, side) float in [0, 1].
            masks: (questions, side, side), 1 on the target; all 0 where it is absent.
            answers: questions * group of them, in the pictures' pixels; None for what could not be read.

        Returns:
            Dice in [0, 1] each; 0 for unreadable and absent answers and for absent targets.
        """
        seen = F.interpolate(pictures, size=(CANVAS, CANVAS), mode="bilinear", antialias=True)
        low, high = seen.amin((1, 2, 3), keepdim=True), seen.amax((1, 2, 3), keepdim=True)
        features = self._network.image_encoder((seen - low) / (high - low).clamp(min=1e-8))
        truth = F.interpolate(masks[:, None].float(), size=(CANVAS, CANVAS), mode="area")[:, 0] > 0.5
        group, scale = len(answers) // len(pictures), CANVAS / pictures.shape[-1]
        scores = [0.0] * len(answers)
        for question in range(len(pictures)):
            if not truth[question].any():
                continue
            rows = range(question * group, (question + 1) * group)
            boxed = [(row, answer) for row in rows if isinstance(answer := answers[row], GroundingAnswer)]
            if not boxed:
                continue
            boxes = torch.tensor([answer.box.as_list() for _, answer in boxed]) * scale
            points = torch.tensor([[[p.x, p.y] for p in answer.points] for _, answer in boxed]) * scale
            limits = (0, CANVAS)
            logits, _ = decode_prompts(
                self._network,
                features[question : question + 1],
                boxes.clamp(*limits),
                points.clamp(*limits) if self._with_points else None,
            )
            found = logits[:, 0] > 0
            both = (found & truth[question]).sum((1, 2))
            whole = found.sum((1, 2)) + truth[question].sum()
            for (row, _), value in zip(boxed, (2 * both / whole).tolist(), strict=True):
                scores[row] = value
        return scores
