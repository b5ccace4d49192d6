"""Questions to train and test on: umrg-mini's own, and those written for this project (rl_training/questions/*.txt)."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

STYLES = ("implicit", "visual", "clinical", "terse", "explicit")
TEST_MIX = {"visual": 1 / 6, "clinical": 1 / 6, "terse": 1 / 6, "implicit": 1 / 4, "explicit": 1 / 4}
HERE = Path(__file__).parent / "questions"


@dataclass(frozen=True)
class Entry:
    """All questions of one split that mean one target.

    Attributes:
        name: the target, as the reasoning names it.
        appearance: one sentence on what it looks like, for the reasoning.
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


def read_sections(path: Path) -> dict[str, list[str]]:
    """Read ``# section`` headings, each followed by one question a line."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            current = sections.setdefault(line[2:].strip(), [])
        elif line.strip():
            current.append(" ".join(line.split()))
    return sections


def own_questions() -> dict[str, dict[str, list[str]]]:
    """Return the project's own questions by target and style; all of them are for training."""
    return {
        path.stem.replace("_", " "): read_sections(path) for path in sorted(HERE.glob("*.txt")) if path.stem != "absent"
    }


def load_entries(umrg: Path, split: str) -> dict[str, Entry]:
    """Return the questions of one split by target: umrg-mini's share of it, and for training the project's own."""
    published = json.loads((umrg / "questions.json").read_text(encoding="utf-8"))
    own = own_questions() if split == "train" else {}
    entries = {}
    for name in {**published, **own}:
        source = published.get(name, {})
        held_out = [_words(q) for s in STYLES for other in ("val", "test") for q in part(source.get(s, []), other)]
        by_style = {}
        for style in STYLES:
            mine = [q for q in own.get(name, {}).get(style, []) if not _close(_words(q), held_out)]
            by_style[style] = (part(source[style], split) if source else []) + mine
        appearance = (source.get("appearance") or [""])[0]
        entries[name] = Entry(name, appearance, by_style)
    return entries


def _words(question: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", question.lower()))


def _close(words: frozenset[str], others: list[frozenset[str]]) -> bool:
    """Say whether a question shares 70 % of its words with one that is kept for validation or test."""
    return any(len(words & other) >= 0.7 * len(words | other) for other in others)


def load_absent(umrg: Path, split: str) -> list[tuple[str, str, str]]:
    """Return (kind of image or empty, structure or empty, question) for structures that cannot be on that image.

    From umrg-mini's absent_questions.json (with the kind of image it is asked on) and, for training, from
    questions/absent.txt (asked on every kind of image that cannot show the structure; kinds it could be on are
    listed after the bar in its headings).
    """
    rows = json.loads((umrg / "absent_questions.json").read_text(encoding="utf-8"))
    kinds = dict.fromkeys(row["modality"] for row in rows)
    asked = []
    for kind in kinds:
        mine = part([row["question"] for row in rows if row["modality"] == kind], split)
        asked += [(kind, "", question) for question in mine]
    if split == "train" and (HERE / "absent.txt").exists():
        for heading, questions in read_sections(HERE / "absent.txt").items():
            asked += [("", heading, question) for question in questions]
    return asked


def choose(entry: Entry, mix: dict[str, float], rng: random.Random) -> tuple[str, str]:
    """Draw a style by its weight, then one of its questions; returns (style, question)."""
    styles = [style for style in mix if entry.by_style.get(style)]
    style = rng.choices(styles, [mix[s] for s in styles])[0]
    return style, rng.choice(entry.by_style[style])
