"""Dice of an expert's masks for prompts of several kinds, target by target, through the product's own code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point
from medreasoner.evaluation.cases import Sample
from medreasoner.expert.litemedsam import CANVAS, LiteMedSam, Look
from medreasoner.expert.mask_prompts import points_on
from medreasoner.metrics import dice
from rl_training.expert.prompts import Floats, carried_along, loose_box, near_box
from rl_training.expert.targets import read_mask


class Looks(Protocol):
    """Where a picture's features come from: a store of them, or the encoder."""

    def __getitem__(self, image: str, /) -> Look:
        """Return a picture's features by its name."""


@dataclass(frozen=True)
class Prompt:
    """What an expert is asked with, in picture pixels."""

    box: Box
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Score:
    """Dice of one target's masks, by the kind of prompt."""

    row: int
    name: str
    dispersed: bool
    dice: Mapping[str, float]


def prompts_for(row: int, sample: Sample, mask: NDArray[np.bool_]) -> dict[str, Prompt]:
    """Make a target's prompts; what is random in them depends on its row alone, so that experts compare.

    Returns:
        ``box``: the true box; ``both``: with the collection's points; ``ours``: with the points of our own rule;
        ``near``: box edges moved by up to 10 % of the side, points by as much as the box's place; ``loose``: as a weak
        reasoner's, points moved along; ``loose_box``: the same without points.
    """
    rng = np.random.default_rng([2, row])
    size = np.array([sample["width"], sample["height"]] * 2, np.float32)
    unit = CANVAS / size.max()  # jitter is defined on the network's canvas
    truth = np.array(sample["bbox"], np.float32)
    given = np.array(sample["points"], np.float32)
    near = near_box(truth * unit, 0.1, rng) / unit
    loose = loose_box(truth * unit, rng) / unit
    moved = near_points(given, truth, rng)
    return {
        "box": Prompt(_box(truth, size)),
        "both": Prompt(_box(truth, size), _points(given)),
        "ours": Prompt(_box(truth, size), points_on(mask)),
        "near": Prompt(_box(near, size), _points(moved)),
        "near_box": Prompt(_box(near, size)),
        "loose": Prompt(_box(loose, size), _points(carried_along(given, truth, loose))),
        "loose_box": Prompt(_box(loose, size)),
    }


def near_points(points: Floats, box: Floats, rng: np.random.Generator) -> Floats:
    """Move points by up to 5 % of the box's sides."""
    return np.asarray(points + rng.uniform(-0.05, 0.05, points.shape) * (box[2:] - box[:2]), np.float32)


def evaluate(
    expert: LiteMedSam,
    samples: Sequence[Sample],
    rows: Sequence[int],
    data: Path,
    looks: Looks,
    kinds: Sequence[str],
    done: Callable[[Score], None] = lambda _score: None,
) -> list[Score]:
    """Ask for every row's target with prompts of every kind."""
    scores = []
    for row in rows:
        sample = samples[row]
        truth = read_mask(row, sample, data)
        look, prompts = looks[sample["image"]], prompts_for(row, sample, truth)
        found = {k: dice(expert.mask_for(look, prompts[k].box, prompts[k].points)[0], truth) for k in kinds}
        scores.append(Score(row, str(sample["category"]), bool(sample["dispersed"]), found))
        done(scores[-1])
    return scores


def means(scores: Sequence[Score]) -> dict[str, float]:
    """Mean Dice by the kind of prompt."""
    kinds = scores[0].dice if scores else {}
    return {kind: round(float(np.mean([s.dice[kind] for s in scores])), 4) for kind in kinds}


def by_target(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Mean Dice by target, then by the kind of prompt; ``n`` counts the targets."""
    grouped: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        grouped[score.name].append(score)
    return {name: {"n": len(some), **means(some)} for name, some in sorted(grouped.items())}


def _box(corners: Floats, size: Floats) -> Box:
    low = np.clip(corners[:2], 0, size[:2] - 1)
    high = np.clip(corners[2:], low + 1, size[:2])
    return Box(*(float(v) for v in (*low, *high)))


def _points(pairs: Floats) -> tuple[Point, Point]:
    return Point(float(pairs[0, 0]), float(pairs[0, 1])), Point(float(pairs[1, 0]), float(pairs[1, 1]))
