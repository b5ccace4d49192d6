"""What all experts here share: one look at a picture, many answers, from many threads."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import MedReasonerError
from medreasoner.expert.embedding_cache import Embedding, EmbeddingCache
from medreasoner.expert.protocol import Segmentation
from medreasoner.picture import Picture

if TYPE_CHECKING:
    from medreasoner.expert.volume import VolumeExpert


class PictureExpert(ABC, Generic[Embedding]):
    """A `SegmentationExpert` less its network, which a subclass adds as `_embed` and `_decode`.

    Each thread has a current picture of its own, so that two requests to a server never swap theirs. The network
    itself runs one call at a time: it uses all cores, or the one GPU.
    """

    def __init__(self, name: str, sha256: str, takes: frozenset[str], pictures_kept: int = 16) -> None:
        self.name, self.sha256, self.takes = name, sha256, takes
        self._embeddings: EmbeddingCache[Embedding] = EmbeddingCache(pictures_kept)
        self._lock = threading.Lock()
        self._thread = threading.local()

    def set_picture(self, picture: Picture) -> None:
        """Make this the current picture of the calling thread and embed it unless it still is."""
        self._thread.picture = picture
        with self._lock:
            self._embedding_of(picture)

    def segment(self, box: Box | None, points: Sequence[Point] = ()) -> Segmentation:
        """Segment what the box or the points mean, all of them in pixels of the current picture.

        Raises:
            MedReasonerError: there is no current picture, no prompt, or one that this expert does not take.
        """
        self._check_prompts(box, points)
        picture: Picture | None = getattr(self._thread, "picture", None)
        if picture is None:
            raise MedReasonerError(f"{self.name} has no picture to look at", "call set_picture first, in this thread")
        with self._lock:
            mask, quality = self._decode(self._embedding_of(picture), box, points)
        return Segmentation(mask, min(max(quality, 0.0), 1.0))

    def own_volume_expert(self) -> VolumeExpert | None:
        """Return this expert's own way through volumes; None if it knows single pictures only."""
        return None

    def _embedding_of(self, picture: Picture) -> Embedding:
        return self._embeddings.get(picture.content_hash, lambda: self._embed(picture.pixels))

    def _check_prompts(self, box: Box | None, points: Sequence[Point]) -> None:
        given = {kind for kind, there in (("box", box is not None), ("points", len(points) > 0)) if there}
        if not given or given - self.takes:
            wanted = " or ".join(sorted(self.takes))
            raise MedReasonerError(
                f"{self.name} was given {' and '.join(sorted(given)) or 'no prompt'}",
                f"give it {wanted} only: it was trained on nothing else",
            )

    @abstractmethod
    def _embed(self, pixels: NDArray[np.uint8]) -> Embedding:
        """Look at a picture, (height, width, 3) uint8 RGB; this is the slow part."""

    @abstractmethod
    def _decode(
        self, embedding: Embedding, box: Box | None, points: Sequence[Point]
    ) -> tuple[NDArray[np.bool_], float]:
        """Return the mask, (height, width) bool, and the network's estimate of its quality, not yet cut to 0..1."""
