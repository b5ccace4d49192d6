"""The reasoning text that the supervised stage teaches (medreasoner/contract/target.py reads the name back)."""

from __future__ import annotations

SIZES = ("tiny", "small", "medium", "large")
ROWS = ("upper", "middle", "lower")
COLUMNS = ("left", "central", "right")
SIZE_LIMITS = (0.02, 0.06, 0.2)  # of the canvas area


def article(noun: str) -> str:
    """Return "a" or "an" for the kinds of image in medreasoner/evaluation/kinds.py ("an MRI", "an OCT angiogram")."""
    return "an" if noun[0].lower() in "aeiou" or noun.startswith(("MRI", "X-ray")) else "a"


def present(kind: str, name: str, appearance: str, size: str, row: str, column: str) -> str:
    """Write the reasoning for a target that is there; viewer's left and right."""
    sentence = f"{appearance} " if appearance else ""
    opening = f"This is {article(kind)} {kind}. The question points to the {name}. {sentence}"
    return f"{opening}Here it is {size} and lies in the {row} {column} part of the image."


def absent(kind: str, name: str) -> str:
    """Write the reasoning for a target that this kind of image cannot show; `name` may be empty."""
    what = f"the {name}" if name else "something"
    return f"This is {article(kind)} {kind}. The question asks about {what}, which cannot be seen on such an image."
