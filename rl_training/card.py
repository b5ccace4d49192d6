"""The card of checkpoints that this repository trains.

python -m rl_training.card FOLDER --data DATA writes it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medreasoner.console import errors_for_people
from medreasoner.evaluation.kinds import BODY_PART, KINDS_BY_MODALITY
from medreasoner.evaluation.questions import Entry
from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.card import ReasonerCard
from rl_training.questions import training_entries
from rl_training.reasoning import COLUMNS, ROWS, SIZES, absent, article, present


def phrases(entries: dict[str, Entry]) -> list[str]:
    """List sentences the supervised stage teaches, for decoding drafts; commonest continuations first."""
    kinds = list(BODY_PART)
    first = "</think>"
    rows = [
        f"<think>{present(kinds[0], e.name, e.appearance, SIZES[1], ROWS[1], COLUMNS[1])}{first}"
        for e in entries.values()
    ]
    rows += [f"<think>{absent(kind, name)}{first}" for kind, name in zip(kinds, entries, strict=False)]
    return rows


def opening_sentences() -> dict[str, list[str]]:
    """Return for each DICOM modality the first sentences the reasoner was taught for its kinds of image."""
    return {code: [f"This is {article(kind)} {kind}." for kind in kinds] for code, kinds in KINDS_BY_MODALITY.items()}


def embedded_card(entries: dict[str, Entry], canvas: int, absent_margin: float = 0.0) -> ReasonerCard:
    """Describe the embedded default reasoner."""
    return ReasonerCard(
        name="medreasoner-embedded",
        canvas=canvas,
        instruction="direct",
        question_first=True,
        may_abstain=True,
        dialect="strict",
        quantised="int8-rows",
        max_reasoning=110,
        verdict=[" points", " asks"],
        kinds=opening_sentences(),
        absent_margin=absent_margin,
        phrases=phrases(entries),
        trained_with=instruction_hash("direct"),
    )


@errors_for_people()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="umrg-mini, for the targets' names and appearance")
    parser.add_argument("--canvas", type=int, default=336)
    args = parser.parse_args()
    embedded_card(training_entries(args.data), args.canvas).save(args.folder)


if __name__ == "__main__":
    main()
