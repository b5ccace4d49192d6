"""The last few pictures' embeddings, so that a second question or an edited box costs no second look."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Embedding = TypeVar("Embedding")


class EmbeddingCache(Generic[Embedding]):
    """Keeps the most recently used entries. Not thread-safe: its owner holds a lock."""

    def __init__(self, entries: int = 16) -> None:
        """Keep at most so many entries, at least 1; an embedding of SAM takes 4 MiB, one of SAM 2 takes 16."""
        if entries < 1:
            raise ValueError(f"a cache of {entries} entries keeps nothing")
        self._entries = entries
        self._kept: OrderedDict[str, Embedding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str, compute: Callable[[], Embedding]) -> Embedding:
        """Return what is kept under the key, or compute and keep it and forget the entry used longest ago."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        embedding = compute()
        self._kept[key] = embedding
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)
        return embedding
