"""One pass over a collection: every picture and mask read, boxes and points made, bad rows told by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box
from medreasoner.geometry import box_iou
from rl_training.dataset.example import DataError, Example, Points, Reader
from rl_training.dataset.leakage import Seen, thumbnail
from rl_training.dataset.masks import mask_on
from rl_training.dataset.placing import box_of, place_of
from rl_training.dataset.prepared import row_of, write_png

_APART = 0.9  # IoU below which a given box is counted as unlike its mask's


@dataclass(frozen=True)
class Gathered:
    """A usable row.

    Attributes:
        row: for samples.jsonl; its group and split are still to come.
        seen: what leaks are looked for in, with the group and split that the source gives.
        place: where box and points are from, for the data card.
    """

    row: dict[str, Any]
    seen: Seen
    place: str


def gather(
    reader: Reader, folder: Path | None, by_rule: bool = False, advance: Callable[[], None] = lambda: None
) -> tuple[list[Gathered], list[DataError]]:
    """Read every row, and write its picture and mask where there is a folder.

    Args:
        reader: the collection.
        folder: holds the folders images and masks; None: write nothing.
        by_rule: make boxes and points from the masks even where they are given.
        advance: called after each row.

    Returns:
        the usable rows, and what is wrong with the others.
    """
    usable: list[Gathered] = []
    bad: list[DataError] = []
    for index in range(len(reader)):
        try:
            usable.append(_gathered(reader[index], folder, by_rule))
        except DataError as error:
            bad.append(error)
        advance()
    return usable, bad


def _gathered(example: Example, folder: Path | None, by_rule: bool) -> Gathered:
    picture = example.picture()
    example = replace(example, modality=picture.modality)
    mask = mask_on(example, picture)
    place, how = _place(example, mask, by_rule)
    image, drawn = picture.content_hash, None
    if folder is not None:
        image = write_png(folder / "images", picture.pixels)
        drawn = None if mask is None else write_png(folder / "masks", np.where(mask, 255, 0).astype(np.uint8))
    row = {**row_of(example, image, drawn, mask, place), "width": picture.width, "height": picture.height}
    seen = Seen(
        where=example.where,
        split=example.split,
        group=f"{example.source} {example.group}" if example.group else f"picture {picture.content_hash}",
        picture=picture.content_hash,
        thumbnail=thumbnail(picture.pixels),
        questions=tuple(q for wordings in example.questions.by_style.values() for q in wordings),
    )
    return Gathered(row, seen, how)


def _place(example: Example, mask: NDArray[np.bool_] | None, by_rule: bool) -> tuple[tuple[Box, Points] | None, str]:
    """Return box and points, and where they are from; `mask_on` lets no empty mask pass."""
    if example.absent:
        return None, "absent"
    if mask is not None and (by_rule or example.box is None or example.points is None):
        return place_of(mask), "made from the mask"
    if example.box is None or example.points is None:
        raise DataError(
            f"{example.where}: has neither a mask nor box and points", "give its mask, or mark the row absent"
        )
    drawn = None if mask is None else box_of(mask)
    unlike = drawn is not None and box_iou(drawn, example.box) < _APART
    return (example.box, example.points), "given, unlike the mask's" if unlike else "given"
