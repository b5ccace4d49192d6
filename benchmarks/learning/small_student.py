"""A student that a processor core trains in seconds: it tests the choice of labels, not what the reasoner gains."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.learning.department import Department
from benchmarks.learning.draws import Drawn, pick_number
from benchmarks.learning.features import Floats, features, mean_looks
from benchmarks.learning.small_reasoner import SmallReasoner
from benchmarks.learning.student import Student, true_boxes
from medreasoner.contract.answer import Box
from rl_training.feed import roughened
from rl_training.losses import expected_number, giou, soft_number_loss
from rl_training.pack import load_masks, open_pictures
from rl_training.sft import Run


class SmallStudent(Student):
    """`SmallReasoner` on frozen features; pictures are not moved in training, for their features are as they are."""

    def __init__(self, department: Department, packed: Path, state: Path) -> None:
        """Load boxes and features.

        Args:
            department: what there is to learn.
            packed: what `rl_training.pack` made of the same collection.
            state: folder where the features are kept.
        """
        torch.manual_seed(0)
        masks = torch.from_numpy(load_masks(packed))
        super().__init__(department, SmallReasoner(department.plan.start.canvas), masks)
        lessons = [*department.known, *department.archive]
        self.boxes = dict(zip(lessons, true_boxes(masks, lessons), strict=True))
        pictures = open_pictures(packed, department.samples)
        self.picture = [int(sample["picture_row"]) for sample in department.samples]
        used = [*lessons, *(case.row for case in department.cases)]
        self.features = features(state, pictures, sorted({self.picture[row] for row in used}))
        self.numbers = torch.arange(department.plan.start.canvas + 1)

    def looks(self, rows: list[int]) -> Floats:
        return mean_looks(self.features, [self.picture[row] for row in rows])

    def _seen(self, rows: list[int], questions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        shown = torch.from_numpy(self.features[[self.picture[row] for row in rows]]).float()
        cells, asked = self.learner.seen(shown, questions)
        return cells, asked

    def _steps(self, run: Run, revealed: list[int]) -> Iterator[None]:
        shares, config = self.department.shares(revealed), run.config
        chance = random.Random(1000 * config.seed + run.step)
        torch.manual_seed(1000 * config.seed + run.step)  # of the dropout
        while True:
            rows = chance.choices(list(shares), list(shares.values()), k=config.batch)
            questions = [roughened(self.department.question(row, chance), chance, config.roughen) for row in rows]
            boxes = torch.stack([self.boxes[row] for row in rows])
            cells, asked = self._seen(rows, questions)
            before = boxes[:, None, :3].float().expand(-1, 4, -1)
            logits = self.learner(cells, asked, torch.arange(4), before).flatten(0, 1)
            number = soft_number_loss(logits, boxes.flatten(), self.numbers, config.number_spread).mean()
            expected = expected_number(logits, self.numbers).reshape(-1, 4)
            overlap = 1 - giou(expected, boxes.float()).mean()
            run.update(config.number_weight * number + config.overlap_weight * overlap)
            yield

    @torch.inference_mode()
    def _draw(self, rows: list[int], questions: list[str], draws: int, temperature: float, seed: int) -> Drawn:
        chance = torch.Generator().manual_seed(seed)
        cells, asked = self._seen(rows, questions)
        found: list[torch.Tensor] = []
        likelihood = torch.zeros(len(rows) * draws)
        for at in range(4):
            before = torch.stack([*found, *[torch.zeros(len(likelihood))] * 3], 1)[:, :3]
            # One slot for all draws: the draws of a question stand where training has the four numbers.
            slots = torch.full((draws,), at)
            logits = self.learner(cells, asked, slots, before.unflatten(0, (-1, draws)).float()).flatten(0, 1)
            value, likely = pick_number(logits, found, temperature, chance)
            likelihood += likely / 4
            found.append(value)
        boxes = [Box(*row) for row in torch.stack(found, 1).tolist()]
        answers = [boxes[at : at + draws] for at in range(0, len(boxes), draws)]
        return Drawn(answers, likelihood[::draws].tolist())
