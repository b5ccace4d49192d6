"""The simulated department: what its reasoner starts from, the archive whose labels it reveals, and the test."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medreasoner.evaluation.cases import Case, Sample, cases_of, read_samples
from medreasoner.evaluation.kinds import kind_of
from medreasoner.evaluation.questions import Entry, choose, name_of
from rl_training.config import SftConfig
from rl_training.feed import Feed
from rl_training.questions import training_entries

ARMS = ("random", "disagreement", "low_confidence", "disagreement_for_size", "disagreement_spread")
NEW_KINDS = (
    "colonoscopy",
    "dermoscopy image",
    "breast ultrasound",
    "fundus photograph",
    "knee X-ray",
    "panoramic dental X-ray",
)


_TRAINING = SftConfig(batch=64, length=288, absent_share=0.0)
_TINY_TRAINING = replace(_TRAINING, batch=2, warmup=1, mask_layers=(1, 2))


@dataclass(frozen=True)
class Plan:
    """Every knob of the simulation; in `start` and `round` the schedule counts steps, so their `seconds` are unused."""

    rounds: int = 5
    labels: int = 40  # revealed in each round
    candidates: int = 400  # of the archive, scored for a round
    draws: int = 6  # sampled answers to each candidate
    temperature: float = 1.0
    patient_limit: int = 4  # labels of one patient in a round, as long as there are others
    split: str = "test"  # whose cases are examined; knobs are chosen by "val"
    cases: int = 1000  # of that split, at most
    new_kinds: tuple[str, ...] = NEW_KINDS  # kinds of image that the start never saw
    start_steps: int = 1500
    round_steps: int = 80  # of a round's training, which begins at the start's weights every time
    rehearsal: float = 0.5  # share of what the start knows in a round's training
    rows: int = 1200  # answers written together, 12 GB
    start: SftConfig = field(default_factory=lambda: replace(_TRAINING, warmup=100, ema=0.995))
    round: SftConfig = field(
        default_factory=lambda: replace(_TRAINING, warmup=10, ema=0.97, text_rate=1e-4, vision_rate=3e-4)
    )


_SMALL_TRAINING = replace(_TRAINING, text_rate=3e-3, number_spread=8.0, ema=0.99, warmup=50)
SMALL = Plan(  # for `SmallStudent`; chosen on validation cases (docs/log.md)
    start_steps=1500,
    round_steps=150,
    start=_SMALL_TRAINING,
    round=replace(_SMALL_TRAINING, text_rate=2e-3, warmup=10, ema=0.97),
)
TINY = Plan(
    rounds=2,
    labels=4,
    candidates=8,
    draws=3,
    cases=6,
    start_steps=2,
    round_steps=2,
    rows=12,
    start=_TINY_TRAINING,
    round=_TINY_TRAINING,
)


class Department:
    """A labelled collection, divided by patients.

    Half of the patients of every kind of image are the department's archive. Of the other half the start sees those of
    kinds that are not new. The cases are the collection's own, with the wordings of its test. All targets are there:
    absence is no part of this simulation, and for the sake of time neither is the sentence on what a target looks like.

    Attributes:
        known, archive: rows of training samples: what the start saw, and what can be revealed.
        cases: of the plan's split, the same for every arm and seed.
    """

    def __init__(self, data: Path, plan: Plan) -> None:
        self.plan = plan
        self.samples: list[Sample] = read_samples(data)
        found = training_entries(data)
        self.entries: dict[str, Entry] = {name: replace(entry, appearance="") for name, entry in found.items()}
        rows = [
            i
            for i, s in enumerate(self.samples)
            if s["split"] == "train" and not s["dispersed"] and name_of(s, self.entries) is not None
        ]
        chance = random.Random(0)
        mine: set[str] = set()
        for kind in sorted({kind_of(self.samples[i]) for i in rows}):
            patients = sorted({self.patient(i) for i in rows if kind_of(self.samples[i]) == kind})
            mine |= set(chance.sample(patients, (len(patients) + 1) // 2))
        self.archive = [i for i in rows if self.patient(i) in mine]
        self.known = [i for i in rows if self.patient(i) not in mine and not self.is_new(i)]
        there = [case for case in cases_of(self.samples, data, plan.split) if not case.absent]
        self.cases: list[Case] = chance.sample(there, min(plan.cases, len(there)))

    def patient(self, row: int) -> str:
        """Return whom a sample shows; where nobody says, each picture is a patient."""
        sample = self.samples[row]
        return str(sample.get("group") or sample["image"])

    def is_new(self, row: int) -> bool:
        """Say whether the start has seen no image of this sample's kind."""
        return kind_of(self.samples[row]) in self.plan.new_kinds

    def shares(self, revealed: list[int]) -> dict[int, float]:
        """Return how often to train on each sample: the start's own, and the revealed ones in their share."""
        share = 1 - self.plan.rehearsal if revealed else 0.0
        weights = dict.fromkeys(self.known, (1 - share) / len(self.known))
        return weights | dict.fromkeys(revealed, share / max(1, len(revealed)))

    def lessons(self, config: SftConfig, tokenizer: Any, revealed: list[int]) -> Feed:
        """Return the reasoner's own feed of these samples in their shares."""
        weights = self.shares(revealed)
        used = [{**s, "split": "train" if i in weights else "unused"} for i, s in enumerate(self.samples)]
        feed = Feed(used, self.entries, [], tokenizer, config)
        feed.weights = [weights[i] for i in feed.rows]
        return feed

    def question(self, row: int, chance: random.Random) -> str:
        """Draw a question for a sample, as a worklist would hold one."""
        entry = self.entries[str(name_of(self.samples[row], self.entries))]
        return choose(entry, self.plan.start.mix, chance)[1]


def queue(scores: list[float], patients: list[str], limit: int) -> list[int]:
    """Order candidates by falling score; what goes beyond `limit` of one patient waits until all others had a turn."""
    seen: Counter[str] = Counter()
    places = {}
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        places[i] = (seen[patients[i]] // limit, -scores[i])
        seen[patients[i]] += 1
    return sorted(places, key=lambda i: places[i])
