"""What reinforcement learning gave the embedded reasoner: runs of rl_training.embedded_grpo against their start.

python -m benchmarks.grpo_umrg_mini --packed PACKED --picture OUT.png start=RUN soft=RUN hard=RUN ...

A run's folder holds val.json and test.json (guided, greedy answers without the file's modality and without the reader
of wordings, which the product has beside it) and log.jsonl. The first run is what the others are compared with, case by
case. pDice is against points by the training's rule. Intervals are of 95 %, by bootstrap of the cases.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.figures import print_figures
from medreasoner.contract.answer import GroundingAnswer, Point
from medreasoner.metrics import bootstrap_interval, point_dice
from rl_training.pack import load_masks
from rl_training.rewards.reading import read
from rl_training.warp import boxes_and_points

SPLITS = ("val", "test")
SMOOTH = 10  # steps
Case = dict[str, Any]


def add_points(cases: list[Case], masks: torch.Tensor) -> None:
    """Add pDice to each case with a target: 0 for an answer that cannot be read or says it is absent."""
    there = [case for case in cases if not case["absent"]]
    pairs = boxes_and_points(masks[[case["row"] for case in there]] > 0)[1].tolist()
    for case, (first, second) in zip(there, pairs, strict=True):
        answer = read(case["text"])
        truth = Point(*first), Point(*second)
        case["point_dice"] = point_dice(answer.points, truth) if isinstance(answer, GroundingAnswer) else 0.0


def spread(values: list[float]) -> dict[str, float]:
    """Return mean, low and high."""
    low, high = bootstrap_interval(values)
    return {"mean": round(float(np.mean(values)), 4), "low": round(low, 4), "high": round(high, 4)}


def gain(cases: list[Case], start: list[Case]) -> dict[str, float]:
    """Return the paired difference of box IoU, its interval, and how likely one of 0 or less is (one-sided)."""
    pairs = [(a["iou"], b["iou"]) for a, b in zip(cases, start, strict=True) if not a["absent"]]
    assert [a["question"] for a in cases] == [b["question"] for b in start]
    difference = np.array([a - b for a, b in pairs])
    rng = np.random.default_rng(0)
    drawn = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(10_000)]
    return {**spread(difference.tolist()), "p": float(np.mean(np.array(drawn) <= 0))}


def measured(cases: list[Case]) -> dict[str, Any]:
    """Return the figures of one run on one split."""
    there, absent = ([case for case in cases if case["absent"] is kind] for kind in (False, True))
    return {
        "present": len(there),
        "absent": len(absent),
        "box_iou": spread([case["iou"] for case in there]),
        "point_dice": spread([case["point_dice"] for case in there]),
        "named": spread([float(case["named"] == case["name"]) for case in there]),
        "false_absent": spread([float(case["said_absent"]) for case in there]),
        "absent_recognised": spread([float(case["said_absent"]) for case in absent]),
        "failed": spread([float(not case["parsed"]) for case in cases]),
        "box_iou_where_named": spread([case["iou"] for case in there if case["named"] == case["name"]]),
    }


def draw(logs: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw reward (each run's from 0 at its lowest to 1 at its highest), sampled IoU and divergence over the steps.

    Runs that were stopped early are left out: they drew other questions, and their range says little.
    """
    longest = max(map(len, logs.values()))
    figure = Figure(figsize=(7.5, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = {
        "reward, scaled to its range": "reward",
        "box IoU of the sampled answers (training)": "rewards/iou/mean",
        "divergence from the start, nats a token": "kl",
    }
    for at, (title, name) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(3, 1, at)
        for run, log in ((run, log) for run, log in logs.items() if len(log) == longest):
            values = np.array([line[name] for line in log])
            curve = np.convolve(values, np.ones(SMOOTH) / SMOOTH, "valid")
            if name == "reward":
                curve = (curve - curve.min()) / (curve.max() - curve.min())
            axes.plot(np.arange(len(curve)) + SMOOTH, curve, label=run)
        axes.set_title(title, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        if at == 1:
            axes.legend(fontsize="small", frameon=False)
    axes.set_xlabel(f"steps of 512 answers, mean of {SMOOTH}")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="NAME=FOLDER, the start first")
    parser.add_argument("--packed", type=Path, required=True, help="what rl_training.pack wrote")
    parser.add_argument("--picture", type=Path, help="draw the curves here")
    args = parser.parse_args()
    folders = {name: Path(folder) for name, folder in (run.split("=", 1) for run in args.runs)}
    masks = torch.from_numpy(load_masks(args.packed))
    start = next(iter(folders))
    figures: dict[str, Any] = {}
    for split in SPLITS:
        answered = {
            n: json.loads((f / f"{split}.json").read_text())
            for n, f in folders.items()
            if (f / f"{split}.json").exists()
        }
        for name, cases in answered.items():
            add_points(cases, masks)
            against = {} if name == start else {"box_iou_gain": gain(cases, answered[start])}
            figures[f"{name}_{split}"] = {**measured(cases), **against}
    logs = {
        n: [json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()]
        for n, f in folders.items()
        if (f / "log.jsonl").exists()
    }
    for name, log in logs.items():
        figures[f"{name}_training"] = {
            "steps": len(log),
            "median_seconds_a_step": round(float(np.median([line["seconds"] for line in log])), 3),
        }
    if args.picture:
        draw({name: log for name, log in logs.items() if "reward" in log[0]}, args.picture)
    print_figures(figures)


if __name__ == "__main__":
    main()
