"""The question becomes the text that the reasoner reads. Training, serving and evaluation all take it from here."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files

from medreasoner.contract.errors import CheckpointError

INSTRUCTION_VERSION = 1
NAMES = ("direct", "full")


@lru_cache
def _template(name: str) -> str:
    if name not in NAMES:
        raise CheckpointError(
            f"unknown instruction {name!r}", f"name one of {', '.join(NAMES)} in the checkpoint's card"
        )
    return (files("medreasoner") / "instructions" / f"{name}.txt").read_text(encoding="utf-8").strip()


def instruction(question: str, name: str) -> str:
    """Return the text part of the user's turn.

    Args:
        question: a checked question (`medreasoner.contract.wire.checked_question`).
        name: "direct" for reasoners trained in this repository, which know the answer's form; "full" for models
            that have to be told.
    """
    return _template(name).format(question=question)


def instruction_hash(name: str) -> str:
    """SHA-256 of version and template: travels in checkpoints, results and evaluation files."""
    return hashlib.sha256(f"{INSTRUCTION_VERSION}\n{name}\n{_template(name)}".encode()).hexdigest()
