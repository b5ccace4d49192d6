"""What the words of a question say, before any picture is seen, about the kinds of image that can answer it.

A linear reader of words and of their four-letter pieces (as in fastText, Joulin et al., EACL 2017,
https://arxiv.org/abs/1607.01759), taught by rl_training.wording on the training questions alone. It is weak where the
reasoner is strong (the picture) and makes other mistakes with words, which is what makes the two together steadier.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from medreasoner.contract.errors import CheckpointError

FILE = "wording.safetensors"
_WORD = re.compile(r"[a-z0-9]+")
_PIECE = 4
_FLOOR = 1e-3  # no question is surer than 1000 to 1: words are not pictures


def buckets(question: str, count: int) -> list[int]:
    """Return the sorted buckets, from 0 to `count` - 1, that a question's words and pieces fall into (CRC-32)."""
    pieces = set()
    for word in _WORD.findall(question.lower()):
        marked = f"<{word}>"
        pieces |= {marked, *(marked[i : i + _PIECE] for i in range(len(marked) - _PIECE + 1))}
    return sorted({zlib.crc32(piece.encode()) % count for piece in pieces})


@dataclass(frozen=True)
class Wording:
    """Tells which of its known targets a question may mean.

    Attributes:
        weights: (meanings, buckets) int8; a meaning is a target, the last one "something else".
        scale: (meanings, 1) float32, what one step of `weights` is worth.
        bias: (meanings,) float32.
        shown: (sentences, meanings) bool, whether this kind of image was seen to show that target.
        sentences: how a reasoning opens for each kind of image ("This is a chest X-ray.").
    """

    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    shown: NDArray[np.bool_]
    sentences: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> Wording:
        """Read a checkpoint folder's file; raises `CheckpointError` where it is missing or damaged."""
        try:
            with safe_open(folder / FILE, framework="numpy") as stored:
                arrays = {name: stored.get_tensor(name) for name in ("weights", "scale", "bias", "shown")}
                return cls(**arrays, sentences=tuple(json.loads((stored.metadata() or {})["sentences"])))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{folder / FILE} cannot be read: {error}",
                "fetch the checkpoint folder again, or set wording_weight to 0 in its medreasoner.json",
            ) from error

    def shares(self, question: str) -> NDArray[np.float64]:
        """Return how likely each meaning is, (meanings,) summing to 1."""
        used = buckets(question, self.weights.shape[1])
        spoken = self.weights[:, used].astype(np.float64).sum(1) * self.scale[:, 0] / math.sqrt(max(1, len(used)))
        logits = spoken + self.bias
        likely = np.exp(logits - logits.max())
        return np.asarray(likely / likely.sum(), np.float64)

    def doubts(self, question: str) -> dict[str, float]:
        """Return for each opening sentence the log-odds, in nats, that such an image does not show what is meant."""
        seen = self.shown @ self.shares(question)
        odds = np.log((1 - seen + _FLOOR) / (seen + _FLOOR))
        return dict(zip(self.sentences, odds.tolist(), strict=True))
