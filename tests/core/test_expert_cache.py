"""One look at a picture, many answers: the cache, the threads, and the checks that all experts share."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.errors import MedReasonerError
from medreasoner.expert import SegmentationExpert
from medreasoner.expert.embedding_cache import EmbeddingCache
from medreasoner.expert.picture_expert import PictureExpert
from medreasoner.expert.protocol import BOX, BOX_AND_POINTS
from medreasoner.picture import Picture

BOX_OF_ONE = Box(0, 0, 1, 1)


class CountingExpert(PictureExpert[int]):
    """Its embedding is the grey level of the first pixel, and so is its "quality", in percent."""

    def __init__(self, takes: frozenset[str] = BOX_AND_POINTS, pictures_kept: int = 2) -> None:
        super().__init__("counting", "", takes, pictures_kept)
        self.looks = 0

    def _embed(self, pixels: NDArray[np.uint8]) -> int:
        self.looks += 1
        return int(pixels[0, 0, 0])

    def _decode(self, embedding: int, box: Box | None, points: Sequence[Point]) -> tuple[NDArray[np.bool_], float]:
        return np.full((2, 3), box is not None or len(points) > 0), embedding / 100


def picture(level: int) -> Picture:
    return Picture(np.full((2, 3, 3), level, np.uint8))


def test_cache_computes_once_and_forgets_what_was_used_longest_ago() -> None:
    cache: EmbeddingCache[str] = EmbeddingCache(2)
    computed: list[str] = []

    def ask(key: str) -> str:
        return cache.get(key, lambda: computed.append(key) or key.upper())

    assert [ask(key) for key in "abaca"] == list("ABACA")
    assert computed == ["a", "b", "c"], "a was asked for again before c came, so b had to go"
    assert len(cache) == 2
    ask("b")
    assert computed[-1] == "b"


def test_cache_keeps_nothing_of_a_computation_that_failed() -> None:
    cache: EmbeddingCache[int] = EmbeddingCache()
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert cache.get("a", lambda: 7) == 7


def test_cache_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        EmbeddingCache(0)


def test_a_picture_with_the_same_pixels_is_not_looked_at_again() -> None:
    expert = CountingExpert()
    for _ in range(3):
        expert.set_picture(picture(50))
        assert expert.segment(BOX_OF_ONE).quality == 0.5
    assert expert.looks == 1


def test_the_current_picture_outlives_its_cache_entry() -> None:
    expert = CountingExpert(pictures_kept=1)
    expert.set_picture(picture(50))
    other = threading.Thread(target=expert.set_picture, args=(picture(60),))
    other.start()
    other.join()
    assert expert.segment(BOX_OF_ONE).quality == 0.5
    assert expert.looks == 3


def test_threads_do_not_swap_their_pictures() -> None:
    expert, both_set, seen = CountingExpert(), threading.Barrier(2, timeout=10), {}

    def work(level: int) -> None:
        expert.set_picture(picture(level))
        both_set.wait()
        seen[level] = expert.segment(BOX_OF_ONE).quality

    threads = [threading.Thread(target=work, args=(level,)) for level in (20, 80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {20: 0.2, 80: 0.8}


def test_quality_stays_within_0_and_1() -> None:
    expert = CountingExpert()
    expert.set_picture(picture(104))  # networks do say 1.04
    assert expert.segment(BOX_OF_ONE).quality == 1.0


def test_without_a_picture_there_is_nothing_to_segment() -> None:
    with pytest.raises(MedReasonerError, match="no picture"):
        CountingExpert().segment(BOX_OF_ONE)


@pytest.mark.parametrize(
    ("takes", "box", "points", "what"),
    [
        (BOX, None, [], "was given no prompt"),
        (BOX, None, [Point(1, 1)], "was given points"),
        (BOX, BOX_OF_ONE, [Point(1, 1)], "was given box and points"),
        (BOX_AND_POINTS, None, [], "was given no prompt"),
    ],
)
def test_prompts_an_expert_was_not_trained_on_are_refused(
    takes: frozenset[str], box: Box | None, points: list[Point], what: str
) -> None:
    expert: SegmentationExpert = CountingExpert(takes)
    expert.set_picture(picture(1))
    with pytest.raises(MedReasonerError, match=what) as caught:
        expert.segment(box, points)
    assert "give it box" in caught.value.hint
