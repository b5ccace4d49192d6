"""Frozen features of pictures, from the image encoder of the published LiteMedSAM; the small student reads these.

That encoder has seen no question and no target's name. It gets a third of the canvas (112 pixels a side, two of its
windows of attention), in bfloat16: a tenth of a second a picture on one core. What is done is kept in a file, and an
interrupted call goes on there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from medreasoner.expert.catalogue import EXPERTS
from medreasoner.expert.litemedsam import LiteMedSam

CELLS, CHANNELS = 14, 256  # a cell is 24 pixels of the canvas
SHRINK = 3
FILE = "features.npy"
Floats = NDArray[np.float64]


def features(state: Path, pictures: NDArray[np.uint8], rows: list[int]) -> NDArray[np.float16]:
    """Return pictures' features, (pictures, CELLS * CELLS, CHANNELS) float16, a cell after the other, row by row.

    Args:
        state: folder of the file.
        pictures: (pictures, 336, 336, 3) uint8.
        rows: the pictures asked for; the features of others are NaN until they are.
    """
    path, shape = state / FILE, (len(pictures), CELLS * CELLS, CHANNELS)
    if not path.exists():
        fresh = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", np.float16, shape)
        fresh[:] = np.nan
        fresh.flush()
        path.with_suffix(".part").replace(path)
    kept: NDArray[np.float16] = np.lib.format.open_memmap(path, "r+")
    missing = [row for row in rows if np.isnan(kept[row, -1, -1])]
    if missing:
        encoder = LiteMedSam(EXPERTS["litemedsam"].path()).network.image_encoder
        for row in missing:
            kept[row] = _encoded(encoder, pictures[row])
        kept.flush()
    return kept


def mean_looks(kept: NDArray[np.float16], rows: list[int]) -> Floats:
    """Return the mean over the cells of some pictures' features, (rows, CHANNELS)."""
    found: Floats = np.zeros((len(rows), CHANNELS))
    for at, row in enumerate(rows):
        found[at] = kept[row].mean(0, dtype=np.float64)
    return found


@torch.inference_mode()
def _encoded(encoder: torch.nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    small = avg_pool2d(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float(), SHRINK)
    small = (small - small.min()) / (small.max() - small.min()).clamp(min=1)  # as `LiteMedSam.look` does
    with torch.autocast("cpu", torch.bfloat16):
        maps = encoder(small)  # (1, CHANNELS, 28, 28)
    return avg_pool2d(maps.float(), 2).flatten(2)[0].T.to(torch.float16).numpy()
