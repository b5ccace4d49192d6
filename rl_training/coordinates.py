"""Teach a coordinate as a place, not as a word: 119 is nearly right where 120 is, and 20 is not.

For reasoners that write each number as one token, as the embedded one does. `marked` puts coordinates into the labels
of a batch, and `SoftNumbers` is the loss that reads them there.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F

from medreasoner.contract.errors import MedReasonerError
from rl_training.losses import soft_number_loss

IGNORED = -100  # a label without a loss
FIRST = IGNORED - 1  # the label of coordinate 0; that of coordinate n is n lower
_COORDINATE = re.compile(r"(?<=[\[ ])\d+(?=[,\]])")


def marked(tokenizer: Any, answer: str) -> list[int]:
    """Return the labels of an answer's tokens, each coordinate behind ``<answer>`` as `FIRST` minus its value.

    Raises:
        MedReasonerError: a coordinate is not one token.
    """
    read = tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
    labels: list[int] = list(read["input_ids"])
    at = {tuple(span): token for token, span in enumerate(read["offset_mapping"])}
    for number in _COORDINATE.finditer(answer, answer.find("<answer>")):
        if number.span() not in at:
            raise _digits(number.group())
        labels[at[number.span()]] = FIRST - int(number.group())
    return labels


def _digits(number: str) -> MedReasonerError:
    return MedReasonerError(f"this reasoner does not write {number} as one token", "set number_spread to 0")


class SoftNumbers:
    """Cross-entropy of an answer's tokens, of its coordinates against a Gaussian around the true one."""

    def __init__(self, tokenizer: Any, canvas: int, spread: float) -> None:
        """Look up the numbers up to `canvas`; `spread` is a standard deviation in canvas pixels.

        Raises:
            MedReasonerError: one of them is not a token.
        """
        words = [str(number) for number in range(canvas + 1)]
        if missing := [word for word in words if word not in tokenizer.get_vocab()]:
            raise _digits(missing[0])
        self.numbers, self.spread = torch.tensor(tokenizer.convert_tokens_to_ids(words)), spread

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """Return the mean loss of a token, scalar, as transformers' Trainer asks for it.

        Args:
            outputs: with logits (batch, length, vocabulary).
            labels: (batch, length) long, see `marked`.
            num_items_in_batch: tokens with a loss in all micro-batches of an update; None: in this one.
        """
        logits, truth = outputs.logits[:, :-1], labels[:, 1:]
        words, places = truth >= 0, truth <= FIRST
        loss = F.cross_entropy(logits[words].float(), truth[words], reduction="sum")
        numbers = self.numbers.to(logits.device)
        loss = loss + soft_number_loss(logits[places], FIRST - truth[places], numbers, self.spread).sum()
        return loss / (num_items_in_batch if num_items_in_batch is not None else (words | places).sum())
