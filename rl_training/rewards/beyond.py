"""Rewards beyond the paper: the mask that the answer leads to, absent targets, short answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medreasoner import geometry
from medreasoner.contract.answer import AbsentAnswer, Box, GroundingAnswer, Point
from medreasoner.contract.errors import AnswerError, MedReasonerError
from medreasoner.expert.protocol import SegmentationExpert
from medreasoner.metrics import dice
from medreasoner.picture import Picture
from rl_training.rewards.reading import BoxColumn, Completion, PointsColumn, read, scored, text_of

MaskOf = Callable[[Picture, Box, tuple[Point, Point]], NDArray[np.bool_]]


def mask_dice(
    completions: Sequence[Completion],
    picture: Sequence[Picture],
    mask: Sequence[ArrayLike | None],
    expert: MaskOf,
    **_: Any,
) -> list[float]:
    """Dice of the true mask and the one that the frozen expert draws for the answer's box and points, in [0, 1].

    0, and the expert is not asked, for an unreadable or absent answer, a box off the picture, an absent target. The
    idea is SAM-R1's (https://arxiv.org/abs/2505.22596), which rewards IoU.

    Args:
        completions: text or one chat turn each.
        picture: what the reasoner saw, in whose pixels it answers.
        mask: (height, width), not 0 on the target; None where the target is absent.
        expert: box and points, both cut to the picture, to a (height, width) bool mask.

    Raises:
        MedReasonerError: a true mask is of another size than its picture.
    """
    return [
        0.0 if true is None else _mask_dice(text_of(completion), seen, np.asarray(true) != 0, expert)
        for completion, seen, true in zip(completions, picture, mask, strict=True)
    ]


def masks_from(expert: SegmentationExpert) -> MaskOf:
    """Make an expert what `mask_dice` asks for; one that was not trained on points gets none."""

    def mask_of(picture: Picture, box: Box, points: tuple[Point, Point]) -> NDArray[np.bool_]:
        expert.set_picture(picture)
        return expert.segment(box, points if "points" in expert.takes else ()).mask

    return mask_of


def absent(completions: Sequence[Completion], box: BoxColumn, **_: Any) -> list[float]:
    """1 for answering "absent" where the target is absent (its `box` is None), else 0.

    Where there is a target, "absent" and an answer with a box both earn 0 here: the box and point terms part them.
    """
    return [
        float(truth is None and isinstance(read(text_of(completion)), AbsentAnswer))
        for completion, truth in zip(completions, box, strict=True)
    ]


def iou(completions: Sequence[Completion], box: BoxColumn, points: PointsColumn, **_: Any) -> list[float | None]:
    """Plain box IoU, in [0, 1], which is logged beside the rewards; None where the target is absent."""
    values = scored(completions, box, points, lambda answer, truth: geometry.box_iou(answer.box, truth.box))
    return [None if truth is None else value for truth, value in zip(box, values, strict=True)]


def brevity(
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    free_tokens: int = 128,
    limit_tokens: int = 512,
    **_: Any,
) -> list[float]:
    """1 up to `free_tokens`, falling linearly to 0 at `limit_tokens`; 0 for an unreadable answer; in [0, 1].

    Args:
        completions: text or one chat turn each.
        completion_ids: each completion's tokens, as TRL passes them; their number is the length.
        free_tokens: length in tokens that costs nothing.
        limit_tokens: length in tokens that earns nothing; more than `free_tokens`.
    """
    if not 0 <= free_tokens < limit_tokens:
        raise MedReasonerError(
            f"brevity cannot fall from {free_tokens} to {limit_tokens} tokens", "set free_tokens below limit_tokens"
        )
    return [
        0.0
        if read(text_of(completion)) is None
        else min(1.0, max(0.0, (limit_tokens - len(ids)) / (limit_tokens - free_tokens)))
        for completion, ids in zip(completions, completion_ids, strict=True)
    ]


def _mask_dice(text: str, picture: Picture, truth: NDArray[np.bool_], expert: MaskOf) -> float:
    if truth.shape != (picture.height, picture.width):
        raise MedReasonerError(
            f"a true mask of shape {truth.shape} belongs to a picture of {picture.height} x {picture.width} pixels",
            "move picture and mask together, or prepare the data again",
        )
    answer = read(text)
    if not isinstance(answer, GroundingAnswer):
        return 0.0
    try:
        box = picture.clip(answer.box)
    except AnswerError:  # nothing of the box lies on the picture
        return 0.0
    first, second = map(picture.clip_point, answer.points)
    return dice(expert(picture, box, (first, second)), truth)
