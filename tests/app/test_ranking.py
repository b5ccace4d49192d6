"""How far answers differ: how disagreement is counted, ranked among boxes of like size, and noted of every question."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import rankdata

from medreasoner.contract.answer import AbsentAnswer, Box, GroundingAnswer, Point
from medreasoner.pipeline import Grounding
from monailabel_app.lib.activelearning.agreement import box_size, disagreement, low_confidence
from monailabel_app.lib.activelearning.ranking import among_like_sizes, ranks_within, size_groups
from monailabel_app.lib.activelearning.score_notes import questions_of, with_first

# Disagreement and confidence


def answer(box: Sequence[float] | None, sure: float = 0.5, filled: float = 1.0) -> Grounding:
    """A grounding on a picture of 10 x 10; its mask fills the left part of its box."""
    mask = np.zeros((10, 10), bool)
    if box is None:
        return Grounding("Where?", AbsentAnswer("No."), mask, sure, 1)
    x_min, y_min, x_max, y_max = box
    mask[int(y_min) : int(y_max), int(x_min) : int(x_min + filled * (x_max - x_min))] = True
    return Grounding("Where?", GroundingAnswer(Box(*box), (Point(1, 1), Point(2, 2)), "Yes."), mask, sure, 1)


LEFT, RIGHT, ALL = (0, 0, 5, 10), (5, 0, 10, 10), (0, 0, 10, 10)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([answer(LEFT), answer(LEFT)], 0.0),
        ([answer(LEFT), answer(RIGHT)], 1.0),
        ([answer(LEFT), answer(ALL)], 0.5),  # both IoU one half
        ([answer(LEFT), answer(ALL, filled=0.5)], 0.25),  # boxes one half, masks the same
        ([answer(None), answer(None), answer(None)], 0.0),
        ([answer(None), answer(LEFT)], 1.0),
        ([answer(LEFT), answer(LEFT), answer(None)], 2 / 3),  # of three pairs one agrees
        ([answer(LEFT), answer(RIGHT), answer(ALL)], 2 / 3),  # 0, one half and one half
    ],
    ids=["same", "apart", "half", "masks count too", "absent", "absent or there", "two against one", "three"],
)
def test_disagreement_is_one_minus_the_mean_agreement_of_every_pair(drawn: list[Grounding], expected: float) -> None:
    for order in itertools.permutations(drawn):
        assert disagreement(order) == pytest.approx(expected)


def test_one_answer_cannot_disagree_and_confidence_is_a_mean() -> None:
    with pytest.raises(ValueError, match="1 answers"):
        disagreement([answer(LEFT)])
    assert low_confidence([answer(LEFT, 0.9), answer(None, 0.3)]) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([answer(LEFT), answer(ALL)], 0.75),
        ([answer(LEFT), answer(None)], 0.5),  # of those that are boxes
        ([answer(None)], 0.0),
    ],
)
def test_size_is_the_mean_share_of_the_picture(drawn: list[Grounding], expected: float) -> None:
    assert box_size(drawn) == pytest.approx(expected)


# Among boxes of like size


@pytest.mark.parametrize(
    ("scores", "groups", "expected"),
    [
        ([0.9, 0.1, 0.5], "aaa", [5 / 6, 1 / 6, 0.5]),
        ([0.9, 0.1, 0.5, 0.2], "abab", [0.75, 0.25, 0.25, 0.75]),  # each among its own
        ([0.5, 0.5, 0.1, 0.9], "aaaa", [0.5, 0.5, 0.125, 0.875]),  # equal ones share
        ([0.3], "a", [0.5]),
        ([], "", []),
    ],
)
def test_ranks_within_groups(scores: list[float], groups: str, expected: list[float]) -> None:
    assert ranks_within(scores, groups) == pytest.approx(expected)


@pytest.mark.parametrize("among", ["aaaaaaa", "aabbabb"])
def test_ranks_are_those_of_scipy(among: str) -> None:
    scores = np.array([0.4, 0.1, 0.4, 0.9, 0.4, 0.0, 1.0])
    found = np.array(ranks_within(scores.tolist(), among))
    for group in set(among):
        own = np.array([member == group for member in among])
        assert found[own] == pytest.approx((rankdata(scores[own]) - 0.5) / own.sum())


@pytest.mark.parametrize(
    ("sizes", "groups", "expected"),
    [
        ([0.5, 0.1, 0.4, 0.2, 0.3] * 2, 2, [1, 0, 1, 0, 0, 1, 0, 1, 0, 1]),  # the smaller half, in whatever order
        ([0.1, 0.2, 0.3, 0.4, 0.5], 5, [0, 0, 0, 0, 0]),  # too few for a second group
        ([None, 0.1, None], 5, [-1, 0, -1]),
        ([None, None], 5, [-1, -1]),
    ],
)
def test_size_groups(sizes: list[float | None], groups: int, expected: list[int]) -> None:
    assert size_groups(sizes, groups) == expected


def test_small_and_large_boxes_have_their_turns_alike() -> None:
    """Answers that jitter by two pixels: small boxes all disagree more than large ones, whichever is unsure."""
    sides = [4, 40] * 10
    scores = [(0.8 if side == 4 else 0.1) + 0.01 * n for n, side in enumerate(sides)]
    sizes = [side**2 / 1e4 for side in sides]
    wanted = among_like_sizes(scores, sizes, 2)
    first = sorted(range(20), key=lambda i: -wanted[i])[:4]
    assert sorted(sides[i] for i in first) == [4, 4, 40, 40]
    assert sorted(sides[i] for i in sorted(range(20), key=lambda i: -scores[i])[:4]) == [4, 4, 4, 4]


# What is noted


def test_another_question_is_put_first_and_back() -> None:
    asked = [{"question": q, "scores": {"disagreement": 0.5}, "size": 0.1, "boxes": []} for q in "abc"]
    note = {**asked[0], "axis": "axial", "reasoner_sha256": "x", "others": asked[1:]}
    turned = with_first(note, 2)
    assert [q["question"] for q in questions_of(turned)] == ["c", "a", "b"]
    assert (turned["question"], turned["axis"], turned["reasoner_sha256"]) == ("c", "axial", "x")
    assert [q["question"] for q in questions_of(with_first(turned, 1))] == ["a", "c", "b"]


def test_an_older_note_holds_one_question_without_a_size() -> None:
    note = {"scores": {"disagreement": 0.5}, "question": "Where?", "boxes": [None], "at": "2026-11-28"}
    assert questions_of(note) == [{"scores": {"disagreement": 0.5}, "question": "Where?", "boxes": [None]}]
    assert with_first(note, 0) == {**note, "others": []}
    assert questions_of({}) == []
