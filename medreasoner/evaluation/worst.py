"""Keep the overlays of the worst answers while an evaluation runs, in bounded memory and disk."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medreasoner.contract.answer import Box
from medreasoner.evaluation.run import Outcome
from medreasoner.overlay import draw_overlay
from medreasoner.picture import Picture

_SIDE = 384


class WorstOverlays:
    """Draws an overlay for each answer that is among the worst so far, and removes it when better company comes."""

    def __init__(self, folder: Path, most: int, truth: dict[int, list[float]]) -> None:
        """Keep at most `most` overlays in `folder`; `truth` holds the true box of each row that has one."""
        self._folder, self._most, self._truth = folder, most, truth
        self._heap: list[tuple[float, int]] = []  # best of the worst on top: (-score, index)
        self._count = 0

    def add(self, outcome: Outcome, picture: Picture, mask: NDArray[np.bool_]) -> None:
        """Consider one answer; the least good are kept."""
        index, self._count = self._count, self._count + 1
        score = outcome.goodness
        item = (score, index)
        if self._most == 0 or (len(self._heap) == self._most and item >= self._worst_kept()):
            return
        heapq.heappush(self._heap, (-score, -index))
        self._folder.mkdir(parents=True, exist_ok=True)
        truth = Box(*self._truth[outcome.row]) if not outcome.absent else None
        box = Box(*outcome.box) if outcome.box else None
        draw_overlay(picture, mask, box, (), truth, _SIDE).save(self._path(index), quality=88)
        if len(self._heap) > self._most:
            self._path(-heapq.heappop(self._heap)[1]).unlink()

    def finish(self) -> dict[int, str]:
        """Return index of outcome -> file name relative to the report's folder."""
        kept = [-index for _, index in self._heap]
        return {index: f"{self._folder.name}/{self._path(index).name}" for index in kept}

    def _worst_kept(self) -> tuple[float, int]:
        score, index = self._heap[0]
        return -score, -index

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:05d}.jpg"
