"""Read which target a reasoning names."""

from __future__ import annotations

import re

_NAMED = re.compile(r"The question points to the (.+?)\. ")


def named_target(reasoning: str) -> str:
    """Return the target that an embedded reasoner's text names, or an empty string (other reasoners word it freely)."""
    match = _NAMED.search(f"{reasoning} ")
    return match[1] if match else ""


def names(reasoning: str, target: str) -> bool:
    """Say whether a reasoning names the target: as the embedded reasoner words it, else anywhere in the text."""
    named = named_target(reasoning)
    if named:
        return named == target
    words = rf"\b{re.escape(target.lower())}\b"
    _, _, after_kind = reasoning.partition(". ")  # "This is a breast ultrasound." does not name the breast
    return re.search(words, (after_kind or reasoning).lower()) is not None
