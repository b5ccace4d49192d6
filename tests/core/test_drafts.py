"""Guesses of how a sentence goes on."""

from __future__ import annotations

import pytest

from medreasoner.reasoner.drafts import Drafts

ROWS = [[1, 2, 3, 4, 5], [9, 2, 3, 7, 8]]


@pytest.mark.parametrize(
    ("written", "guess"),
    [
        ([1, 2, 3], [4, 5]),
        ([9, 2, 3], [7, 8]),
        ([6, 2, 3], [4, 5]),
        ([6, 6, 1], [2, 3, 4, 5]),
        ([0, 0, 0, 9], [2, 3, 7, 8]),
        ([5], []),
        ([6], []),
        ([], []),
    ],
    ids=["whole context", "other row", "first row wins", "one token", "only the end counts", "end", "unknown", "start"],
)
def test_the_longest_known_context_decides(written: list[int], guess: list[int]) -> None:
    assert Drafts(ROWS).after(written) == guess


def test_a_guess_is_no_longer_than_asked() -> None:
    drafts = Drafts([list(range(40))])
    assert drafts.after([0]) == list(range(1, 13))
    assert drafts.after([0], most=3) == [1, 2, 3]
    assert drafts.after([0], most=30) == list(range(1, 17))


def test_a_shorter_context_looks_less_far_back() -> None:
    assert Drafts(ROWS, context=1).after([9, 2, 3]) == [4, 5]


@pytest.mark.parametrize("rows", [[], [[]], [[1]]])
def test_nothing_known_gives_no_guess(rows: list[list[int]]) -> None:
    assert Drafts(rows).after([1]) == []
