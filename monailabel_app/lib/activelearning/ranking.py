"""Which question about which image is wanted most, by what the answers to it gave. Pure functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from monailabel_app.lib.activelearning.score_notes import questions_of

Wanted = Callable[[Sequence[float], Sequence[float | None]], Sequence[float]]
GROUPS = 5  # of boxes of like size
MEMBERS = 5  # of a group, at least, as far as there are so many: a rank among fewer says little


def ranks_within(scores: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Return each score's rank among those of its own group, in (0, 1); equal scores share the mean of their ranks."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for score, group in sorted(zip(scores, groups, strict=True), key=lambda pair: pair[0]):
        members[group].append(score)
    ranks = []
    for score, group in zip(scores, groups, strict=True):
        own = members[group]
        ranks.append((bisect_left(own, score) + bisect_right(own, score)) / 2 / len(own))
    return ranks


def size_groups(sizes: Sequence[float | None], groups: int = GROUPS) -> list[int]:
    """Divide by size into groups as equal in number as can be; those of unknown size are group -1.

    Args:
        sizes: of each question's boxes, in whatever unit.
        groups: how many, fewer where groups would have less than `MEMBERS`.
    """
    known = sorted((size, i) for i, size in enumerate(sizes) if size is not None)
    count = max(1, min(groups, len(known) // MEMBERS))
    found = [-1] * len(sizes)
    for place, (_, i) in enumerate(known):
        found[i] = place * count // len(known)
    return found


def among_like_sizes(scores: Sequence[float], sizes: Sequence[float | None], groups: int = GROUPS) -> list[float]:
    """Return each score's rank, in (0, 1), among those of boxes of like size.

    Small boxes miss each other more easily than large ones: by the disagreement alone the small come first, whether
    their labels teach much or not (docs/decisions/0021-disagreement-among-boxes-of-like-size.md).
    """
    return ranks_within(scores, size_groups(sizes, groups))


def as_they_are(scores: Sequence[float], _sizes: Sequence[float | None]) -> Sequence[float]:
    """Return the scores themselves, whatever the boxes' sizes."""
    return scores


def most_wanted(notes: Mapping[str, Mapping[str, Any]], score: str, wanted: Wanted) -> dict[str, int]:
    """Order images by the question about each that is wanted most.

    Args:
        notes: of scored images (`Score.to_note`), by image.
        score: by which of the scores that are noted.
        wanted: what becomes of all questions' scores, with the sizes of their boxes, before they are compared.

    Returns:
        The images, most wanted first, each with the place of that question in `questions_of` its note.
    """
    asked = [(image, at, question) for image, note in notes.items() for at, question in enumerate(questions_of(note))]
    scores = [question["scores"][score] for _, _, question in asked]
    ranks = wanted(scores, [question.get("size") for _, _, question in asked])
    places: dict[str, int] = {}
    for i in sorted(range(len(asked)), key=lambda i: (-ranks[i], -scores[i], asked[i][:2])):
        image, at, _ = asked[i]
        places.setdefault(image, at)
    return places
