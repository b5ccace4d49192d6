"""Guided decoding: the reasoning is free, the answer's JSON can only come out well formed.

The fixed parts of the answer are appended without asking the model for them, so that one forward pass reads a whole
run of them; only the numbers, and whether the target is absent, are the model's choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from medreasoner.reasoner.grammar import AnswerGrammar
from medreasoner.reasoner.noise import GREEDY, Noise


def limited(lead: float, limit: float | None) -> float:
    """Keep a lead within plus and minus `limit`, where there is one."""
    return lead if limit is None else min(max(lead, -limit), limit)


@dataclass
class GuidedAnswer:
    """One answer in the making: read `grammar.opening` with the prompt, then what each `advance` returns."""

    grammar: AnswerGrammar
    openings: tuple[tuple[int, ...], ...] = ()  # sentences, of which the reasoning must start with one; none: any start
    area: tuple[int, int, int, int] | None = None  # x_min, y_min, x_max, y_max of the picture on the canvas; None: all
    doubts: Mapping[tuple[int, ...], float] = field(default_factory=dict)  # by opening: nats for "it is not there"
    noise: Noise = GREEDY
    tokens: list[int] = field(init=False)
    numbers: list[int] = field(default_factory=list)
    done: bool = False
    log_likelihood: float = 0.0  # of the choices the model made after the reasoning
    choices: int = 0  # how many those were
    _reasoning_over: bool = False
    _branched: bool = False
    _typed: str = ""
    _absent_lead: float | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.grammar.opening)

    def advance(self, logits: torch.Tensor, best: int | None = None) -> list[int]:
        """Choose the next tokens from the logits of the next position.

        Args:
            logits: (vocabulary,) float, for the position after everything returned so far.
            best: the most likely token that is not banned, where a batch has worked it out for all rows at once.

        Returns:
            At least one token: the model's choice and every fixed token that must follow it.
        """
        if not self._reasoning_over:
            new = self._reason(logits, best)
        elif not self._branched:
            new = self._branch(logits)
        else:
            new = self._number(logits)
        self.tokens += new
        return new

    @property
    def reasoning(self) -> bool:
        """Whether the reasoning is still being written."""
        return not self._reasoning_over

    def likeliest(self, logits: torch.Tensor) -> int:
        """Return the token that the reasoning goes on with: the most likely one it may hold, or a draw with `noise`."""
        logits = self.noise.on(logits, len(self.tokens))
        if starts := self._possible_starts():
            return max(starts, key=lambda token: float(logits[token]))
        banned = torch.tensor(self.grammar.banned, device=logits.device)
        return self._settled(int(logits.index_fill(0, banned, -float("inf")).argmax()), logits)

    def _possible_starts(self) -> set[int]:
        """Return the tokens that go on with one of `openings`; none once one of them is written."""
        written = tuple(self.tokens[len(self.grammar.opening) :])
        return {o[len(written)] for o in self.openings if len(o) > len(written) and o[: len(written)] == written}

    def _settled(self, token: int, logits: torch.Tensor) -> int:
        """Decide the verdict when the model comes to it: "it is not there" has to lead by the card's margin."""
        verdict = self.grammar.verdict
        if verdict is None or token not in verdict or not set(verdict).isdisjoint(self.tokens):
            return token
        own = limited(float(logits[verdict[1]] - logits[verdict[0]]), self.grammar.verdict_limit)
        lead = own + self._doubt() - self.grammar.absent_margin
        absent = lead + self.noise.in_log_odds(len(self.tokens)) > 0
        self._absent_lead = lead if absent else None
        return verdict[absent]

    def _doubt(self) -> float:
        """Return what is known beforehand against the target being on an image of the kind that was written down."""
        written = tuple(self.tokens[len(self.grammar.opening) :])
        return next((doubt for opening, doubt in self.doubts.items() if written[: len(opening)] == opening), 0.0)

    def ends_with(self, token: int) -> bool:
        """Say whether this token would end the reasoning."""
        return self.grammar.closes((*self.tokens, token)) or len(self.tokens) + 1 >= self.grammar.max_reasoning

    def _reason(self, logits: torch.Tensor, best: int | None) -> list[int]:
        grammar = self.grammar
        known = best is not None and not self.noise.temperature and not self._possible_starts()
        token = self._settled(best, logits) if known and best is not None else self.likeliest(logits)
        ending = list(grammar.end_of_reasoning)
        if grammar.closes((*self.tokens, token)):
            return [ending[-1], *self._enter_answer()]  # without what a merged token wrote beyond the end
        if self.ends_with(token):
            return [token, *ending, *self._enter_answer()]
        return [token]

    def _enter_answer(self) -> list[int]:
        self._reasoning_over = True
        if self.grammar.may_abstain:
            return [*self.grammar.open_answer, *self._shared()]
        self._branched = True
        return [*self.grammar.open_answer, *self.grammar.box]

    def _shared(self) -> list[int]:
        shared = []
        for a, b in zip(self.grammar.box, self.grammar.absent, strict=False):
            if a != b:
                break
            shared.append(a)
        return shared

    def _branch(self, logits: torch.Tensor) -> list[int]:
        self._branched = True
        start = len(self._shared())
        box, absent = self.grammar.box, self.grammar.absent
        pair = logits[[box[start], absent[start]]].float().log_softmax(0)
        if float(pair[1] - pair[0]) + self.noise.in_log_odds(len(self.tokens)) > 0:
            self.done = True
            self.choices += 1
            if self._absent_lead is None:
                self.log_likelihood += float(pair[1])
            else:  # the verdict fell in the reasoning; this is its logistic, 0.5 at the margin
                self.log_likelihood += -math.log1p(math.exp(-self._absent_lead))
            return [*absent[start:], self.grammar.stop]
        self.choices += 1
        self.log_likelihood += float(pair[0])
        return list(box[start:])

    def _number(self, logits: torch.Tensor) -> list[int]:
        if self.grammar.numbers is not None:
            token, value = self._whole_number(logits)
            return [token, *self._close_number(value)]
        return self._digit(logits)

    def _bounds(self) -> tuple[int, int]:
        """Smallest and largest number that keeps the box's area positive and all of the answer on the picture."""
        at, canvas = len(self.numbers), self.grammar.canvas
        x_min, y_min, x_max, y_max = self.area or (0, 0, canvas, canvas)
        low, high = (x_min, x_max) if at % 2 == 0 else (y_min, y_max)
        return (self.numbers[at - 2] + 1, high) if at in (2, 3) else (low, high - 1)

    def _whole_number(self, logits: torch.Tensor) -> tuple[int, int]:
        """Take the median of the model's distribution: the best guess for an L1 error, and steadier than the mode.

        With noise, another quantile takes the median's place.
        """
        assert self.grammar.numbers is not None
        low, high = self._bounds()
        allowed = list(self.grammar.numbers[low : high + 1])
        share = logits[allowed].float().softmax(0)
        cut = self.noise.quantile(len(self.tokens))
        value = low + int((share.cumsum(0) < cut).sum().clamp(max=high - low))
        self.log_likelihood += float(share[max(0, value - low - 4) : value - low + 5].sum().log())
        return self.grammar.numbers[value], value

    def _close_number(self, value: int) -> list[int]:
        self.numbers.append(value)
        self.choices += 1
        closing = list(self.grammar.after_number[len(self.numbers) - 1])
        if len(self.numbers) == len(self.grammar.after_number):
            self.done = True
            closing.append(self.grammar.stop)
        return closing

    def _digit(self, logits: torch.Tensor) -> list[int]:
        """Digit by digit, for tokenizers without a token per number; stops at the number's largest useful length."""
        _, high = self._bounds()
        closing = self.grammar.after_number[len(self.numbers)][0]
        fits = [d for d in range(10) if int(self._typed + str(d)) <= high] if self._typed != "0" else []
        options = [self.grammar.digits[d] for d in fits] + ([closing] if self._typed else [])
        share = logits[options].float().log_softmax(0)
        best = int(self.noise.on(share, len(self.tokens)).argmax())
        self.log_likelihood += float(share[best])
        if best < len(fits):
            self._typed += str(fits[best])
            return [options[best]]
        value, self._typed = int(self._typed), ""
        return self._close_number(value)
