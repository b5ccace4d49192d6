"""How good are an expert's masks when it is told where to look? LiteMedSAM as published against litemedsam-points.

python -m benchmarks.expert_umrg_mini DATA [--split test] [--seconds 1800] > log

Every target is asked for with true boxes and points, with edges moved by up to 10 % of the side, and with boxes as
loose as the embedded reasoner's (rl_training/expert/evaluate.py has the kinds). Dispersed targets are counted apart.
Pictures come in random order, so what is measured within a time limit stands for the whole. The last line of the
output is JSON.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.figures import print_figures
from medreasoner.evaluation.cases import read_samples
from medreasoner.expert import EXPERTS
from medreasoner.expert.litemedsam import LiteMedSam, Look
from medreasoner.expert.litemedsam_points import LiteMedSamPoints
from medreasoner.imaging import open_image
from medreasoner.metrics import bootstrap_interval
from rl_training.expert.evaluate import Score, by_target, evaluate, means

KINDS = {
    "litemedsam": ("box", "both", "loose_box"),
    "litemedsam-points": ("box", "both", "near", "loose"),
}


class Encoder:
    """The last picture's features; targets come picture by picture, and both experts have the same image encoder."""

    def __init__(self, expert: LiteMedSam, data: Path) -> None:
        self._expert, self._data = expert, data
        self._last: tuple[str, Look] | None = None

    def __getitem__(self, image: str) -> Look:
        if self._last is None or self._last[0] != image:
            self._last = image, self._expert.look(open_image(self._data / image).picture().pixels)
        return self._last[1]


def measure(data: Path, split: str, seconds: float) -> dict[str, Any]:
    """Return mean Dice with 95 % intervals by expert and kind of prompt, compact and dispersed, and by target."""
    samples = read_samples(data)
    names = sorted({s["image"] for s in samples if s["split"] == split})
    chosen = random.Random(0).sample(names, len(names))
    experts: dict[str, LiteMedSam] = {
        "litemedsam": LiteMedSam(EXPERTS["litemedsam"].path()),
        "litemedsam-points": LiteMedSamPoints(EXPERTS["litemedsam-points"].path(), EXPERTS["litemedsam"].path()),
    }
    looks = Encoder(experts["litemedsam"], data)
    scores: dict[str, list[Score]] = {name: [] for name in experts}
    end = time.monotonic() + seconds
    measured = 0
    for measured, image in enumerate(takewhile(lambda _: time.monotonic() < end, chosen), start=1):
        rows = [i for i, s in enumerate(samples) if s["image"] == image and s["split"] == split]
        for name, expert in experts.items():
            scores[name] += evaluate(expert, samples, rows, data, looks, KINDS[name])
        print(f"\r{measured} of {len(chosen)} pictures", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found: dict[str, Any] = {"split": split, "pictures": measured, "pictures_of_the_split": len(chosen)}
    found["sha256"] = {name: expert.sha256 for name, expert in experts.items()}
    for group, dispersed in (("compact", False), ("dispersed", True)):
        some = {name: [s for s in rows if s.dispersed is dispersed] for name, rows in scores.items()}
        found[group] = {"targets": len(some["litemedsam"]), **{name: summary(rows) for name, rows in some.items()}}
    found["by_target"] = {name: by_target(rows) for name, rows in scores.items()}
    return found


def summary(scores: Sequence[Score]) -> dict[str, list[float]]:
    """Return mean, lower and upper end of the 95 % interval by kind of prompt."""
    ends = {kind: bootstrap_interval([s.dice[kind] for s in scores]) for kind in means(scores)}
    return {kind: [mean, *(round(end, 4) for end in ends[kind])] for kind, mean in means(scores).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="umrg-mini")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    args = parser.parse_args()
    start = time.monotonic()
    found = measure(args.data, args.split, args.seconds)
    for group in ("compact", "dispersed"):
        print(f"{group}, {found[group]['targets']} targets")
        for name in KINDS:
            for kind, (mean, low, high) in found[group][name].items():
                print(f"  {name:18s} {kind:10s} {mean:.3f} ({low:.3f} to {high:.3f})")
    print_figures({**found, "seconds": round(time.monotonic() - start)})


if __name__ == "__main__":
    main()
