"""Rewards for GRPO: plain functions as TRL calls them, one float a completion. docs/rewards.md lists all of them."""

from rl_training.rewards.beyond import absent, brevity, iou, mask_dice, masks_from
from rl_training.rewards.combining import REWARDS, combine
from rl_training.rewards.paper import (
    base,
    box_align,
    box_iou,
    box_scale,
    format_reward,
    paper_hard,
    paper_soft,
    point_align,
    point_angle,
    point_dice,
)
from rl_training.rewards.published import seed_hard, seed_soft

__all__ = [
    "REWARDS",
    "absent",
    "base",
    "box_align",
    "box_iou",
    "box_scale",
    "brevity",
    "combine",
    "format_reward",
    "iou",
    "mask_dice",
    "masks_from",
    "paper_hard",
    "paper_soft",
    "point_align",
    "point_angle",
    "point_dice",
    "seed_hard",
    "seed_soft",
]
