"""What the stages for any checkpoint train on: one question about one picture, on the reasoner's canvas.

Prompt, picture and numbers have the form that `LocalReasoner` uses; tests/rl/test_rows.py holds the two together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medreasoner.contract.answer import AbsentAnswer, Answer, Box, GroundingAnswer, Point
from medreasoner.evaluation.cases import cases_of, read_samples
from medreasoner.evaluation.questions import TEST_MIX, Entry, choose
from medreasoner.instruction import instruction
from medreasoner.picture import Picture
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.letterbox import Letterbox
from rl_training import reasoning
from rl_training.dataset import Collection, DataError, Example, examples_of
from rl_training.dataset.masks import mask_on
from rl_training.dataset.placing import place_of

Place = tuple[Box, tuple[Point, Point]]
_OPEN = 64  # pictures kept; the completions of one question come one after another


@dataclass(frozen=True)
class Row:
    """One question about an example."""

    example: Example
    question: str


@dataclass(frozen=True)
class Shown:
    """A row on the canvas.

    Attributes:
        picture: (canvas, canvas, 3) uint8 pixels.
        mask: (canvas, canvas) bool; None where the target is absent or the collection has no masks.
        place: box and points in canvas pixels; None where the target is absent.
    """

    row: Row
    picture: Picture
    mask: NDArray[np.bool_] | None
    place: Place | None


def rows_of(data: Path, split: str, absent_share: float = 0.0, wordings: int = 1, seed: int = 0) -> list[Row]:
    """List the questions of a prepared collection's split, in an order that depends on the seed only.

    Args:
        data: a folder in umrg-mini's layout, as `rl_training.prepare` writes it.
        split: train or val; the test split is for `medreasoner evaluate` alone.
        absent_share: of all rows, how many at most ask for what is not there; 0 for a reasoner that may not say so.
        wordings: how many questions about each target, drawn from all its wordings in the test's mix of styles.
        seed: of the draw.

    Raises:
        DataError: the split is empty, or is "test".
        ImageError: the collection cannot be read.
    """
    if split not in ("train", "val"):
        raise DataError(f"nothing is trained or chosen on the split {split!r}", "use train or val")
    rng = random.Random(seed)
    examples = [e for e in examples_of(Collection(data, split)) if not e.dispersed]
    there = [e for e in examples if not e.absent]
    rows = [Row(e, choose(e.questions, TEST_MIX, rng)[1]) for e in there for _ in range(wordings)]
    if absent_share:
        absent = [Row(e, choose(e.questions, TEST_MIX, rng)[1]) for e in examples if e.absent]
        absent += _absent_rows(data, split, {e.image: e for e in there}, seed)
        most = math.ceil(len(rows) * absent_share / (1 - absent_share))
        rows += rng.sample(absent, min(most, len(absent)))
    if not rows:
        raise DataError(
            f"the split {split!r} of {data} has no question about a compact target", "prepare the data again"
        )
    rng.shuffle(rows)
    return rows


def _absent_rows(data: Path, split: str, by_image: dict[Path | bytes, Example], seed: int) -> Iterator[Row]:
    """Yield the questions about what pictures cannot show, but for those of rows that are absent themselves."""
    samples = read_samples(data)
    for case in cases_of(samples, data, split, seed):
        shown = by_image.get(data / samples[case.row]["image"])
        if case.absent and not samples[case.row].get("absent") and shown is not None:
            missing = Entry(case.name, "", {})
            yield Row(replace(shown, absent=True, mask=None, box=None, points=None, questions=missing), case.question)


class Canvas:
    """Rows as the reasoner sees them: opened when asked for, the last few kept."""

    def __init__(self, rows: list[Row], card: ReasonerCard, augment: bool = False, seed: int = 0) -> None:
        """Take the rows, the card that says how they are shown, and whether each is moved and varied.

        A row's move follows from the seed and its number alone, so that all processes show one group the same picture
        and a resumed run goes on with the same; several `wordings` of a target are moved differently.
        """
        self.rows, self.card = rows, card
        self._moves = _Moves(card.canvas, seed) if augment else None
        self.shown = lru_cache(maxsize=_OPEN)(self._shown)

    def __len__(self) -> int:
        return len(self.rows)

    def _shown(self, index: int) -> Shown:
        """Open a row; raises `DataError` naming it."""
        row = self.rows[index]
        if self._moves is not None:
            return self._moves(row, index)
        seen = row.example.picture()
        fit = Letterbox.of(seen.width, seen.height, self.card.canvas)
        picture = Picture(fit.picture(seen.pixels), modality=row.example.modality)
        if row.example.absent:
            return Shown(row, picture, None, None)
        mask = mask_on(row.example, seen)
        if mask is not None:
            mask = fit.mask(mask)
            place = place_of(mask)
        else:
            place = _on_canvas(row.example, fit)
        if place is None:
            raise DataError(f"{row.example.where}: nothing of the target is left on the canvas", "leave the row out")
        return Shown(row, picture, mask, place)

    def turn(self, index: int) -> list[dict[str, Any]]:
        """Return the user's turn, with a gap for the picture."""
        return user_turn(self.rows[index].question, self.card)

    def answer(self, index: int) -> str:
        """Return the text that the supervised stage teaches for a row."""
        shown = self.shown(index)
        return taught(shown, self.card.canvas).to_text()

    def columns(self, index: int) -> dict[str, Any]:
        """Return what TRL and the rewards read of a row (docs/rewards.md)."""
        shown = self.shown(index)
        box, points = (None, None) if shown.place is None else shown.place
        return {
            "prompt": self.turn(index),
            "images": [Image.fromarray(shown.picture.pixels)],
            "box": None if box is None else box.as_list(),
            "points": None if points is None else [[p.x, p.y] for p in points],
            "side": float(self.card.canvas),
            "picture": shown.picture,
            "mask": shown.mask,
        }


