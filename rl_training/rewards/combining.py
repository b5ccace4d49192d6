"""From the names in a configuration to one reward function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from medreasoner.contract.errors import MedReasonerError
from rl_training.rewards import beyond, paper, published

Reward = Callable[..., list[float]]
REWARDS: dict[str, Reward] = {
    reward.__name__: reward
    for reward in (
        paper.format_reward,
        paper.box_iou,
        paper.box_align,
        paper.box_scale,
        paper.point_dice,
        paper.point_align,
        paper.point_angle,
        paper.paper_soft,
        paper.paper_hard,
        paper.base,
        published.seed_soft,
        published.seed_hard,
        beyond.mask_dice,
        beyond.absent,
        beyond.brevity,
    )
}


def combine(names: Sequence[str], weights: Sequence[float], **settings: Any) -> Reward:
    """Return the weighted sum of rewards as one reward function, named after its parts for TRL's log.

    Args:
        names: keys of `REWARDS`, each once.
        weights: one finite number a name, of either sign; the sum is not normalised.
        settings: what the dataset does not give: `expert` (`mask_dice`), `free_tokens`, `limit_tokens` (`brevity`).

    Raises:
        MedReasonerError: an unknown or repeated name, no name, another number of weights, a weight that is not
            finite, an unknown setting, or `mask_dice` without an expert.
    """
    _check(names, weights, settings)
    parts = [(REWARDS[name], float(weight)) for name, weight in zip(names, weights, strict=True)]

    def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        scores = [part(completions, **{**columns, **settings}) for part, _ in parts]
        return [sum(w * s for (_, w), s in zip(parts, row, strict=True)) for row in zip(*scores, strict=True)]

    reward.__name__ = "+".join(
        name if weight == 1 else f"{weight:g}*{name}" for name, weight in zip(names, weights, strict=True)
    )
    return reward


def _check(names: Sequence[str], weights: Sequence[float], settings: dict[str, Any]) -> None:
    if unknown := [name for name in names if name not in REWARDS]:
        raise MedReasonerError(f"no reward is called {', '.join(unknown)}", f"choose from {', '.join(REWARDS)}")
    if not names or len(set(names)) != len(names):
        raise MedReasonerError("a reward is named twice, or none is", "name each reward once and weigh it")
    if len(weights) != len(names) or not all(map(math.isfinite, weights)):
        raise MedReasonerError(
            f"{len(names)} rewards have the weights {list(weights)}", "give one finite weight a reward"
        )
    if strange := settings.keys() - {"expert", "free_tokens", "limit_tokens"}:
        raise MedReasonerError(f"no reward knows {', '.join(strange)}", "settings: expert, free_tokens, limit_tokens")
    if "mask_dice" in names and "expert" not in settings:
        raise MedReasonerError("mask_dice has no expert to ask", "pass expert=masks_from(load_expert())")
