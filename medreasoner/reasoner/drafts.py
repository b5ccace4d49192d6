"""Guess how a sentence goes on, so that one forward pass checks many tokens instead of writing one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Drafts:
    """Continuations of known token sequences, looked up by the last few tokens written.

    A draft is only ever a guess that the model checks (prompt-lookup decoding, as in Leviathan et al., ICML 2023,
    https://arxiv.org/abs/2211.17192, with a table instead of a small model): greedy text stays what it was.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], context: int = 3) -> None:
        self._context = context
        self._next: dict[tuple[int, ...], tuple[int, ...]] = {}
        for sequence in sequences:
            for length in range(1, context + 1):
                for end in range(length, len(sequence)):
                    self._next.setdefault(tuple(sequence[end - length : end]), tuple(sequence[end : end + 16]))

    def after(self, tokens: Sequence[int], most: int = 12) -> list[int]:
        """Return the likeliest known continuation, the longest matching context first; empty when none is known."""
        for length in range(min(self._context, len(tokens)), 0, -1):
            found = self._next.get(tuple(tokens[-length:]))
            if found:
                return list(found[:most])
        return []
