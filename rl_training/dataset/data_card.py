"""What a prepared collection holds, in numbers: DATA_CARD.md for people, data_card.json for the checkpoint's folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from medreasoner.evaluation.questions import SPLITS
from rl_training.dataset.leakage import Leaks

Row = dict[str, Any]


def data_card(name: str, rows: Sequence[Row], leaks: Leaks, sha256: str, places: dict[str, int]) -> dict[str, Any]:
    """Count the rows of a samples.jsonl.

    Args:
        name: of the collection.
        rows: as written.
        leaks: what the check found.
        sha256: of samples.jsonl, which names pictures and masks by their content and so stands for the whole folder.
        places: how many boxes and points were given, made by the rule, and differ from their mask's.
    """
    return {
        "name": name,
        "sha256": sha256,
        "splits": {split: _counts([row for row in rows if row["split"] == split]) for split in SPLITS},
        "modality": _by(rows, "modality"),
        "target": _by(rows, "category"),
        "sources": {
            source: {"examples": len(some), "licence": sorted({row["licence"] or "unknown" for row in some})}
            for source, some in _grouped(rows, "source").items()
        },
        "boxes_and_points": places,
        "checks": {
            "patients_in_two_splits": len(leaks.patients),
            "pictures_in_two_splits": len(leaks.pictures),
            "pictures_alike_in_two_splits": len(leaks.alike),
            "wordings_in_two_splits": len(leaks.questions),
        },
    }


def as_markdown(card: dict[str, Any]) -> str:
    """Write a data card as a page."""
    lines = [f"# Data card: {card['name']}", "", f"SHA-256 of samples.jsonl: `{card['sha256']}`", ""]
    lines += _table("split", card["splits"], ("examples", "pictures", "patients", "absent", "dispersed"))
    for title in ("modality", "target"):
        lines += _table(title, card[title], SPLITS)
    lines += ["## Sources", ""]
    for source, about in card["sources"].items():
        lines.append(f"- {source}: {about['examples']:,} examples; {'; '.join(about['licence'])}")
    lines += ["", "## Boxes and points", ""]
    lines += [f"- {what}: {count:,}" for what, count in card["boxes_and_points"].items()]
    lines += ["", "## Checks", ""]
    lines += [f"- {check.replace('_', ' ')}: {found:,}" for check, found in card["checks"].items()]
    return "\n".join([*lines, ""])


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    return {
        "examples": len(rows),
        "pictures": len({row["image"] for row in rows}),
        "patients": len({row["group"] for row in rows}),
        "absent": sum(row["absent"] for row in rows),
        "dispersed": sum(row["dispersed"] for row in rows),
    }


def _grouped(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key] or "unknown"].append(row)
    return dict(sorted(groups.items()))


def _by(rows: Sequence[Row], key: str) -> dict[str, dict[str, int]]:
    counts = {name: Counter(row["split"] for row in some) for name, some in _grouped(rows, key).items()}
    return {name: {split: count[split] for split in SPLITS} for name, count in counts.items()}


def _table(title: str, rows: dict[str, dict[str, int]], columns: Sequence[str]) -> list[str]:
    head = [f"## By {title}", "", f"| {title} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    return [*head, *(f"| {name} | {' | '.join(f'{row[c]:,}' for c in columns)} |" for name, row in rows.items()), ""]