class _Moves:
    """Shows a row moved and varied by MONAI's transforms, which are imported for nothing else here."""

    def __init__(self, canvas: int, seed: int) -> None:
        from rl_training.dataset.augmentation import moving_chain
        from rl_training.dataset.loading import LoadExample

        self._load, self._chain, self._seed = LoadExample(canvas), moving_chain(), seed

    def __call__(self, row: Row, index: int) -> Shown:
        given = self._load(row.example) | {"question": row.question}
        data: Any = self._chain.set_random_state(self._seed + index)(given)
        pixels = (data["image"].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        picture = Picture(np.ascontiguousarray(pixels), modality=row.example.modality)
        if data["absent"]:
            return Shown(row, picture, None, None)
        first, second = (Point(*point) for point in data["points"].tolist())
        mask = data["mask"][0].numpy() > 0 if "mask" in data else None
        return Shown(row, picture, mask, (Box(*data["box"].tolist()), (first, second)))


def user_turn(question: str, card: ReasonerCard) -> list[dict[str, Any]]:
    """Return the conversation up to the answer, as transformers' chat templates take it."""
    text = {"type": "text", "text": instruction(question, card.instruction)}
    image = {"type": "image"}
    return [{"role": "user", "content": [text, image] if card.question_first else [image, text]}]


def taught(shown: Shown, canvas: int) -> Answer:
    """Write the answer to a row: what kind of image, which target, where; then box and points."""
    example = shown.row.example
    kind = example.kind or reasoning.UNKNOWN_KIND
    if shown.place is None:
        return AbsentAnswer(reasoning.absent(kind, example.target))
    box, points = shown.place
    share = sum(box.area / canvas**2 >= limit for limit in reasoning.SIZE_LIMITS)
    row, column = (min(2, int(3 * v / canvas)) for v in ((box.y_min + box.y_max) / 2, (box.x_min + box.x_max) / 2))
    words = reasoning.SIZES[share], reasoning.ROWS[row], reasoning.COLUMNS[column]
    text = reasoning.present(kind, example.target or "target", example.questions.appearance, *words)
    return GroundingAnswer(box, points, text)


def _on_canvas(example: Example, fit: Letterbox) -> Place | None:
    """Bring a known box and points onto the canvas; a point names a pixel, whose centre is moved."""
    if example.box is None or example.points is None:
        return None
    first, second = (fit.to_canvas(Point(p.x + 0.5, p.y + 0.5)) for p in example.points)
    return fit.box_to_canvas(example.box), (Point(first.x - 0.5, first.y - 0.5), Point(second.x - 0.5, second.y - 0.5))
