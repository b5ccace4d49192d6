"""What a run came to: summary.json with its last figures, and summary.png with its curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUMMARY, LOG = "summary.json", "log.jsonl"
Curve = tuple[list[int], list[float]]
_PANELS = {  # title -> how the logged names start
    "rewards": ("rewards/", "reward"),
    "validation IoU": ("eval_rewards/iou/mean",),
    "loss": ("loss", "eval_loss"),
    "divergence from the start": ("kl",),
    "completion length, tokens": ("completions/mean_length", "completions/max_length"),
    "share clipped": ("clip_ratio/region_mean", "completions/clipped_ratio"),
}


def curves(history: list[dict[str, Any]]) -> dict[str, Curve]:
    """Return each logged number as (updates, values)."""
    found: dict[str, Curve] = {}
    for entry in history:
        for name, value in entry.items():
            if name not in ("step", "epoch") and isinstance(value, (int, float)):
                steps, values = found.setdefault(name, ([], []))
                steps.append(int(entry["step"]))
                values.append(float(value))
    return found


def summarise(history: list[dict[str, Any]], run: Path) -> dict[str, Any]:
    """Write summary.json and summary.png into a run's folder; returns what the first holds."""
    found = curves(history)
    last = {name: values[-1] for name, (_, values) in sorted(found.items())}
    best = found.get("eval_rewards/iou/mean")
    summary: dict[str, Any] = {"updates": max((s[-1] for s, _ in found.values()), default=0), "last": last}
    if best is not None:
        steps, values = best
        at = max(range(len(values)), key=values.__getitem__)
        summary["best_validation_iou"] = {"update": steps[at], "value": values[at]}
    (run / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _plot(found, run / "summary.png")
    return summary


def _plot(found: dict[str, Curve], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = {title: _of_panel(found, starts) for title, starts in _PANELS.items()}
    chosen = {title: lines for title, lines in chosen.items() if lines}
    figure = Figure(figsize=(6, 2.4 * max(1, len(chosen))), layout="constrained")
    FigureCanvasAgg(figure)
    for at, (title, lines) in enumerate(chosen.items(), start=1):
        axes = figure.add_subplot(len(chosen), 1, at)
        for name, (steps, values) in lines.items():
            axes.plot(steps, values, marker="." if len(steps) < 30 else None, label=name)
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set_xlabel("updates")
        axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)


def _of_panel(found: dict[str, Curve], starts: tuple[str, ...]) -> dict[str, Curve]:
    return {n: c for n, c in found.items() if n in starts or (n.startswith(starts) and n.endswith("/mean"))}
