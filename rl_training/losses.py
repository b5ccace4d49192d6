"""Losses of the supervised stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def soft_number_loss(logits: torch.Tensor, truth: torch.Tensor, numbers: torch.Tensor, spread: float) -> torch.Tensor:
    """Cross-entropy of a coordinate against a Gaussian around the true number, over the whole vocabulary.

    Args:
        logits: (n, vocabulary) float.
        truth: (n,) long, true numbers in pixels.
        numbers: (canvas + 1,) long, token of each number.
        spread: standard deviation of the soft label in pixels.

    Returns:
        (n,) float, at least the entropy of the soft label.
    """
    log_share = logits.float().log_softmax(-1)[:, numbers]
    steps = torch.arange(len(numbers), device=logits.device)
    label = torch.softmax(-((steps[None] - truth[:, None]) ** 2) / (2 * spread**2), dim=-1)
    return -(label * log_share).sum(-1)


def expected_number(logits: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Mean of the distribution over numbers, (n,) float pixels."""
    share = logits[:, numbers].float().softmax(-1)
    return share @ torch.arange(len(numbers), device=logits.device, dtype=torch.float32)


def giou(boxes: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Generalised IoU of paired boxes, in [-1, 1] (Rezatofighi et al., CVPR 2019, https://arxiv.org/abs/1902.09630).

    Args:
        boxes: (n, 4) x_min, y_min, x_max, y_max; inverted sides count as zero width.
        truth: (n, 4).
    """
    low, high = torch.maximum(boxes[:, :2], truth[:, :2]), torch.minimum(boxes[:, 2:], truth[:, 2:])
    overlap = (high - low).clamp(min=0).prod(1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1)
    union = sizes - overlap
    hull_low, hull_high = torch.minimum(boxes[:, :2], truth[:, :2]), torch.maximum(boxes[:, 2:], truth[:, 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(1).clamp(min=1)
    return overlap / union.clamp(min=1) - (hull - union) / hull


def mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy plus soft Dice loss of coarse masks.

    Args:
        logits: (batch, side, side) float.
        masks: (batch, side, side) float in [0, 1]; for an empty mask only the cross-entropy counts.

    Returns:
        scalar mean over the batch.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").flatten(1).mean(1)
    share = logits.sigmoid()
    overlap = (share * masks).flatten(1).sum(1)
    dice = 1 - (2 * overlap + 1) / (share.flatten(1).sum(1) + masks.flatten(1).sum(1) + 1)
    return (entropy + torch.where(masks.flatten(1).sum(1) > 0, dice, torch.zeros_like(dice))).mean()
