"""Questions of a labelled collection (umrg-mini's layout), split so that the wording of a test question is unseen."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import ImageError

STYLES = ("implicit", "visual", "clinical", "terse", "explicit")
SPLITS = ("train", "val", "test")
TEST_MIX = {"visual": 1 / 6, "clinical": 1 / 6, "terse": 1 / 6, "implicit": 1 / 4, "explicit": 1 / 4}


LAYOUT_HINT = "give a collection in umrg-mini's layout (docs/evaluation.md)"


@dataclass(frozen=True)
class Entry:
    """All questions of one split that mean one target.

    Attributes:
        name: the target, as the reasoning names it.
        appearance: one sentence on what it looks like, for the reasoning; may be empty.
        by_style: questions by style; an explicit one names the target, the others may not.
    """

    name: str
    appearance: str
    by_style: dict[str, list[str]]


def part(items: list[str], split: str) -> list[str]:
    """Cut a list as umrg-mini asks for: the last fifth is for test, the tenth before that for validation."""
    n = len(items)
    if not n:
        return []
    val, test = max(1, int(n * 0.7)), max(1, int(n * 0.8))
    return {"train": items[:val], "val": items[val:test] or items[test - 1 : test], "test": items[test:]}[split]


def published_questions(data: Path) -> dict[str, dict[str, Any]]:
    """Return questions.json: name -> style -> questions, with clues and appearance; raises `ImageError`."""
    found = _read(data / "questions.json")
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise ImageError(f"{data / 'questions.json'} does not map names to questions", LAYOUT_HINT)
    return found


def load_entries(data: Path, split: str) -> dict[str, Entry]:
    """Return a collection's questions of one split by target; targets without any are left out."""
    entries = {}
    for name, source in published_questions(data).items():
        by_style = {style: part(source.get(style, []), split) for style in STYLES}
        if any(by_style.values()):
            entries[name] = Entry(name, (source.get("appearance") or [""])[0], by_style)
    return entries


def load_absent(data: Path, split: str) -> list[tuple[str, str]]:
    """Return (kind of image, question) for structures that cannot be on that kind of image; raises `ImageError`."""
    rows = _read(data / "absent_questions.json")
    try:
        kinds = dict.fromkeys(row["modality"] for row in rows)
        return [(k, q) for k in kinds for q in part([r["question"] for r in rows if r["modality"] == k], split)]
    except (TypeError, KeyError) as error:
        raise ImageError("absent_questions.json needs rows with modality and question", LAYOUT_HINT) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}", LAYOUT_HINT) from error


def choose(entry: Entry, mix: dict[str, float], rng: random.Random) -> tuple[str, str]:
    """Draw a style by its weight, then one of its questions; returns (style, question)."""
    styles = [style for style in mix if entry.by_style.get(style)]
    style = rng.choices(styles, [mix[s] for s in styles])[0]
    return style, rng.choice(entry.by_style[style])


def entry_of(sample: dict[str, Any], entries: dict[str, Entry]) -> Entry | None:
    """Return the questions that mean a sample: its own (`questions`, style -> wordings), else its target's entry.

    A sample's own questions are all for its own split; None where there are no questions at all.
    """
    name = sample["question_key"] or sample["category"]
    if own := sample.get("questions"):
        return Entry(name, str(sample.get("appearance") or ""), {style: list(own.get(style, [])) for style in STYLES})
    return entries.get(name)


def name_of(sample: dict[str, Any], entries: dict[str, Entry]) -> str | None:
    """Return the name under which questions mean this sample, or None where there are no questions for it."""
    key = sample["question_key"] or sample["category"]
    return key if key in entries else None
