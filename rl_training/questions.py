"""Questions to train on: umrg-mini's share for training, and those written for this project (questions/*.txt)."""

from __future__ import annotations

import re
from pathlib import Path

from medreasoner.evaluation.questions import STYLES, Entry, part, published_questions
from medreasoner.evaluation.questions import load_absent as published_absent

HERE = Path(__file__).parent / "questions"
ABSENT = HERE / "absent.txt"


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
    return {path.stem.replace("_", " "): read_sections(path) for path in sorted(HERE.glob("*.txt")) if path != ABSENT}


def training_entries(data: Path) -> dict[str, Entry]:
    """Return the training questions by target: the collection's share for training and the project's own.

    Own questions that share 70 % of their words with one kept for validation or test are left out.
    """
    published, own = published_questions(data), own_questions()
    entries = {}
    for name in {**published, **own}:
        source = published.get(name, {})
        held_out = [_words(q) for s in STYLES for other in ("val", "test") for q in part(source.get(s, []), other)]
        by_style = {
            style: part(source.get(style, []), "train")
            + [q for q in own.get(name, {}).get(style, []) if not _close(_words(q), held_out)]
            for style in STYLES
        }
        entries[name] = Entry(name, (source.get("appearance") or [""])[0], by_style)
    return entries


def training_absent(data: Path) -> list[tuple[str, str, str]]:
    """Return (kind of image, heading, question) for structures that an image cannot show.

    The collection's questions come with the kind of image they are asked on; those of questions/absent.txt with their
    heading, which names the structure and, behind a bar, the kinds of image it could be on.
    """
    asked = [(kind, "", question) for kind, question in published_absent(data, "train")]
    return asked + [("", heading, q) for heading, questions in read_sections(ABSENT).items() for q in questions]


def _words(question: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", question.lower()))


def _close(words: frozenset[str], others: list[frozenset[str]]) -> bool:
    return any(len(words & other) >= 0.7 * len(words | other) for other in others)
