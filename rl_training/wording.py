"""Teach the reader of wordings (medreasoner.reasoner.wording) on the training questions alone; half a minute on a CPU.

python -m rl_training.wording FOLDER --data DATA   writes FOLDER/wording.safetensors; rl_training.calibrate weighs it.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, embedding_bag

from medreasoner.console import errors_for_people
from medreasoner.evaluation.cases import Sample, read_samples
from medreasoner.evaluation.kinds import BODY_PART, kind_of
from medreasoner.evaluation.questions import Entry, name_of
from medreasoner.reasoner.quantised import quantise_rows
from medreasoner.reasoner.wording import FILE, buckets
from rl_training.feed import roughened
from rl_training.questions import training_absent, training_entries
from rl_training.reasoning import article

BUCKETS = 16_384
EPOCHS, BATCH, RATE, DECAY = 6, 512, 0.05, 1e-7


@dataclass(frozen=True)
class Lesson:
    """What to learn from.

    Attributes:
        questions: training questions.
        meanings: (questions,) long, which target each means; the last meaning is "something else".
        shown: (kinds of image, meanings) bool, whether the training pictures of a kind show that target.
    """

    questions: list[str]
    meanings: torch.Tensor
    shown: torch.Tensor


def lesson(samples: list[Sample], entries: dict[str, Entry], elsewhere: list[str]) -> Lesson:
    """Collect the questions about targets of the training split, and those about structures that no picture shows."""
    shown: dict[str, set[str]] = {}
    for sample in samples:
        name = name_of(sample, entries)
        if name is not None and sample["split"] == "train" and not sample["dispersed"]:
            shown.setdefault(name, set()).add(kind_of(sample))
    names = sorted(shown)
    asked = [(q, i) for i, name in enumerate(names) for some in entries[name].by_style.values() for q in some]
    asked += [(question, len(names)) for question in elsewhere]
    rng = random.Random(0)
    asked += [(roughened(question, rng, share=1.0), meaning) for question, meaning in asked]  # as people type
    return Lesson(
        [question for question, _ in asked],
        torch.tensor([meaning for _, meaning in asked]),
        torch.tensor([[kind in shown[name] for name in names] + [False] for kind in BODY_PART]),
    )


def learn(lesson: Lesson, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit multinomial logistic regression, every meaning counting alike however many questions it has.

    Returns:
        weights (meanings, BUCKETS) and bias (meanings,), float.
    """
    generator = torch.Generator().manual_seed(seed)
    count = lesson.shown.shape[1]
    rows = [torch.tensor(buckets(question, BUCKETS)) for question in lesson.questions]
    balance = len(rows) / count / torch.bincount(lesson.meanings, minlength=count).clamp(min=1)
    weights = torch.zeros(BUCKETS, count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    optimiser = torch.optim.Adam([weights, bias], lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 1 - epoch / EPOCHS)
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows), BATCH):
            some = order[start : start + BATCH]
            meant = lesson.meanings[some]
            losses = cross_entropy(_logits([rows[i] for i in some.tolist()], weights, bias), meant, reduction="none")
            loss = (losses * balance[meant]).mean() + DECAY * weights.square().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        schedule.step()
    return weights.detach().T.contiguous(), bias.detach()


def _logits(rows: list[torch.Tensor], weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Sum each row's buckets over the root of their number, as `Wording.shares` does."""
    lengths = torch.tensor([len(row) for row in rows])
    each = lengths.float().rsqrt().repeat_interleave(lengths)
    starts = lengths.cumsum(0) - lengths
    return embedding_bag(torch.cat(rows), weights, starts, mode="sum", per_sample_weights=each) + bias


def save(lesson: Lesson, weights: torch.Tensor, bias: torch.Tensor, folder: Path) -> None:
    """Write what was learnt as int8 rows into a checkpoint folder."""
    rows, scale = quantise_rows(weights)
    sentences = [f"This is {article(kind)} {kind}." for kind in BODY_PART]
    stored = {"weights": rows, "scale": scale, "bias": bias, "shown": lesson.shown}
    save_file(stored, folder / FILE, {"sentences": json.dumps(sentences)})


@errors_for_people()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a checkpoint folder")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    elsewhere = [question for _, _, question in training_absent(args.data)]
    learnt = lesson(read_samples(args.data), training_entries(args.data), elsewhere)
    save(learnt, *learn(learnt), args.folder)


if __name__ == "__main__":
    main()
