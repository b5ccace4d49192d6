"""Read which target a reasoning names."""

from __future__ import annotations

import re

_NAMED = re.compile(r"The question points to the (.+?)\. ")


def named_target(reasoning: str) -> str:
    """Return the target that an embedded reasoner's text names, or an empty string (other reasoners word it freely)."""
    match = _NAMED.search(f"{reasoning} ")
    return match[1] if match else ""
