"""The reasoning text that the supervised stage teaches (medreasoner/contract/target.py reads the name back)."""

from __future__ import annotations

SIZES = ("tiny", "small", "medium", "large")
ROWS = ("upper", "middle", "lower")
COLUMNS = ("left", "central", "right")
SIZE_LIMITS = (0.02, 0.06, 0.2)  # of the canvas area
UNKNOWN_KIND = "medical image"  # written where nobody knows the kind of image
_PLACE = "Here it is"


def article(noun: str) -> str:
    """Return "a" or "an" for the kinds of image in medreasoner/evaluation/kinds.py ("an MRI", "an OCT angiogram")."""
    return "an" if noun[0].lower() in "aeiou" or noun.startswith(("MRI", "X-ray")) else "a"


def present(kind: str, name: str, appearance: str, size: str, row: str, column: str) -> str:
    """Write the reasoning for a target that is there; viewer's left and right."""
    sentence = f"{appearance} " if appearance else ""
    opening = f"This is {article(kind)} {kind}. The question points to the {name}. {sentence}"
    return f"{opening}{_PLACE} {size} and lies in the {row} {column} part of the image."


def absent(kind: str, name: str) -> str:
    """Write the reasoning for a target that this kind of image cannot show; `name` may be empty."""
    what = f"the {name}" if name else "something"
    return f"This is {article(kind)} {kind}. The question asks about {what}, which cannot be seen on such an image."


def unknown(text: str, kind: str, appearance: str) -> list[tuple[int, int]]:
    """Find what is written for want of knowledge, so that it need not be taught.

    A reasoner that tells the kind of image and the looks of the target would else learn to leave them out.

    Args:
        text: holds what `present` or `absent` wrote.
        kind: of the image; empty or `UNKNOWN_KIND` where nobody knows it.
        appearance: the sentence on the target's looks, empty where there is none.

    Returns:
        spans of characters, first and behind the last: the sentence on the kind; the words that follow the name's.
    """
    found = []
    if kind in ("", UNKNOWN_KIND):
        sentence = f"This is {article(UNKNOWN_KIND)} {UNKNOWN_KIND}."
        at = text.index(sentence)
        found.append((at, at + len(sentence)))
    if not appearance and (at := text.find(_PLACE)) >= 0:
        found.append((at, at + len(_PLACE)))
    return found
