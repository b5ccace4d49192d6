"""From the rounds of a simulation to its curves: means with intervals, the labels needed, and a picture.

python -m benchmarks.learning.curve benchmarks/results/active_learning.json docs/active_learning.png
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.department import Plan

Floats = NDArray[np.float64]
RESAMPLES = 2000
PARTS = {"all": "all test cases", "new": "kinds of image new to the start", "known": "kinds the start knows"}


class Curves:
    """Mean IoU against labels on some test cases: as it came out, and resampled.

    Cases of one patient are alike, and seeds differ in what they were offered and learnt, so patients and seeds are
    both resampled (percentile bootstrap, Efron and Tibshirani, 1993, chapter 13), the same ones for all arms. Of few
    seeds the interval comes out too narrow, of one alone it says nothing about seeds.

    Attributes:
        resampled: by arm (1 + RESAMPLES, points), the first row without resampling.
        by_seed: by arm (seeds, points).
    """

    def __init__(self, patients: list[str], iou: dict[str, Floats]) -> None:
        """Add up by patient.

        Args:
            patients: whom each case shows.
            iou: by arm (seeds, points, cases), as many seeds for each; the first point is without any label.
        """
        _, of, cases = np.unique(np.array(patients), return_inverse=True, return_counts=True)
        chance, count = np.random.default_rng(0), len(next(iter(iou.values())))
        people, seeds = _resampled(len(cases), chance), _resampled(count, chance) / count
        self.resampled, self.by_seed = {}, {arm: values.mean(2) for arm, values in iou.items()}
        for arm, values in iou.items():
            sums = np.stack([[np.bincount(of, point, len(cases)) for point in seed] for seed in values])
            totals = np.einsum("rs,spn,rn->rp", seeds, sums, people, optimize=True)
            self.resampled[arm] = totals / (people @ cases)[:, None]

    def point(self, arm: str, at: int) -> dict[str, float]:
        """Return an arm's mean IoU at a point with its interval."""
        return with_interval(self.resampled[arm][:, at])

    def difference(self, arm: str, other: str, at: int) -> dict[str, float]:
        """Return how much better an arm is than another at a point, with its interval."""
        return with_interval(self.resampled[arm][:, at] - self.resampled[other][:, at])


def _resampled(count: int, chance: np.random.Generator) -> Floats:
    """Return how often each of `count` is drawn, (1 + RESAMPLES, count): once each in the first row."""
    drawn = chance.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return np.vstack([np.ones(count), drawn])


