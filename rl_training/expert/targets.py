"""What to find: rows of samples.jsonl with their masks on the network's canvas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from medreasoner.contract.errors import ImageError
from medreasoner.evaluation.cases import Sample
from medreasoner.expert.litemedsam import CANVAS
from medreasoner.expert.mask_prompts import box_around, points_on

_HINT = "repair or leave out its row"


@dataclass(frozen=True)
class Target:
    """One region, in pixels of the network's canvas.

    Attributes:
        row: of samples.jsonl, from 0.
        name: its category.
        image: the picture's name.
        truth: (rows, columns) uint8, 0 to 255: how much of each pixel of the picture's scaled copy belongs to it.
        box: x_min, y_min, x_max, y_max.
        pairs: (2, 2, 2): the collection's two points and those of our own rule, x and y.
    """

    row: int
    name: str
    image: str
    dispersed: bool
    truth: NDArray[np.uint8]
    box: NDArray[np.float32]
    pairs: NDArray[np.float32]

    def on_canvas(self) -> Tensor:
        """(rows, columns) float32 in [0, 1]."""
        return torch.tensor(self.truth, dtype=torch.float32) / 255


def read_targets(samples: Sequence[Sample], data: Path, split: str, images: Container[str]) -> list[Target]:
    """Read the targets of a split on the given pictures.

    Raises:
        ImageError: a mask cannot be read, has another size than its row says, or is empty; names the row.
    """
    return [
        _read(row, sample, data)
        for row, sample in enumerate(samples)
        if sample["split"] == split and sample["image"] in images
    ]


def _read(row: int, sample: Sample, data: Path) -> Target:
    mask = read_mask(row, sample, data)
    height, width = mask.shape
    scale = CANVAS / max(height, width)
    rows, columns = (max(1, int(side * scale + 0.5)) for side in (height, width))
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((columns, rows), Image.Resampling.BOX)
    to_canvas = np.array([columns / width, rows / height], np.float32)
    ours = [[p.x, p.y] for p in points_on(mask)]
    pairs = np.array([sample["points"], ours], np.float32) * to_canvas
    box = np.array(box_around(mask).as_list(), np.float32) * np.tile(to_canvas, 2)
    name = str(sample["category"])
    return Target(row, name, sample["image"], bool(sample["dispersed"]), np.asarray(small), box, pairs)


def read_mask(row: int, sample: Sample, data: Path) -> NDArray[np.bool_]:
    """Return a row's mask, (height, width) bool.

    Raises:
        ImageError: it cannot be read, has another size than its row says, or is empty; names the row.
    """
    path = data / sample["mask"]
    where = f"row {row} of samples.jsonl"
    try:
        with Image.open(path) as file:
            mask = np.asarray(file.convert("L")) > 0
    except OSError as error:
        raise ImageError(f"{where}: the mask {path} cannot be read: {error}", _HINT) from error
    if mask.shape != (sample["height"], sample["width"]):
        raise ImageError(f"{where}: the mask {path} has another size than its picture", _HINT)
    if not mask.any():
        raise ImageError(f"{where}: the mask {path} is empty", _HINT)
    return mask


def drawing_weights(targets: Sequence[Target], balance: float, dispersed: float) -> NDArray[np.float64]:
    """Return each target's share of the draws: rare names more often, dispersed targets less; the sum is 1."""
    counts = Counter(target.name for target in targets)
    weights = np.array([counts[t.name] ** -balance * (dispersed if t.dispersed else 1.0) for t in targets])
    return np.asarray(weights / weights.sum())
