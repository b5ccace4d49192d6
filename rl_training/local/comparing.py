"""Champion against challenger on the local hold-out, as the product answers: reasoner, expert, guided decoding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from medreasoner.evaluation.cases import Case, cases_of, read_samples
from medreasoner.evaluation.run import Examiner, Outcome
from medreasoner.expert import load_expert
from medreasoner.metrics import bootstrap_interval
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.lineage import Metrics
from medreasoner.reasoner.local import LocalReasoner
from rl_training.dataset import DataError

HIT = 0.5  # box IoU from which a target counts as found


def cases_in(prepared: Path, needed: int) -> list[Case]:
    """List the hold-out's questions, each as it was asked.

    Raises:
        DataError: fewer of them than needed are about a target that is there.
    """
    samples = read_samples(prepared)
    there = [s for s in samples if s["split"] == "test" and not s["dispersed"] and not s["absent"]]
    if len(there) < max(1, needed):
        raise DataError(
            f"the hold-out has {len(there)} targets to be found, and {max(1, needed)} are needed to compare reasoners",
            "save labels of more patients; one in five or so joins the hold-out",
        )
    return cases_of(samples, prepared, "test")


def examine(
    folder: Path, expert: str, device: str, prepared: Path, cases: Sequence[Case], asked: Callable[[], None]
) -> tuple[str, list[Outcome]]:
    """Ask a reasoner every case; returns its SHA-256 and what became of each.

    Args:
        folder: of the reasoner.
        expert: name of the segmentation expert.
        device: cpu, cuda, or empty.
        prepared: the collection.
        cases: of its hold-out.
        asked: called before each; may raise to stop.
    """
    reasoner = LocalReasoner(folder, device or None)
    pipeline = GroundingPipeline(reasoner, load_expert(expert))
    examiner = Examiner(pipeline, read_samples(prepared), prepared, prior={}, oracle=False)
    outcomes = []
    for case in cases:
        asked()
        outcomes.append(examiner.ask(case).outcome)
    return reasoner.sha256, outcomes


def metrics(outcomes: Sequence[Outcome]) -> Metrics:
    """Return the figures that a lineage keeps; `n` and all means but `absent_recognised` are of present targets."""
    present, absent = [o for o in outcomes if not o.absent], [o for o in outcomes if o.absent]
    by_modality: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in present:
        by_modality[outcome.modality].append(outcome)
    return {
        "n": len(present),
        "box_iou": _mean([o.box_iou for o in present]),
        "dice": _mean([o.dice for o in present]),
        "false_absent": _mean([float(o.said_absent) for o in present]),
        "absent_recognised": _mean([float(o.said_absent) for o in absent]) if absent else None,
        "by_modality": {
            name: {
                "n": len(some),
                "box_iou": _mean([o.box_iou for o in some]),
                "failures": sum(o.box_iou < HIT for o in some),
            }
            for name, some in sorted(by_modality.items())
        },
    }


def difference(champion: Sequence[Outcome], challenger: Sequence[Outcome]) -> dict[str, float]:
    """Return challenger less champion: the mean over the present targets, and its paired bootstrap interval."""
    pairs = zip(champion, challenger, strict=True)
    gains = [after.box_iou - before.box_iou for before, after in pairs if not before.absent]
    low, high = bootstrap_interval(gains)
    return {"mean": _mean(gains), "low": round(low, 4), "high": round(high, 4)}


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
