"""Ask every case of a collection and measure the answers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner.contract.answer import Box, GroundingAnswer, Point
from medreasoner.contract.errors import AnswerError, ImageError
from medreasoner.evaluation.cases import Case, Sample
from medreasoner.evaluation.kinds import dicom_modality, kind_of
from medreasoner.evaluation.naming import names
from medreasoner.geometry import box_iou
from medreasoner.imaging import open_image
from medreasoner.metrics import dice, point_dice, point_dice_over_union
from medreasoner.picture import Picture
from medreasoner.pipeline import Grounding, GroundingPipeline
from medreasoner.reasoner.letterbox import Letterbox

_PRIOR_CANVAS = 336
_FIGURES = ("box_iou", "point_dice", "point_dice_union", "dice", "prior_iou", "oracle_dice")


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


@dataclass(frozen=True)
class Answered:
    """One case with its outcome, the picture that was asked about and the mask in its pixels."""

    outcome: Outcome
    picture: Picture
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Examiner:
    """Asks cases of one collection and measures the answers.

    Attributes:
        pipeline: reasoner and expert.
        samples: all rows of the collection.
        data: the collection's folder.
        prior: each target's box from `prior_boxes`.
        oracle: also ask the expert for the true box's mask.
        modality: let the picture carry its DICOM modality code, as a DICOM file would.
    """

    pipeline: GroundingPipeline
    samples: list[Sample]
    data: Path
    prior: dict[str, Box]
    oracle: bool = True
    modality: bool = True

    def ask(self, case: Case) -> Answered:
        """Ask one case; raises `ImageError` when its picture, mask, box or points cannot be used."""
        sample = self.samples[case.row]
        code = dicom_modality(sample) if self.modality else ""
        picture = replace(open_image(self.data / sample["image"]).picture(), modality=code)
        truth = None if case.absent else _Truth.of(case.row, sample, self.data, picture)
        try:
            grounding: Grounding | None = self.pipeline.ground(case.question, picture)
        except AnswerError:
            grounding = None
        facts: dict[str, Any] = {
            "row": case.row,
            "image": sample["image"],
            "kind": kind_of(sample),
            "modality": sample["modality"],
            "style": case.style,
            "question": case.question,
            "target": case.name,
            "absent": case.absent,
        }
        outcome = Outcome(**facts, **_said(grounding), **self._figures(case.name, picture, grounding, truth))
        empty = np.zeros((picture.height, picture.width), bool)
        return Answered(outcome, picture, empty if grounding is None else grounding.mask)

    def _figures(
        self, name: str, picture: Picture, grounding: Grounding | None, truth: _Truth | None
    ) -> dict[str, Any]:
        """Compare with the truth, where there is a target."""
        figures: dict[str, Any] = {"named": False, **dict.fromkeys(_FIGURES, 0.0)}
        if truth is None:
            return figures
        if name in self.prior:
            fit = Letterbox.of(picture.width, picture.height, _PRIOR_CANVAS)
            figures["prior_iou"] = box_iou(fit.box_to_picture(self.prior[name]), truth.box)
        if self.oracle:
            figures["oracle_dice"] = dice(self.pipeline.refine(picture, truth.box).mask, truth.mask)
        if grounding is not None and isinstance(grounding.answer, GroundingAnswer):
            answer = grounding.answer
            figures |= {
                "named": names(answer.reasoning, name),
                "box_iou": box_iou(answer.box, truth.box),
                "point_dice": point_dice(answer.points, truth.points),
                "point_dice_union": point_dice_over_union(answer.points, truth.points),
                "dice": dice(grounding.mask, truth.mask),
            }
        return figures


@dataclass(frozen=True)
class _Truth:
    """A target's box and points in picture pixels, and its mask, (height, width) bool."""

    box: Box
    points: tuple[Point, Point]
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, row: int, sample: Sample, data: Path, picture: Picture) -> _Truth:
        try:
            box, path = Box(*sample["bbox"]), data / sample["mask"]
            first, second = (Point(float(x), float(y)) for x, y in sample["points"])
        except (TypeError, ValueError, AnswerError) as error:  # a row of `rl_training.prepare` may have no mask
            raise ImageError(
                f"row {row} of samples.jsonl has no usable bbox, points and mask", "repair or leave it out"
            ) from error
        return cls(box, (first, second), _mask(path, picture))


def _said(grounding: Grounding | None) -> dict[str, Any]:
    """Say what was answered; None stands for two texts that could not be read."""
    if grounding is None:
        nothing = {"parsed": False, "said_absent": False, "attempts": 2, "confidence": 0.0, "seconds": 0.0}
        return {**nothing, "reasoning": "", "box": None}
    answer = grounding.answer
    return {
        "parsed": True,
        "said_absent": grounding.absent,
        "attempts": grounding.attempts,
        "confidence": grounding.confidence,
        "seconds": grounding.timings["total"],
        "reasoning": answer.reasoning,
        "box": [round(v, 1) for v in answer.box.as_list()] if isinstance(answer, GroundingAnswer) else None,
    }


def by_picture(samples: list[Sample], cases: list[Case]) -> list[list[Case]]:
    """Group the cases by picture, in the order of the pictures' names: what is asked together shares caches."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[samples[case.row]["image"]].append(case)
    return [found[image] for image in sorted(found)]


def _mask(path: Path, picture: Picture) -> NDArray[np.bool_]:
    try:
        with Image.open(path) as file:
            mask = np.asarray(file.convert("L")) > 0
    except OSError as error:
        raise ImageError(f"the mask {path} cannot be read: {error}", "repair or leave out its row") from error
    if mask.shape != (picture.height, picture.width):
        raise ImageError(f"the mask {path} and its image differ in size", "repair or leave out its row")
    return mask


def prior_boxes(samples: list[Sample], canvas: int = _PRIOR_CANVAS) -> dict[str, Box]:
    """Return each target's median training box on a square canvas of that side in pixels, compact targets only."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for sample in samples:
        if sample["split"] == "train" and not sample["dispersed"] and not sample.get("absent"):
            fit = Letterbox.of(sample["width"], sample["height"], canvas)
            found[sample["question_key"] or sample["category"]].append(
                fit.box_to_canvas(Box(*sample["bbox"])).as_list()
            )
    return {name: Box(*np.median(np.array(boxes), axis=0).tolist()) for name, boxes in found.items()}
