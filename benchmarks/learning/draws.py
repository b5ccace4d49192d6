"""Boxes that a reasoner draws for many questions at once: the greedy one, or several samples of each.

The same answers as `rl_training.evaluate.answer_batch` writes row by row, but only as far as the box: every row writes
its reasoning until it ends it, then all write the four numbers together, so nothing but token ids leaves the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from medreasoner.contract.answer import Box
from medreasoner.contract.errors import MedReasonerError
from medreasoner.geometry import box_iou
from medreasoner.reasoner.grammar import AnswerGrammar
from rl_training.batch_decoding import BatchDecoder

_NEAR = 4  # pixels round a number that count as the same answer, as in GuidedAnswer's likelihood


@dataclass(frozen=True)
class Drawn:
    """What came out.

    Attributes:
        boxes: for each question its boxes in canvas pixels, half open.
        confidence: for each question the mean log-likelihood, in nats, of its first box's numbers to within 4 pixels.
    """

    boxes: list[list[Box]]
    confidence: list[float]


@torch.inference_mode()
def draw_boxes(
    model: Any,
    pad: int,
    grammar: AnswerGrammar,
    prompts: list[list[int]],
    pictures: torch.Tensor,
    draws: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> Drawn:
    """Answer every prompt `draws` times.

    Args:
        model: a Qwen2.5-VL model whose tokenizer has a token for every number and one for the end of the reasoning.
        pad: the padding's token.
        grammar: of a card that may not abstain: these questions are about what is there.
        prompts: token rows with the image tokens inside and the answer's opening at the end.
        pictures: (questions, 3, side, side) float in [0, 1].
        draws: answers to each.
        temperature: 0 takes the likeliest words and the median numbers; 1 draws from the model's own distribution.
        seed: of the drawing.

    Raises:
        MedReasonerError: the grammar does not fit.
    """
    if grammar.numbers is None or len(grammar.end_of_reasoning) != 1 or grammar.may_abstain:
        raise MedReasonerError(
            "boxes are drawn in batches only from a tokenizer with whole numbers and tags, by a card without absence",
            "use a base folder of rl_training.trunk",
        )
    decoder = BatchDecoder(model, pad, prompts, pictures)
    decoder.repeat(draws)
    chance = torch.Generator(device=pictures.device).manual_seed(seed)
    _write_reasoning(decoder, pad, grammar, temperature, chance)
    numbers, confidence = _write_box(decoder, grammar, temperature, chance)
    rows = [Box(*row) for row in numbers.tolist()]
    boxes = [rows[at : at + draws] for at in range(0, len(rows), draws)]
    return Drawn(boxes, confidence[::draws].tolist())


def _write_reasoning(
    decoder: BatchDecoder, pad: int, grammar: AnswerGrammar, temperature: float, chance: torch.Generator
) -> None:
    """Write all answers up to the end of their reasoning, without the token that says so."""
    banned = torch.tensor(grammar.banned, device=decoder.device)
    live = torch.ones(len(decoder.logits), dtype=torch.bool, device=decoder.device)
    for _ in range(grammar.max_reasoning - len(grammar.opening)):
        logits = decoder.logits.index_fill(1, banned, -float("inf"))
        if temperature:  # with Gumbel noise the largest logit is a draw (medreasoner/reasoner/noise.py)
            logits = logits - temperature * torch.empty_like(logits).exponential_(generator=chance).log()
        token = logits.argmax(1)
        live = live & (token != grammar.end_of_reasoning[0])
        if not live.any():
            return
        decoder.read(torch.where(live, token, pad)[:, None], live)


def _write_box(
    decoder: BatchDecoder, grammar: AnswerGrammar, temperature: float, chance: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the box of all answers.

    Returns:
        (answers, 4) long x_min, y_min, x_max, y_max with a positive area, and (answers,) mean log-likelihoods.
    """
    answers, device = len(decoder.logits), decoder.device
    tokens = torch.tensor(grammar.numbers, device=device)
    found: list[torch.Tensor] = []
    likelihood = torch.zeros(answers, device=device)
    following = torch.tensor([*grammar.end_of_reasoning, *grammar.open_answer, *grammar.box], device=device)
    written = following.expand(answers, -1)
    for at in range(4):
        decoder.read(written)
        value, likely = pick_number(decoder.logits[:, tokens], found, temperature, chance)
        likelihood += likely / 4
        found.append(value)
        after = torch.tensor(grammar.after_number[at], device=device).expand(answers, -1)
        written = torch.cat([tokens[value][:, None], after], 1)
    return torch.stack(found, 1), likelihood


def pick_number(
    logits: torch.Tensor, found: list[torch.Tensor], temperature: float, chance: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick a box's next number: the median, or with a temperature a draw.

    Args:
        logits: (answers, canvas + 1) float.
        found: the numbers before it, each (answers,) long; a side is at least a pixel long.
        temperature, chance: as `draw_boxes` takes them.

    Returns:
        (answers,) long, and the log-likelihood of its neighbourhood in nats, (answers,).
    """
    at, canvas = len(found), logits.shape[1] - 1
    steps = torch.arange(canvas + 1, device=logits.device)[None]
    low = found[at - 2][:, None] + 1 if at >= 2 else torch.zeros(len(logits), 1, device=logits.device)
    allowed = (steps >= low) & (steps <= (canvas if at >= 2 else canvas - 1))
    logits = logits.masked_fill(~allowed, -float("inf"))
    below = torch.cumsum(logits.softmax(1), 1)
    if temperature:
        value = torch.multinomial((logits / temperature).softmax(1), 1, generator=chance)[:, 0]
    else:
        value = (below < 0.5).sum(1).clamp(max=canvas)
    high, under = (value + _NEAR).clamp(max=canvas), value - _NEAR - 1
    share = below.gather(1, high[:, None])[:, 0]
    share = share - torch.where(under >= 0, below.gather(1, under.clamp(min=0)[:, None])[:, 0], 0)
    return value, share.clamp(min=1e-6).log()


def disagreement(boxes: list[Box]) -> float:
    """Return how far boxes for one question differ: 1 minus their mean pairwise IoU, in [0, 1]."""
    overlaps = [box_iou(a, b) for a, b in combinations(boxes, 2)]
    return 1 - sum(overlaps) / len(overlaps)


def sizes(drawn: list[list[Box]]) -> list[float]:
    """Return the mean area of each question's boxes, in square pixels of the canvas."""
    return [sum(box.area for box in boxes) / len(boxes) for boxes in drawn]
