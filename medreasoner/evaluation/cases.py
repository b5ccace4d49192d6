"""Which questions to ask on which pictures of a labelled collection."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import ImageError
from medreasoner.evaluation.kinds import ABSENT_KINDS, cannot_show, kind_of
from medreasoner.evaluation.questions import (
    LAYOUT_HINT,
    SPLITS,
    TEST_MIX,
    choose,
    entry_of,
    load_absent,
    load_entries,
    name_of,
)

Sample = dict[str, Any]
CROSSED = 200  # absent cases made from other targets' questions, at most; nor more than there are present ones
KEYS = {"image", "mask", "modality", "source", "category", "question_key", "width", "height"}
KEYS |= {"bbox", "points", "split", "dispersed"}
PER_LISTED = 5  # pictures for each listed absent question


@dataclass(frozen=True)
class Case:
    """One question on one picture.

    Attributes:
        row: of the sample whose picture is asked about.
        style: implicit, visual, clinical, terse or explicit; for absent targets "listed" (umrg-mini's own absent
            questions) or "crossed" (a question about a target of another part of the body).
        name: the target that the question means; empty for listed absent questions.
    """

    row: int
    question: str
    style: str
    name: str
    absent: bool


def read_samples(data: Path) -> list[Sample]:
    """Return the rows of samples.jsonl.

    Raises:
        ImageError: there is no such file, or a line of it is not an object with every key in `KEYS`.
    """
    path = data / "samples.jsonl"
    if not path.is_file():
        raise ImageError(f"{data} has no samples.jsonl", LAYOUT_HINT)
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ImageError(f"samples.jsonl line {number} is not JSON: {error}", LAYOUT_HINT) from error
        lacking = sorted(KEYS - row.keys()) if isinstance(row, dict) else sorted(KEYS)
        if lacking:
            raise ImageError(f"samples.jsonl line {number} lacks {', '.join(lacking)}", LAYOUT_HINT)
        rows.append(row)
    return rows


def cases_of(samples: list[Sample], data: Path, split: str, seed: int = 0) -> list[Case]:
    """List what to ask on a split: every compact target once in umrg-mini's mix of styles, then absent targets.

    Compact means not `dispersed` (vessels, nuclei), as umrg-mini's README asks for.

    Raises:
        ImageError: there is no such split, it has nothing to ask, or the questions cannot be read.
    """
    if split not in SPLITS:
        raise ImageError(f"there is no split {split!r}", f"use one of {', '.join(SPLITS)}")
    rng = random.Random(seed)
    entries = load_entries(data, split)
    asked = {i: e for i, s in enumerate(samples) if s["split"] == split and (e := entry_of(s, entries)) is not None}
    rows = [i for i in asked if not samples[i]["dispersed"] and not samples[i].get("absent")]
    if not rows:
        raise ImageError(f"split {split!r} of {data} has no compact target with questions", LAYOUT_HINT)
    cases = []
    meant = dict(entries)
    for i in rows:
        meant.setdefault(asked[i].name, asked[i])  # a row's own questions
    kinds_by_name: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if (name := name_of(sample, meant)) is not None and not sample.get("absent"):
            kinds_by_name[name].add(kind_of(sample))
    for i in rows:
        style, question = choose(asked[i], TEST_MIX, rng)
        cases.append(Case(i, question, style, asked[i].name, False))
    for i in (i for i in asked if samples[i].get("absent")):
        cases.append(Case(i, choose(asked[i], TEST_MIX, rng)[1], "listed", asked[i].name, True))
    for kind, question in load_absent(data, split):
        fit = [i for i in rows if kind_of(samples[i]) in ABSENT_KINDS.get(kind, (kind,))]
        cases += [Case(i, question, "listed", "", True) for i in rng.sample(fit, min(PER_LISTED, len(fit)))]
    crossed: list[Case] = []
    for _ in range(100 * CROSSED if kinds_by_name else 0):
        i, name = rng.choice(rows), rng.choice(list(kinds_by_name))
        if len(crossed) < min(CROSSED, len(rows)) and cannot_show(kind_of(samples[i]), kinds_by_name[name]):
            crossed.append(Case(i, choose(meant[name], TEST_MIX, rng)[1], "crossed", name, True))
    return cases + crossed
