"""Chance for sampled answers: noise that depends on a seed and a position alone.

With Gumbel noise added, taking the largest logit draws from their softmax (the Gumbel-max trick, Maddison et al.,
NeurIPS 2014, https://arxiv.org/abs/1411.0030). A position's noise is the same however often it is asked for, so drafts
are checked as for greedy answers and a seed always writes the same answer.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Noise:
    """The noise of one answer.

    Attributes:
        temperature: what the noise is multiplied by; 0 leaves the greedy answer, 1 draws from the model's own
            distribution.
        seed: any text; another one gives another answer.
    """

    temperature: float = 0.0
    seed: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"a temperature of {self.temperature} is no finite number from 0 on")

    def on(self, logits: torch.Tensor, position: int) -> torch.Tensor:
        """Return logits, (tokens,), of which the largest is a draw."""
        if not self.temperature:
            return logits
        waits = torch.empty(len(logits)).exponential_(generator=self._generator("token", position))
        return logits - self.temperature * waits.log().to(logits.device)

    def in_log_odds(self, position: int) -> float:
        """Return logistic noise in nats: added to the log-odds of a yes, its sign is a draw of yes or no."""
        if not self.temperature:
            return 0.0
        yes, no = torch.empty(2).exponential_(generator=self._generator("choice", position)).log().tolist()
        return self.temperature * float(no - yes)

    def quantile(self, position: int) -> float:
        """Return where to cut a distribution to draw from it: 0.5, the median, at temperature 0; uniform at 1."""
        return 0.5 * (1 + math.tanh(self.in_log_odds(position) / 2))

    def _generator(self, what: str, position: int) -> torch.Generator:
        return torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{position}/{what}".encode()))


GREEDY = Noise()  # none at all
