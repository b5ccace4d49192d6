"""What may not be in two splits: patients, pictures and, with a warning, wordings."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ALIKE = 0.995  # correlation; umrg-mini has no such pair between its splits and 35 within its patients
_SIDE = 32


@dataclass(frozen=True)
class Seen:
    """What is compared of one example."""

    where: str
    split: str
    group: str
    picture: str  # Picture.content_hash
    thumbnail: NDArray[np.float32]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Leaks:
    """Pairs of rows of different splits, the same pair of picture or patient once.

    Attributes:
        patients, pictures: of one patient, or with equal pixels; nothing is written while there are any.
        alike: pictures whose thumbnails correlate by `ALIKE` or more: copies that were resized, brightened or saved
            again, or neighbouring slices. For people to look at.
        questions: wordings that occur in two splits.
    """

    patients: list[tuple[str, str]]
    pictures: list[tuple[str, str]]
    alike: list[tuple[str, str]]
    questions: list[str]


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return 32 x 32 grey levels as one row of mean 0 and length 1, so that a product of two is their correlation.

    A picture of one grey level, which is like nothing, gives zeros.

    Args:
        pixels: (height, width, 3) uint8.
    """
    small = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.float32).ravel()
    grey = grey - grey.mean()
    length = float(np.linalg.norm(grey))
    return np.asarray(grey / length if length > 0 else grey, np.float32)


def find_leaks(seen: Sequence[Seen]) -> Leaks:
    """Compare every two splits."""
    return Leaks(
        patients=_shared((s.group, s) for s in seen),
        pictures=_shared((s.picture, s) for s in seen),
        alike=_alike(seen),
        questions=_shared_questions(seen),
    )


def _shared(keyed: Iterable[tuple[Hashable, Seen]]) -> list[tuple[str, str]]:
    """Name the first row of each of two splits that share a key."""
    firsts: dict[Hashable, dict[str, str]] = defaultdict(dict)
    for key, row in keyed:
        firsts[key].setdefault(row.split, row.where)
    pairs = []
    for rows in firsts.values():
        first, *others = rows.values()
        pairs += [(first, other) for other in others]
    return pairs


def _alike(seen: Sequence[Seen]) -> list[tuple[str, str]]:
    rows = list({(s.picture, s.split): s for s in seen}.values())
    thumbnails = np.stack([row.thumbnail for row in rows]) if rows else np.zeros((0, 1), np.float32)
    splits = np.array([row.split for row in rows])
    pairs = []
    for start in range(0, len(rows), 512):
        mine = slice(start, start + 512)
        near = (thumbnails[mine] @ thumbnails.T >= ALIKE) & (splits[mine, None] != splits)
        for a, b in np.argwhere(near):
            first, second = rows[start + a], rows[b]
            if start + a < b and first.picture != second.picture:
                pairs.append((first.where, second.where))
    return pairs


def _shared_questions(seen: Sequence[Seen]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in seen:
        for question in row.questions:
            splits[_normal(question)].add(row.split)
    return sorted(question for question, found in splits.items() if len(found) > 1)


@lru_cache(maxsize=1 << 17)  # a collection asks the same questions about many pictures
def _normal(question: str) -> str:
    return " ".join(re.findall(r"\w+", question.lower()))
