"""Choose how sure a reasoner must be before it may say "absent", on the validation split.

At the word after "The question" the reasoner decides between "points" (the target is there) and "asks" (it is not).
Its lead, limited and with the doubt from the question's wording counted in as the card says, is measured on present and
absent questions; the card gets the largest threshold that still recognises the wanted share of absent targets, so that
as few present ones as possible are called absent.

python -m rl_training.calibrate FOLDER --data DATA --packed PACKED [--split val] [--least-recall 0.88] [--write]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from medreasoner.console import errors_for_people
from medreasoner.contract.errors import MedReasonerError
from medreasoner.evaluation.cases import Case, Sample, cases_of, read_samples
from medreasoner.evaluation.kinds import kind_of
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.guided import limited
from medreasoner.reasoner.wording import Wording
from rl_training.config import SftConfig
from rl_training.feed import Feed
from rl_training.forward import rotary_positions, text_states, to_patches, vision_tokens, with_picture
from rl_training.pack import open_pictures
from rl_training.questions import training_entries
from rl_training.reasoning import article
from rl_training.sft import load_model


@torch.inference_mode()
def margins(model: Any, tokenizer: Any, feed: Feed, cases: list[Case], pictures: Any, batch: int = 8) -> list[float]:
    """Return logit("asks") - logit("points") at the verdict of every case, in nats."""
    words = [tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" points", " asks")]
    found: list[float] = []
    device = model.device
    for at in range(0, len(cases), batch):
        some = cases[at : at + batch]
        rows = []
        for case in some:
            kind = kind_of(feed.samples[case.row])
            opening = f"<think>This is {article(kind)} {kind}. The question"
            rows.append(feed.prompt(case.question) + tokenizer(opening, add_special_tokens=False)["input_ids"])
        length = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows], device=device)
        start = (ids == model.config.image_token_id).int().argmax(1)
        shown = np.stack([pictures[feed.samples[case.row]["picture_row"]] for case in some])
        patches = to_patches(torch.from_numpy(shown).to(device).permute(0, 3, 1, 2).float() / 255)
        seen = vision_tokens(model.model.visual, patches)
        embedded = with_picture(model.model.language_model.embed_tokens(ids), start, seen)
        grid = int(seen.shape[1] ** 0.5)
        states, _ = text_states(model.model.language_model, embedded, rotary_positions(start, length, grid))
        last = torch.tensor([len(row) - 1 for row in rows])
        logits = model.lm_head(states[torch.arange(len(rows)), last])
        found += (logits[:, words[1]] - logits[:, words[0]]).tolist()
        print(f"{len(found)} of {len(cases)}", file=sys.stderr, flush=True)
    return found


def doubts_of(cases: list[Case], samples: list[Sample], folder: Path) -> list[float]:
    """Return what the wording of every case says against its target being on such an image, in nats."""
    wording = Wording.of(folder)
    kinds = [kind_of(samples[case.row]) for case in cases]
    sentences = [f"This is {article(kind)} {kind}." for kind in kinds]
    return [wording.doubts(c.question).get(s, 0.0) for c, s in zip(cases, sentences, strict=True)]


def choose_margin(present: list[float], absent: list[float], least_recall: float) -> tuple[float, float, float]:
    """Return the largest margin that still recognises that share of absent targets.

    Returns:
        the margin (0 or more), the share of present targets called absent with it, and the recall.

    Raises:
        MedReasonerError: there are no present or no absent questions to choose it by.
    """
    if not present or not absent:
        raise MedReasonerError("a margin needs present and absent questions", "choose another split, or add some")
    lowest, missed = sorted(absent), int(len(absent) * (1 - least_recall))
    margin = max(0.0, lowest[missed - 1] if missed else math.nextafter(lowest[0], -math.inf))
    return margin, float(np.mean([m > margin for m in present])), float(np.mean([m > margin for m in absent]))


@errors_for_people()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a checkpoint folder with its card")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--packed", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--least-recall", type=float, default=0.88, help="share of absent targets to recognise")
    parser.add_argument("--draws", type=int, default=1, help="how often to draw questions for every picture")
    parser.add_argument("--every", type=int, default=1, help="take every n-th case only")
    parser.add_argument("--write", action="store_true", help="write the margin into the card")
    args = parser.parse_args()
    card = ReasonerCard.of(args.folder)  # before the long work: a card that cannot be read stops it here
    samples = read_samples(args.data)
    pictures = open_pictures(args.packed, samples)
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    feed = Feed(samples, training_entries(args.data), [], tokenizer, SftConfig())
    drawn = [case for seed in range(args.draws) for case in cases_of(samples, args.data, args.split, seed)]
    cases = list(dict.fromkeys(drawn))[:: args.every]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    own = margins(load_model(args.folder, device).eval(), tokenizer, feed, cases, pictures)
    doubts = doubts_of(cases, samples, args.folder) if card.wording_weight else [0.0] * len(cases)
    found = [limited(o, card.verdict_limit) + card.wording_weight * d for o, d in zip(own, doubts, strict=True)]
    present = [m for m, c in zip(found, cases, strict=True) if not c.absent]
    absent = [m for m, c in zip(found, cases, strict=True) if c.absent]
    margin, false, recall = choose_margin(present, absent, args.least_recall)
    at_card = [float(np.mean([m > card.absent_margin for m in group])) for group in (present, absent)]
    print(json.dumps({"present": sorted(present), "absent": sorted(absent)}), file=sys.stderr)
    row = {"split": args.split, "margin": round(margin, 3), "false_absent": false, "recall": recall}
    print(json.dumps({**row, "card_margin": card.absent_margin, "false_and_recall_at_card": at_card}))
    if args.write:
        dataclasses.replace(card, absent_margin=round(margin, 3)).save(args.folder)


if __name__ == "__main__":
    main()
