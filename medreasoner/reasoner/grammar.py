"""The form of an answer in a tokenizer's tokens: what is fixed in it, and what a number may be written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medreasoner.reasoner.card import ReasonerCard

_OPEN = "<answer>"
_TAGS = ("<think>", "<answer>", "</answer>")
_BOX = '{"bbox": ['
_ABSENT = '{"absent": true}</answer>'
_AFTER_NUMBER = (", ", ", ", ", ", '], "points_1": [', ", ", '], "points_2": [', ", ", "]}</answer>")
END_OF_REASONING = "</think>"


@dataclass(frozen=True)
class AnswerGrammar:
    """What a reasoner may write after ``</think>``, in one tokenizer's tokens.

    Attributes:
        canvas: side of the square the reasoner sees, in pixels; numbers run from 0 to `canvas`.
        numbers: token of each whole number where the tokenizer has one token per number, else None.
        digits: token of each digit; used where `numbers` is None.
        opening: tokens of ``<think>``, which every answer starts with.
        may_abstain: whether ``{"absent": true}`` is allowed.
        verdict, absent_margin, verdict_limit: see `ReasonerCard`, the two words as tokens.
        max_reasoning: reasoning tokens after which ``</think>`` is forced.
        heads, tails: tokens that may stand for the first and last of `end_of_reasoning`, since vocabularies merge marks
            across it: Qwen writes "here.</think><answer>" as here, .</, think, ><, answer, >.
    """

    canvas: int
    numbers: tuple[int, ...] | None
    digits: tuple[int, ...]
    may_abstain: bool
    max_reasoning: int
    opening: tuple[int, ...]
    end_of_reasoning: tuple[int, ...]
    stop: int
    open_answer: tuple[int, ...]
    box: tuple[int, ...]
    absent: tuple[int, ...]
    after_number: tuple[tuple[int, ...], ...]
    banned: tuple[int, ...]
    verdict: tuple[int, int] | None = None
    absent_margin: float = 0.0
    verdict_limit: float | None = None
    heads: frozenset[int] = frozenset()
    tails: frozenset[int] = frozenset()

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, card: ReasonerCard) -> AnswerGrammar:
        """Build the grammar of a card in `tokenizer`'s tokens (a transformers fast tokenizer)."""
        canvas = card.canvas

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

        singles = [ids(str(n)) for n in range(canvas + 1)]
        one_each = all(len(single) == 1 for single in singles)
        whole_tags = {ids(tag)[0] for tag in _TAGS if len(ids(tag)) == 1}
        ending = ids(END_OF_REASONING)
        head, tail = tokenizer.convert_ids_to_tokens([ending[0], ending[-1]])
        vocabulary = tokenizer.get_vocab().items()
        return cls(
            canvas=canvas,
            numbers=tuple(single[0] for single in singles) if one_each else None,
            digits=tuple(ids(str(n))[0] for n in range(10)),
            may_abstain=card.may_abstain,
            max_reasoning=card.max_reasoning,
            opening=ids("<think>"),
            end_of_reasoning=ending,
            stop=tokenizer.convert_tokens_to_ids("<|im_end|>"),
            open_answer=ids(_OPEN),
            box=ids(_BOX),
            absent=ids(_ABSENT),
            after_number=tuple(ids(text) for text in _AFTER_NUMBER),
            banned=tuple(sorted({*tokenizer.all_special_ids, *whole_tags})),
            verdict=(ids(card.verdict[0])[0], ids(card.verdict[1])[0]) if card.verdict else None,
            absent_margin=card.absent_margin,
            verdict_limit=card.verdict_limit,
            heads=frozenset(token for text, token in vocabulary if text.endswith(head)),
            tails=frozenset(token for text, token in vocabulary if text.startswith(tail)),
        )

    def closes(self, tokens: Sequence[int]) -> bool:
        """Say whether the tokens end the reasoning, however the vocabulary merges the marks around its end."""
        ending = self.end_of_reasoning
        last = tuple(tokens[-len(ending) :])
        if len(ending) == 1 or len(last) < len(ending):
            return last == ending
        return last[0] in self.heads and last[1:-1] == ending[1:-1] and last[-1] in self.tails
