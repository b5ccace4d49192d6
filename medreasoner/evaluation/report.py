"""The table, the files and the page that an evaluation leaves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from medreasoner.evaluation.run import Outcome
from medreasoner.metrics import bootstrap_interval

FIGURES = ("box_iou", "dice", "point_dice", "named", "prior_iou", "oracle_dice")


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the totals with 95 % intervals (bootstrap over cases): every figure of present targets, then absence.

    Failures (unreadable answers) and false "absent" count as 0 in every mean.
    """
    present, absent = [o for o in outcomes if not o.absent], [o for o in outcomes if o.absent]
    total: dict[str, Any] = {"present": len(present), "absent": len(absent)}
    for figure in (*FIGURES, "point_dice_union"):
        total[figure] = _mean([float(getattr(o, figure)) for o in present])
    total["named_explicit"] = _mean([float(o.named) for o in present if o.style == "explicit"])
    total["parsed"] = _mean([float(o.parsed) for o in outcomes])
    total["failed"] = _mean([float(not o.parsed) for o in outcomes])
    total["confidence_auroc"] = round(ranking(present), 4)
    total["second_attempts"] = _mean([float(o.attempts > 1) for o in outcomes])
    total["false_absent"] = _mean([float(o.said_absent) for o in present])
    total["absent_recognised"] = _mean([float(o.said_absent) for o in absent])
    for style in ("listed", "crossed"):
        total[f"absent_recognised_{style}"] = _mean([float(o.said_absent) for o in absent if o.style == style])
    total["seconds"] = _mean([o.seconds for o in outcomes])
    return total


def ranking(outcomes: list[Outcome]) -> float:
    """Area under the ROC curve of the confidence for "box IoU above 0.5": 0.5 ranks nothing, 1 ranks perfectly.

    The share of (good, bad) pairs in which the good answer is the surer one (Mann-Whitney U); 0.5 without both kinds.
    """
    good = [o.confidence for o in outcomes if o.box_iou > 0.5]
    bad = [o.confidence for o in outcomes if o.box_iou <= 0.5]
    if not good or not bad:
        return 0.5
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad))


def _mean(values: list[float]) -> dict[str, float]:
    low, high = bootstrap_interval(values)
    mean = sum(values) / len(values) if values else 0.0
    return {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}


def groups(outcomes: list[Outcome], key: Callable[[Outcome], str]) -> list[dict[str, Any]]:
    """Return one row of figures for each group of present targets, with the interval of the box IoU."""
    rows = []
    present = [o for o in outcomes if not o.absent]
    for label in sorted({key(o) for o in present}):
        some = [o for o in present if key(o) == label]
        row: dict[str, Any] = {"group": label, "n": len(some)}
        row.update({f: round(sum(float(getattr(o, f)) for o in some) / len(some), 4) for f in FIGURES})
        row["box_iou_low"], row["box_iou_high"] = (round(v, 4) for v in bootstrap_interval([o.box_iou for o in some]))
        rows.append(row)
    return rows


def by_modality(outcome: Outcome) -> str:
    """Group by modality."""
    return outcome.modality


def by_target(outcome: Outcome) -> str:
    """Group by modality and target."""
    return f"{outcome.modality}: {outcome.target}"


def by_style(outcome: Outcome) -> str:
    """Group by style of question."""
    return outcome.style


def write_files(outcomes: list[Outcome], about: dict[str, Any], out: Path, overlays: dict[int, str]) -> dict[str, Any]:
    """Write evaluation.json, cases.csv and index.html; returns what the JSON holds.

    Args:
        outcomes: all of them.
        about: reasoner, expert, split, command, machine and the like.
        out: folder, there already.
        overlays: file name (in `out`) of the overlay of each outcome that has one, by its index.
    """
    tables = {"modality": groups(outcomes, by_modality), "style": groups(outcomes, by_style)}
    tables["target"] = groups(outcomes, by_target)
    report = {"about": about, "summary": summary(outcomes), **tables}
    (out / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    with (out / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(outcomes[0].as_row()))
        writer.writeheader()
        writer.writerows(outcome.as_row() for outcome in outcomes)
    worst = sorted(overlays, key=lambda i: (outcomes[i].goodness, outcomes[i].box_iou))
    page = jinja2.Environment(autoescape=True).from_string(
        files("medreasoner.evaluation").joinpath("page.html").read_text(encoding="utf-8")
    )
    shown = [(outcomes[i], overlays[i]) for i in worst]
    html = page.render(about=about, summary=report["summary"], tables=tables, figures=FIGURES, shown=shown)
    (out / "index.html").write_text(html, encoding="utf-8")
    return report
