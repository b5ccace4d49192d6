"""Ask every case of a collection and measure the answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner.contract.answer import AbsentAnswer, Box, GroundingAnswer, Point
from medreasoner.contract.errors import AnswerError, ImageError
from medreasoner.evaluation.cases import Case, Sample
from medreasoner.evaluation.kinds import dicom_modality, kind_of
from medreasoner.evaluation.naming import names
from medreasoner.geometry import box_iou
from medreasoner.imaging import open_image
from medreasoner.metrics import dice, point_dice, point_dice_over_union
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.letterbox import Letterbox

_PRIOR_CANVAS = 336


@dataclass(frozen=True)
class Outcome:
    """What became of one case. Figures are 0 where the target is absent, or where it was missed or not readable.

    Attributes:
        parsed: the reasoner's text was a valid answer, at the first or second attempt.
        named: the reasoning names the right target.
        box_iou, point_dice, point_dice_union, dice: against the sample's box, points and mask.
        prior_iou: of the target's median training box (it knows the target and sees no picture).
        oracle_dice: of the expert's mask for the true box: the ceiling of a perfect reasoner.
    """

    row: int
    image: str
    kind: str
    modality: str
    style: str
    question: str
    target: str
    absent: bool
    said_absent: bool
    parsed: bool
    attempts: int
    named: bool
    box_iou: float
    point_dice: float
    point_dice_union: float
    dice: float
    prior_iou: float
    oracle_dice: float
    confidence: float
    seconds: float
    reasoning: str
    box: list[float] | None

    @property
    def goodness(self) -> float:
        """Dice of a present target; 1 or 0 for an absent one that was or was not called absent."""
        return float(self.said_absent) if self.absent else self.dice

    def as_row(self) -> dict[str, Any]:
        """Plain values, for JSON and CSV."""
        return asdict(self)


def evaluate(
    pipeline: GroundingPipeline,
    samples: list[Sample],
    cases: list[Case],
    data: Path,
    done: Callable[[Outcome, Picture, NDArray[np.bool_]], None],
    oracle: bool = True,
    modality: bool = True,
) -> list[Outcome]:
    """Ask all cases, picture by picture so that caches pay.

    Args:
        pipeline: reasoner and expert.
        samples: all rows of the collection; those of its training split make the prior.
        cases: what to ask.
        data: the collection's folder.
        done: called after each case with its outcome, picture and mask (progress, overlays).
        oracle: also ask the expert for the true box's mask.
        modality: let the picture carry its DICOM modality code, as a DICOM file would.

    Returns:
        one outcome a case, in the order asked.
    """
    prior = prior_boxes(samples)
    outcomes = []
    for case in sorted(cases, key=lambda c: samples[c.row]["image"]):
        sample = samples[case.row]
        code = dicom_modality(sample) if modality else ""
        picture = replace(open_image(data / sample["image"]).picture(), modality=code)
        outcome, mask = _ask(pipeline, case, sample, picture, data, prior, oracle)
        outcomes.append(outcome)
        done(outcome, picture, mask)
    return outcomes


def _ask(
    pipeline: GroundingPipeline,
    case: Case,
    sample: Sample,
    picture: Picture,
    data: Path,
    prior: dict[str, Box],
    oracle: bool,
) -> tuple[Outcome, NDArray[np.bool_]]:
    values: dict[str, Any] = {
        "row": case.row,
        "image": sample["image"],
        "kind": kind_of(sample),
        "modality": sample["modality"],
        "style": case.style,
        "question": case.question,
        "target": case.name,
        "absent": case.absent,
        **dict.fromkeys(("box_iou", "point_dice", "point_dice_union", "dice", "prior_iou", "oracle_dice"), 0.0),
        **{"said_absent": False, "parsed": True, "named": False, "attempts": 2, "confidence": 0.0, "seconds": 0.0},
        **{"reasoning": "", "box": None},
    }
    mask = np.zeros((picture.height, picture.width), bool)
    try:
        grounding = pipeline.ground(case.question, picture)
    except AnswerError:
        values["parsed"] = False
        grounding = None
    try:
        truth_box = Box(*sample["bbox"])
    except (TypeError, AnswerError) as error:
        raise ImageError(f"row {case.row} of samples.jsonl has no usable bbox", "repair or leave it out") from error
    if grounding is not None:
        mask = grounding.mask
        values.update(attempts=grounding.attempts, confidence=grounding.confidence)
        values.update(seconds=grounding.timings["total"], reasoning=grounding.answer.reasoning)
        values["said_absent"] = isinstance(grounding.answer, AbsentAnswer)
    if not case.absent:
        truth = _truth(data / sample["mask"], picture)
        fit = Letterbox.of(picture.width, picture.height, _PRIOR_CANVAS)
        if case.name in prior:
            values["prior_iou"] = box_iou(fit.box_to_picture(prior[case.name]), truth_box)
        if oracle:
            values["oracle_dice"] = dice(pipeline.refine(picture, truth_box).mask, truth)
        if grounding is not None and isinstance(grounding.answer, GroundingAnswer):
            answer = grounding.answer
            pair = (Point(*sample["points"][0]), Point(*sample["points"][1]))
            values.update(
                named=names(answer.reasoning, case.name),
                box=[round(v, 1) for v in answer.box.as_list()],
                box_iou=box_iou(answer.box, truth_box),
                point_dice=point_dice(answer.points, pair),
                point_dice_union=point_dice_over_union(answer.points, pair),
                dice=dice(mask, truth),
            )
    return Outcome(**values), mask


def _truth(path: Path, picture: Picture) -> NDArray[np.bool_]:
    try:
        with Image.open(path) as file:
            truth = np.asarray(file.convert("L")) > 0
    except OSError as error:
        raise ImageError(f"the mask {path} cannot be read: {error}", "repair or leave out its row") from error
    if truth.shape != (picture.height, picture.width):
        raise ImageError(f"the mask {path} and its image differ in size", "repair or leave out its row")
    return truth


def prior_boxes(samples: list[Sample], canvas: int = _PRIOR_CANVAS) -> dict[str, Box]:
    """Return each target's median training box on a square canvas of that side in pixels, compact targets only."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for sample in samples:
        if sample["split"] == "train" and not sample["dispersed"]:
            fit = Letterbox.of(sample["width"], sample["height"], canvas)
            found[sample["question_key"] or sample["category"]].append(
                fit.box_to_canvas(Box(*sample["bbox"])).as_list()
            )
    return {name: Box(*np.median(np.array(boxes), axis=0).tolist()) for name, boxes in found.items()}
