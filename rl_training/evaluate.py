"""Quick evaluation of a reasoner on a split: guided greedy answers in batches, box IoU against truth and prior.

The full evaluation, with the expert's masks, is `medreasoner evaluate`; this one tells quickly whether training pays.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from medreasoner.contract.answer import AbsentAnswer, Box, parse_answer
from medreasoner.contract.errors import AnswerError
from medreasoner.contract.target import named_target
from medreasoner.evaluation.cases import cases_of
from medreasoner.evaluation.run import prior_boxes
from medreasoner.geometry import box_iou
from medreasoner.reasoner.grammar import AnswerGrammar
from medreasoner.reasoner.guided import GuidedAnswer
from rl_training.batch_decoding import BatchDecoder
from rl_training.card import embedded_card
from rl_training.config import SftConfig
from rl_training.feed import Feed
from rl_training.questions import training_entries
from rl_training.warp import boxes_and_points

Case = dict[str, Any]


@torch.inference_mode()
def answer_batch(
    model: Any, tokenizer: Any, grammar: AnswerGrammar, prompts: list[list[int]], pictures: torch.Tensor
) -> list[str]:
    """Answer prompts of equal or unequal length together (left padding), guided and greedy.

    Args:
        prompts: token rows, each with the image tokens inside.
        pictures: (batch, 3, side, side) float in [0, 1].
    """
    pad = tokenizer.pad_token_id
    decoder = BatchDecoder(model, pad, prompts, pictures)
    answers = [GuidedAnswer(grammar) for _ in prompts]
    banned = torch.tensor(grammar.banned, device=pictures.device)
    waiting: list[list[int]] = [[] for _ in prompts]
    while True:
        best = decoder.logits.index_fill(1, banned, -float("inf")).argmax(1).tolist()
        step = []
        for answer, queue, row, likely in zip(answers, waiting, decoder.logits, best, strict=True):
            if not queue and not answer.done:
                queue.extend(answer.advance(row, likely))
            step.append(queue.pop(0) if queue else pad)
        if all(a.done and not q for a, q in zip(answers, waiting, strict=True)):
            break
        decoder.read(torch.tensor(step, device=pictures.device)[:, None])
    return [tokenizer.decode([t for t in a.tokens if t != grammar.stop]) for a in answers]


def evaluate_split(
    model: Any,
    tokenizer: Any,
    samples: list[Case],
    pictures: torch.Tensor,
    masks: torch.Tensor,
    data: Path,
    split: str,
    canvas: int,
    batch: int = 256,
    most: int | None = None,
) -> list[Case]:
    """Answer every case of a split; returns the cases with text, IoU, prior's IoU, named and absent flags added."""
    model.eval()
    config = SftConfig(canvas=canvas)
    feed = Feed(samples, training_entries(data), [], tokenizer, config)
    boxes: dict[int, list[float]] = {}
    used = [i for i, s in enumerate(samples) if s["split"] == split]
    for i in range(0, len(used), 256):
        found = boxes_and_points(masks[used[i : i + 256]] > 0)[0].tolist()
        boxes.update(zip(used[i : i + 256], found, strict=True))
    prior = prior_boxes(samples, canvas)
    grammar = AnswerGrammar.for_tokenizer(tokenizer, embedded_card(feed.entries, canvas))
    cases: list[Case] = [asdict(case) for case in cases_of(samples, data, split)[:most]]
    prompts = [[*feed.prompt(c["question"]), *grammar.opening] for c in cases]
    order = sorted(range(len(cases)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        shown = torch.stack([pictures[samples[cases[i]["row"]]["picture_row"]] for i in some])
        texts = answer_batch(
            model, tokenizer, grammar, [prompts[i] for i in some], shown.permute(0, 3, 1, 2).float() / 255
        )
        for i, text in zip(some, texts, strict=True):
            score(cases[i], text, boxes[cases[i]["row"]], prior.get(cases[i]["name"]))
    return cases


def score(case: Case, text: str, truth: list[float], prior: Box | None) -> None:
    """Add the outcome of one answer to its case."""
    case["text"] = text
    try:
        answer = parse_answer(text)
    except AnswerError:
        case.update(parsed=False, said_absent=False, named="", iou=0.0)
        answer = None
    if isinstance(answer, AbsentAnswer):
        case.update(parsed=True, said_absent=True, named="", iou=0.0)
    elif answer is not None:
        case.update(parsed=True, said_absent=False, named=named_target(answer.reasoning))
        case["iou"] = box_iou(answer.box, Box(*truth))
    case["prior_iou"] = box_iou(prior, Box(*truth)) if prior else 0.0


def print_table(cases: list[Case]) -> None:
    """Print the totals, then a line for each style and each target."""
    there = [c for c in cases if not c["absent"]]

    def line(label: str, some: list[Case]) -> None:
        n = max(1, len(some))
        iou, prior = (sum(c[k] for c in some) / n for k in ("iou", "prior_iou"))
        named = sum(c["named"] == c["name"] for c in some) / n
        print(f"{label:28s} n {len(some):4d}  IoU {iou:.3f}  prior {prior:.3f}  named {named:.3f}")

    line("present", there)
    for style in sorted({c["style"] for c in there}):
        line(f"  {style}", [c for c in there if c["style"] == style])
    for name in sorted({c["name"] for c in there}):
        line(f"    {name}", [c for c in there if c["name"] == name])
    print(f"parsed {sum(c['parsed'] for c in cases) / len(cases):.4f}")
    print(f"false absent {sum(c['said_absent'] for c in there) / max(1, len(there)):.4f}")
    for style in ("listed", "crossed"):
        some = [c for c in cases if c["style"] == style]
        print(
            f"absent recognised, {style}: {sum(c['said_absent'] for c in some) / max(1, len(some)):.3f} of {len(some)}"
        )
