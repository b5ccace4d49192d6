"""How sure a reasoner is of its answer, by answers drawn at random. Pure functions; ratios out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

from medreasoner.contract.answer import AbsentAnswer
from medreasoner.geometry import box_iou
from medreasoner.metrics import mask_iou
from medreasoner.pipeline import Grounding


def disagreement(drawn: Sequence[Grounding]) -> float:
    """Return 1 minus the mean agreement of every two answers to one question, in [0, 1].

    Two groundings agree by the mean of the IoU of their boxes and the IoU of their masks; "absent" agrees fully with
    itself and not at all with a grounding. This is query by committee with draws of one model as the committee (Seung
    et al., COLT 1992, doi:10.1145/130385.130417).

    Raises:
        ValueError: fewer than two answers.
    """
    if len(drawn) < 2:
        raise ValueError(f"{len(drawn)} answers cannot disagree")
    return 1 - fmean(_agreement(a, b) for a, b in combinations(drawn, 2))


def low_confidence(drawn: Sequence[Grounding]) -> float:
    """Return 1 minus the mean confidence, in [0, 1]: that of `Grounding`, from likelihood and the expert's estimate."""
    return 1 - fmean(grounding.confidence for grounding in drawn)


def box_size(drawn: Sequence[Grounding]) -> float:
    """Return the mean share of the picture that the boxes cover, in [0, 1]; 0 where all answers are "absent"."""
    boxes = [grounding.answer.box for grounding in drawn if not isinstance(grounding.answer, AbsentAnswer)]
    return sum(box.area for box in boxes) / len(boxes) / drawn[0].mask.size if boxes else 0.0


def _agreement(a: Grounding, b: Grounding) -> float:
    if isinstance(a.answer, AbsentAnswer) or isinstance(b.answer, AbsentAnswer):
        return float(a.absent and b.absent)
    return (box_iou(a.answer.box, b.answer.box) + mask_iou(a.mask, b.mask)) / 2