def with_interval(values: Floats) -> dict[str, float]:
    """Return the first value as the mean, and the 95 % interval of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {name: round(float(v), 4) for name, v in (("mean", values[0]), ("low", low), ("high", high))}


def labels_needed(curve: Floats, labels: list[int], target: float) -> float | None:
    """Return after how many labels a curve first reaches a target, between two points on a straight line."""
    for at, value in enumerate(curve):
        if value >= target:
            if at == 0:
                return float(labels[0])
            rise = (target - curve[at - 1]) / (value - curve[at - 1])
            return float(labels[at - 1] + rise * (labels[at] - labels[at - 1]))
    return None


def against_random(curves: Curves, arm: str, labels: list[int]) -> dict[str, Any]:
    """Compare an arm with `random` on the same cases.

    Returns:
        differences at every point, and the share of random's labels at which the arm has random's last IoU, of all
        seeds together and of each: None where it never has, which counts as 1 in the interval.
    """

    def shares(mine: Floats, others: Floats) -> list[float | None]:
        needed = [labels_needed(*pair) for pair in zip(mine, [labels] * len(mine), others[:, -1], strict=True)]
        return [None if n is None else round(n / labels[-1], 4) for n in needed]

    share = shares(curves.resampled[arm], curves.resampled["random"])
    whole = with_interval(np.array([1.0 if s is None else s for s in share]))
    return {
        "difference": [curves.difference(arm, "random", at) for at in range(len(labels))],
        "share_of_labels": whole | ({"mean": None} if share[0] is None else {}),
        "share_by_seed": shares(curves.by_seed[arm], curves.by_seed["random"]),
    }


def figures(
    start: list[float], rounds: dict[str, list[list[dict[str, Any]]]], about: dict[str, Any], plan: Plan
) -> dict[str, Any]:
    """Put all rounds together.

    Args:
        start: IoU of each test case without any label.
        rounds: by arm, for each seed its rounds' records.
        about: the test cases' `patients` and `is_new`, and sizes of the archive.
        plan: as simulated.
    """
    labels = [n * plan.labels for n in range(plan.rounds + 1)]
    iou = {arm: np.array([[start, *(r["iou"] for r in one)] for one in seeds]) for arm, seeds in rounds.items()}
    is_new = np.array(about["is_new"])
    found: dict[str, Any] = {"labels": labels, "arms": {}, "against_random": {}}
    for arm, seeds in rounds.items():
        new = np.array([[0, *(r["new_kinds"] for r in one)] for one in seeds]).cumsum(1).mean(0)
        seconds = np.array([[r["seconds"] for r in one] for one in seeds]).mean((0, 1))
        found["arms"][arm] = {
            "labels_of_new_kinds": new.round(1).tolist(),
            "all_by_seed": iou[arm].mean(2).round(4).tolist(),
            "seconds_a_round": dict(zip(("choose", "train", "examine"), seconds.round(1).tolist(), strict=True)),
        }
    for part, used in (("all", is_new | True), ("new", is_new), ("known", ~is_new)):
        if not used.any():
            continue
        patients = [name for name, is_used in zip(about["patients"], used, strict=True) if is_used]
        curves = Curves(patients, {arm: values[:, :, used] for arm, values in iou.items()})
        for arm in rounds:
            found["arms"][arm][part] = [curves.point(arm, at) for at in range(len(labels))]
            if arm != "random" and "random" in rounds:
                found["against_random"].setdefault(arm, {})[part] = against_random(curves, arm, labels)
    counts = {"cases": len(is_new), "cases_new": int(is_new.sum()), "patients": len(set(about["patients"]))}
    archive = {name: about[name] for name in ("known", "archive", "archive_new")}
    devices = sorted({r["device"] for seeds in rounds.values() for one in seeds for r in one})
    return found | counts | archive | {"trained_on": devices, "plan": asdict(plan)}


def table(found: dict[str, Any]) -> str:
    """Return the curves as Markdown, a point a line."""
    arms = found["arms"]
    rows = ["| labels | " + " | ".join(f"{arm} | new kinds" for arm in arms) + " |", "|---|" + "---|---|" * len(arms)]
    for at, labels in enumerate(found["labels"]):
        cells = []
        for arm in arms.values():
            cells += [_cell(arm["all"][at]), f"{arm['new'][at]['mean']:.3f}" if "new" in arm else ""]
        rows.append(f"| {labels} | " + " | ".join(cells) + " |")
    for arm, parts in found["against_random"].items():
        share = parts["all"]["share_of_labels"]
        rows.append(
            f"\n{arm}: random's last IoU with {share['mean']} of its labels ({share['low']} to {share['high']})"
        )
    return "\n".join(rows)


def _cell(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def draw(found: dict[str, Any], png: Path) -> None:
    """Draw IoU against labels, a panel for each part of the test, and how many labels went to new kinds of image."""
    import matplotlib  # the machine with the GPU has none

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parts = [part for part in PARTS if all(part in arm for arm in found["arms"].values())]
    figure, axes = plt.subplots(1, len(parts) + 2, figsize=(4 * len(parts) + 8, 3.8), layout="constrained")
    colours = ("#555555", "#0072b2", "#d55e00", "#009e73", "#cc79a7")
    for colour, (arm, curve) in zip(colours, found["arms"].items(), strict=False):

        def line(axis: Any, points: list[dict[str, float]], arm: str = arm, colour: str = colour) -> None:
            mean, low, high = ([point[key] for point in points] for key in ("mean", "low", "high"))
            axis.plot(found["labels"], mean, "o-", color=colour, label=arm.replace("_", " "))
            axis.fill_between(found["labels"], low, high, color=colour, alpha=0.1, linewidth=0)

        for axis, part in zip(axes, parts, strict=False):
            line(axis, curve[part])
        if arm in found["against_random"]:
            line(axes[-2], found["against_random"][arm]["all"]["difference"])
        axes[-1].plot(found["labels"], curve["labels_of_new_kinds"], "o-", color=colour)
    for axis, part in zip(axes, parts, strict=False):
        axis.set(title=PARTS[part], xlabel="labels revealed", ylabel="box IoU")
    axes[-2].axhline(0, color="#555555")
    axes[-2].set(title="all, difference from random", xlabel="labels revealed", ylabel="box IoU")
    axes[-1].set(title="labels on new kinds of image", xlabel="labels revealed", ylabel="labels")
    figure.suptitle(found.get("learner", ""), fontsize="medium")
    axes[0].legend(frameon=False)
    figure.savefig(png, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the last line of benchmarks.active_learning")
    parser.add_argument("png", type=Path)
    given = parser.parse_args(argv)
    draw(json.loads(given.results.read_text(encoding="utf-8").splitlines()[-1]), given.png)


if __name__ == "__main__":
    main()
