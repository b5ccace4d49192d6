"""Write what benchmarks/results holds of the embedded reasoner into README.md and docs/results.md.

python -m benchmarks.show_results [--check]     --check writes nothing and fails where a page differs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "evaluation_umrg_mini_test.json"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "results.md"
BEGIN, END = "<!-- written by benchmarks/show_results.py -->\n", "<!-- end -->\n"

TOTALS = (  # figure, what it is, goal of issue 2
    ("box_iou", "mean box IoU", "0.50"),
    ("prior_iou", "... of the target's median training box, which knows the target", ""),
    ("named", "target named right", "0.75"),
    ("named_explicit", "... explicit questions", "0.97"),
    ("dice", "Dice of the mask", "0.55"),
    ("oracle_dice", "... of the expert's mask for the true box", ""),
    ("point_dice", "pDice (true Dice of the discs)", ""),
    ("point_dice_union", "pDice, the published code's variant (0 to 2)", ""),
    ("parsed", "parsable answers", "0.995"),
    ("second_attempts", "second attempts", ""),
    ("false_absent", "present targets called absent", "at most 0.03"),
    ("absent_recognised", "absent targets recognised", "0.80"),
    ("absent_recognised_listed", "... umrg-mini's listed questions", ""),
    ("absent_recognised_crossed", "... questions about another part of the body", ""),
)


def with_interval(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def totals(report: dict[str, Any]) -> str:
    """Return the table of totals and where it comes from, as Markdown."""
    about, summary = report["about"], report["summary"]
    rows = [f"| {label} | {with_interval(summary[key])} | {goal} |" for key, label, goal in TOTALS]
    source = (
        f"{summary['present']} compact targets and {summary['absent']} questions about what is not there; means with"
        f' 95 % bootstrap intervals, a false "absent" counts 0. `{about["command"]}`, commit {about["commit"]},'
        f" expert {about['expert']}, {about['machine']}; all figures: `benchmarks/results/{RESULTS.name}`."
    )
    return "\n".join(["| figure | test | goal |", "|---|---|---|", *rows, "", source, ""])


def group_table(heading: str, rows: list[dict[str, Any]]) -> str:
    """Return a table of groups, whatever their figures, as Markdown."""
    lines = [f"| {heading} | n | box IoU (95 %) | prior IoU | Dice | oracle Dice | pDice | named |", "|---" * 8 + "|"]
    for row in rows:
        interval = f"{row['box_iou']:.2f} ({row['box_iou_low']:.2f} to {row['box_iou_high']:.2f})"
        figures = " | ".join(f"{row[f]:.2f}" for f in ("prior_iou", "dice", "oracle_dice", "point_dice", "named"))
        lines.append(f"| {row['group']} | {row['n']} | {interval} | {figures} |")
    return "\n".join([*lines, ""])


def page(report: dict[str, Any]) -> str:
    """Return docs/results.md."""
    parts = [
        "# Results of the embedded reasoner, every group, also the bad ones",
        "",
        "Written by `python -m benchmarks.show_results`. Groups of a few targets say little: read n.",
        "docs/evaluation.md says what is asked and how it is measured.",
        "",
        totals(report),
        group_table("modality", report["modality"]),
        group_table("style of question", report["style"]),
        group_table("target", report["target"]),
    ]
    return "\n".join(parts)


def readme_with(text: str, table: str) -> str:
    """Return README's text with the table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md lacks the marks {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + "\n" + table + "\n" + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    report = json.loads(RESULTS.read_text(encoding="utf-8"))
    wanted = {PAGE: page(report), README: readme_with(README.read_text(encoding="utf-8"), totals(report))}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in [] if check else stale:
        path.write_text(wanted[path], encoding="utf-8")
    print(json.dumps({"stale" if check else "written": [path.name for path in stale]}))
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
