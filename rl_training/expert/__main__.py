"""Tune LiteMedSAM to boxes with points: look at pictures, train, validate, write the weights.

python -m rl_training.expert rl_training/configs/expert.yaml --data DATA --work WORK --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from medreasoner.console import errors_for_people
from medreasoner.evaluation.cases import Sample, read_samples
from medreasoner.expert import EXPERTS
from medreasoner.expert.litemedsam import LiteMedSam
from rl_training.expert.config import ExpertConfig
from rl_training.expert.embeddings import Embeddings, balanced_order, embed
from rl_training.expert.evaluate import evaluate, means
from rl_training.expert.export import export
from rl_training.expert.targets import read_targets
from rl_training.expert.train import PARTS, Tuning, train

EVERY = 20  # steps between lines of the log
SAVE_EVERY = 20
KINDS = ("box", "both", "near", "loose", "loose_box")


def look(config: ExpertConfig, samples: list[Sample], args: argparse.Namespace, encoder: LiteMedSam) -> Embeddings:
    """Look at the validation pictures and as many training pictures as are wanted, within the time."""
    embeddings = Embeddings(args.work / "features", encoder.sha256)

    def tell(there: int, wanted: int) -> None:
        print(f"\r{there} of {wanted} pictures", end="", flush=True)

    held_out = balanced_order(samples, "val", config.seed)[: config.validation_pictures]
    embed(encoder, held_out, args.data, embeddings, args.look, tell)
    wanted = balanced_order(samples, "train", config.seed)[: config.pictures]
    embed(encoder, wanted, args.data, embeddings, args.look, tell, config.brain_floats)
    print()
    return embeddings


def learn(tuning: Tuning, samples: list[Sample], args: argparse.Namespace, embeddings: Embeddings) -> None:
    """Train from the last saved state on, and save again and again."""
    checkpoint, log = args.work / "state.pt", args.work / "log.jsonl"
    if checkpoint.exists():
        tuning.resume(checkpoint)
    targets = read_targets(samples, args.data, "train", embeddings)
    print(f"{len(targets)} targets on {len(embeddings)} pictures, from step {tuning.step}", flush=True)
    recent: list[Tensor] = []

    def done(step: int, parts: Tensor) -> None:
        recent.append(parts)
        if step % EVERY == 0:
            average = torch.stack(recent).mean(0).tolist()
            line = {"step": step, "elapsed_s": round(tuning.elapsed), **dict(zip(PARTS, average, strict=True))}
            print(json.dumps(line), flush=True)
            with log.open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
            recent.clear()
        if step % SAVE_EVERY == 0:
            tuning.save(checkpoint)

    train(tuning, targets, embeddings, args.limit, args.schedule, done)
    tuning.save(checkpoint)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a collection in umrg-mini's layout")
    parser.add_argument("--work", type=Path, required=True, help="features (2 MB a picture), state and log")
    parser.add_argument("--out", type=Path, help="write the averaged weights and their card here")
    parser.add_argument("--look", type=float, default=1e9, help="seconds to look at pictures of each split")
    parser.add_argument(
        "--limit", type=float, default=1e9, help="seconds of training in this run; the next one goes on"
    )
    parser.add_argument(
        "--schedule", type=float, default=1e9, help="seconds of training in all, if the steps last longer"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the configuration and what there is to train on")
    return parser.parse_args()


@errors_for_people()
def main() -> None:
    args = arguments()
    config = ExpertConfig.from_yaml(args.config)
    print(config, flush=True)
    samples = read_samples(args.data)
    if args.dry_run:
        order = balanced_order(samples, "train", config.seed)[: config.pictures]
        print(f"{len(order)} pictures, {len(read_targets(samples, args.data, 'train', order))} targets")
        return
    args.work.mkdir(parents=True, exist_ok=True)
    expert = LiteMedSam(EXPERTS["litemedsam"].path())
    embeddings = look(config, samples, args, expert)
    tuning = Tuning(expert.network, config)
    learn(tuning, samples, args, embeddings)
    if args.out:
        rows = [i for i, s in enumerate(samples) if s["split"] == "val" and s["image"] in embeddings]
        expert.network.load_state_dict(tuning.tuned(), strict=False)
        compact = [i for i in rows if not samples[i]["dispersed"]]
        found = means(evaluate(expert, samples, compact, args.data, embeddings, KINDS))
        print(f"Dice on {len(compact)} compact targets of the validation split: {json.dumps(found)}")
        export(tuning, found, args.out)


if __name__ == "__main__":
    main()
