"""The simulated department's reasoner: trained from scratch on what is known, then on what is revealed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from benchmarks.learning.department import Department
from benchmarks.learning.draws import Drawn, draw_boxes
from benchmarks.learning.features import Floats, features, mean_looks
from medreasoner.contract.answer import Box
from medreasoner.geometry import box_iou
from medreasoner.reasoner.grammar import AnswerGrammar
from rl_training.card import embedded_card
from rl_training.feed import Feed
from rl_training.learner import Learner
from rl_training.pack import load_masks, open_pictures
from rl_training.sft import Run, load_model
from rl_training.tiny import configuration
from rl_training.warp import boxes_and_points


class Student(ABC):
    """One model, whose weights go back to the start's before every round."""

    def __init__(self, department: Department, learner: Any, masks: torch.Tensor) -> None:
        """Note what there is to learn, what learns, and the samples' masks, (samples, canvas, canvas) uint8."""
        self.department, self.plan, self.learner, self.device = department, department.plan, learner, masks.device
        self.truth = [Box(*row) for row in true_boxes(masks, [case.row for case in department.cases]).tolist()]

    def make_start(self, state: Path, until: float) -> bool:
        """Train the start, or go on with it; returns whether it is done by `until` (seconds of perf_counter)."""
        done, unfinished = state / "start.pt", state / "start-unfinished.pt"
        if not done.exists():
            run = Run(self.learner, self.plan.start, self.device)
            if unfinished.exists():
                run.resume(unfinished)
            if not self._train(run, [], self.plan.start_steps, until):
                run.save(unfinished)
                return False
            torch.save(run.average, done.with_suffix(".part"))
            done.with_suffix(".part").replace(done)
            unfinished.unlink(missing_ok=True)
        self.start = torch.load(done, map_location=self.device, weights_only=True)
        self.to_start()
        return True

    def to_start(self) -> None:
        """Forget everything since the start."""
        self._load(self.start)

    def learn(self, revealed: list[int], seed: int) -> None:
        """Train from the start's weights on what is revealed so far."""
        self.to_start()
        run = Run(self.learner, replace(self.plan.round, seed=seed), self.device)
        self._train(run, revealed, self.plan.round_steps, float("inf"))
        self._load(run.average)

    def _load(self, weights: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for mine, given in zip(self.learner.parameters(), weights, strict=True):
                mine.copy_(given)

    def _train(self, run: Run, revealed: list[int], steps: int, until: float) -> bool:
        """Take what is left of `steps`; returns False where time was up before."""
        run.config = replace(run.config, seconds=float(steps))  # the schedule counts steps here, on any machine alike
        self.learner.train()
        for _ in islice(self._steps(run, revealed), steps - run.step):
            run.elapsed = float(run.step)
            if time.perf_counter() > until:
                break
        return run.step == steps

    @abstractmethod
    def _steps(self, run: Run, revealed: list[int]) -> Iterator[None]:
        """Go on training, without end, on what is known and revealed; yields after every step."""

    def examine(self) -> list[float]:
        """Return the box IoU of the greedy answer to each test case."""
        cases = self.department.cases
        drawn = self.answer([case.row for case in cases], [case.question for case in cases])
        return [box_iou(boxes[0], true) for boxes, true in zip(drawn.boxes, self.truth, strict=True)]

    def answer(self, rows: list[int], questions: list[str], draws: int = 1, seed: int = 0) -> Drawn:
        """Answer a question about each sample: greedily, or sampled where there is more than one draw."""
        self.learner.eval()
        together = max(1, self.plan.rows // draws)
        found = Drawn([], [])
        for at in range(0, len(rows), together):
            some = slice(at, at + together)
            temperature = self.plan.temperature if draws > 1 else 0.0
            part = self._draw(rows[some], questions[some], draws, temperature, seed + at)
            found.boxes.extend(part.boxes)
            found.confidence.extend(part.confidence)
        return found

    @abstractmethod
    def looks(self, rows: list[int]) -> Floats:
        """Return what the pictures of some of the archive's samples look like to a frozen network, (rows, CHANNELS)."""

    @abstractmethod
    def _draw(self, rows: list[int], questions: list[str], draws: int, temperature: float, seed: int) -> Drawn:
        """Answer as many questions as fit into memory at once."""


def true_boxes(masks: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Return the tight boxes of some samples' masks, (rows, 4) long canvas pixels."""
    some = (rows[at : at + 256] for at in range(0, len(rows), 256))
    return torch.cat([boxes_and_points(masks[part] > 0)[0] for part in some])


class ReasonerStudent(Student):
    """The reasoner itself, trained from SmolLM2's text trunk."""

    def __init__(
        self, department: Department, packed: Path, base: Path, state: Path, tiny: bool, device: torch.device
    ) -> None:
        """Load pictures and base.

        Args:
            department: what there is to learn.
            packed: what `rl_training.pack` made of the same collection.
            base: what `rl_training.trunk` wrote; any folder with its tokenizer where `tiny` is set.
            state: folder where the features are kept by which pictures are compared.
            tiny: take a model of two layers with random weights, to try the commands on a CPU.
            device: where to train.
        """
        config = department.plan.start
        self.tokenizer = cast(Any, AutoTokenizer.from_pretrained(base))
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(configuration(self.tokenizer)) if tiny else load_model(base, device)
        self.pictures = torch.from_numpy(open_pictures(packed, department.samples)).to(device)
        self.masks = torch.from_numpy(load_masks(packed)).to(device)
        super().__init__(department, Learner(model, self.tokenizer, config).to(device), self.masks)
        card = replace(embedded_card(department.entries, config.canvas), may_abstain=False)
        self.grammar = AnswerGrammar.for_tokenizer(self.tokenizer, card)
        self.state = state
        self.asking = Feed(department.samples, department.entries, [], self.tokenizer, config)

    def looks(self, rows: list[int]) -> Floats:
        at = [int(self.department.samples[row]["picture_row"]) for row in rows]
        return mean_looks(features(self.state, self.pictures.cpu().numpy(), sorted(set(at))), at)

    def _steps(self, run: Run, revealed: list[int]) -> Iterator[None]:
        feed = self.department.lessons(run.config, self.tokenizer, revealed)
        workers = 6 if self.device.type == "cuda" else 0
        for batch in feed.stream(run.config.seed + run.step, workers):
            shown = self._shown(batch.sample.tolist())
            masks = self.masks[batch.sample.to(self.device)].float()
            run.train_step(batch.to(self.device), shown, masks)
            yield

    def _shown(self, rows: list[int]) -> torch.Tensor:
        at = torch.tensor([self.department.samples[i]["picture_row"] for i in rows], device=self.device)
        return self.pictures[at].permute(0, 3, 1, 2).float() / 255

    def _draw(self, rows: list[int], questions: list[str], draws: int, temperature: float, seed: int) -> Drawn:
        prompts = [[*self.asking.prompt(q), *self.grammar.opening] for q in questions]
        pad = self.tokenizer.pad_token_id
        return draw_boxes(self.learner.model, pad, self.grammar, prompts, self._shown(rows), draws, temperature, seed)
