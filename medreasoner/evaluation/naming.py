"""Say whether a reasoning names the target it should."""

from __future__ import annotations

import re

from medreasoner.contract.target import named_target


def names(reasoning: str, target: str) -> bool:
    """Say whether a reasoning names the target: as the embedded reasoner words it, else anywhere in the text."""
    named = named_target(reasoning)
    if named:
        return named == target
    words = rf"\b{re.escape(target.lower())}\b"
    _, _, after_kind = reasoning.partition(". ")  # "This is a breast ultrasound." does not name the breast
    return re.search(words, (after_kind or reasoning).lower()) is not None
