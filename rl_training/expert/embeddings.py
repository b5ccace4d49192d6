"""Look at each training picture once: LiteMedSAM's features, kept as float16 in one file that only grows.

The frozen image encoder takes most of the time, and its answer never changes; it is the product's own encoder, so that
training and inference see the same. A run that was cut off goes on where it stopped: the index, written after the
features, says how many whole records there are.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medreasoner.contract.errors import MedReasonerError
from medreasoner.evaluation.cases import Sample
from medreasoner.expert.litemedsam import LiteMedSam, Look
from medreasoner.imaging import open_image

_SHAPE = (256, 64, 64)
_BYTES = int(np.prod(_SHAPE)) * 2


@dataclass(frozen=True)
class _Record:
    size: tuple[int, int]  # height and width of the picture
    inner: tuple[int, int]  # of its scaled copy on the network's canvas


class Embeddings:
    """Features of pictures by their names; open it again to see what another process has added."""

    def __init__(self, folder: Path, encoder_sha256: str) -> None:
        """Open a folder or begin one.

        Raises:
            MedReasonerError: it was begun with another encoder's weights.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._features, self._index = folder / "features.f16", folder / "index.jsonl"
        begun = self._index.exists()
        lines = self._index.read_text(encoding="utf-8").splitlines() if begun else []
        if not begun:
            self._index.write_text(json.dumps({"encoder": encoder_sha256}) + "\n", encoding="utf-8")
        elif json.loads(lines[0])["encoder"] != encoder_sha256:
            raise MedReasonerError(f"{folder} holds features of another encoder", "give an empty folder")
        rows = [json.loads(line) for line in lines[1:]]
        self._records = {row["image"]: _Record(tuple(row["size"]), tuple(row["inner"])) for row in rows}
        self._rows = {name: row for row, name in enumerate(self._records)}

    def __contains__(self, image: object) -> bool:
        return image in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, image: str) -> Look:
        """Return features (1, 256, 64, 64) float32 and the picture's two sizes."""
        record = self._records[image]
        stored = np.memmap(self._features, np.float16, "r", self._rows[image] * _BYTES, _SHAPE)
        return Look(torch.from_numpy(np.array(stored, np.float32))[None], record.size, record.inner)

    def add(self, image: str, look: Look) -> None:
        """Append one picture's features; whatever a cut-off run left behind the last whole record goes."""
        self._features.touch()
        with self._features.open("r+b") as stream:
            stream.truncate(len(self) * _BYTES)
            stream.seek(0, 2)
            stream.write(_halved(look.features).tobytes())
        with self._index.open("a", encoding="utf-8") as index:
            index.write(json.dumps({"image": image, "size": look.size, "inner": look.inner}) + "\n")
        self._rows[image] = len(self._rows)
        self._records[image] = _Record(look.size, look.inner)


def _halved(features: Tensor) -> NDArray[np.float16]:
    return np.asarray(features[0].float().numpy(), np.float16)


def embed(
    encoder: LiteMedSam,
    images: Sequence[str],
    data: Path,
    embeddings: Embeddings,
    seconds: float,
    progress: Callable[[int, int], None],
    brain_floats: bool = False,
) -> None:
    """Look at pictures, in their order, until all are there or the time is over.

    Args:
        encoder: the product's own.
        images: paths below `data`.
        data: the collection's folder.
        embeddings: where the features go; pictures that it has are passed over.
        seconds: of this run.
        progress: called with how many pictures are there, out of how many.
        brain_floats: encode in bfloat16, twice as quick on processors that have it; features then differ from the
            product's by about 5 %, a mild augmentation. Not for pictures to validate on.

    Raises:
        ImageError: a picture cannot be read.
    """
    end = time.monotonic() + seconds
    for number, image in enumerate(images):
        if time.monotonic() > end:
            return
        if image not in embeddings:
            with torch.autocast("cpu", torch.bfloat16, enabled=brain_floats):
                look = encoder.look(open_image(data / image).picture().pixels)
            embeddings.add(image, look)
        progress(number + 1, len(images))


def balanced_order(samples: Sequence[Sample], split: str, seed: int) -> list[str]:
    """Order a split's pictures so that the first so many show every target about equally often.

    The target seen least so far names the next picture, drawn among those that show it; dispersed targets count as
    targets too.
    """
    waiting: dict[str, list[str]] = defaultdict(list)
    shows: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample["split"] == split:
            waiting[sample["category"]].append(sample["image"])
            shows[sample["image"]].append(sample["category"])
    rng = random.Random(seed)
    for images in waiting.values():
        rng.shuffle(images)
    seen = dict.fromkeys(waiting, 0)
    order: dict[str, None] = {}
    while any(waiting.values()):
        target = min((name for name in waiting if waiting[name]), key=lambda name: (seen[name], name))
        image = waiting[target].pop()
        if image not in order:
            order[image] = None
            for name in shows[image]:
                seen[name] += 1
    return list(order)
