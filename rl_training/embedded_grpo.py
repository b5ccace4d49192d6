"""GRPO of the embedded reasoner by low-rank adapters, inside a time limit; saves, resumes, evaluates, draws its curves.

python -m rl_training.pack DATA PACKED
python -m rl_training.embedded_grpo rl_training/configs/embedded_grpo.yaml --data DATA --packed PACKED --out RUN

A run starts from a folder's rows alone, the supervised stage, and not from the adapter that may lie beside them;
`--adapter medreasoner/weights/embedded` goes on from what ships.

`rl_training.grpo` does the same for any checkpoint on TRL; this one moves pictures and masks together on the GPU, as
the supervised stage does, and samples with `rl_training.rollout` (docs/decisions/0015-grpo-of-the-embedded-reasoner.md
says why there are two).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from medreasoner.console import errors_for_people
from medreasoner.contract.errors import MedReasonerError
from medreasoner.evaluation.cases import read_samples
from medreasoner.folders import embedded_folder
from rl_training.config import EmbeddedGrpoConfig
from rl_training.evaluate import evaluate_split, print_table
from rl_training.feed import Feed
from rl_training.pack import load_masks, open_pictures
from rl_training.questions import training_absent, training_entries
from rl_training.reinforcement import Run
from rl_training.sft import load_model
from rl_training.summary import LOG, summarise

STATE = "state.pt"


def evaluate(run: Run, data: Path, pictures: torch.Tensor, masks: torch.Tensor, split: str, most: int | None) -> Any:
    """Answer a split's cases with the actor, guided and greedy."""
    run.policy.refresh_actor()
    side = pictures.shape[1]
    return evaluate_split(
        run.policy.actor, run.tokenizer, run.feed.samples, pictures, masks, data, split, side, most=most
    )


def figures(cases: list[dict[str, Any]]) -> dict[str, float]:
    """Return mean IoU, share named right and share falsely called absent of the present targets."""
    there = [case for case in cases if not case["absent"]]
    count = max(1, len(there))
    return {
        "eval_rewards/iou/mean": sum(case["iou"] for case in there) / count,
        "eval_named": sum(case["named"] == case["name"] for case in there) / count,
        "eval_false_absent": sum(case["said_absent"] for case in there) / count,
    }


def train(run: Run, data: Path, pictures: torch.Tensor, masks: torch.Tensor, limit: float, out: Path) -> None:
    """Train until the schedule or this run's time (seconds) ends; log every step, save and validate now and then."""
    end, longest = time.monotonic() + limit, 0.0
    config = run.config
    while run.step < config.steps and time.monotonic() + longest < end:
        begun = time.monotonic()
        line: dict[str, float] = {"step": run.step + 1, **run.train_step(pictures, masks)}
        if config.validate_every and run.step % config.validate_every == 0:
            line |= figures(evaluate(run, data, pictures, masks, "val", config.validation_questions))
        line["seconds"] = time.monotonic() - begun
        longest = max(longest, line["seconds"]) if run.step > 1 else 0.0  # the first step compiles
        if run.step % config.save_every == 0:
            run.save(out / STATE)
        with (out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if run.step % 10 == 0 or run.step < 4:
            print(json.dumps({name: round(value, 4) for name, value in line.items()}), flush=True)


def forget(log: Path, after: int) -> None:
    """Drop the lines of steps that were taken after the last saved one, by a run that was killed."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(line for line in lines if json.loads(line)["step"] <= after), encoding="utf-8")


def parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="umrg-mini's samples and questions")
    parser.add_argument("--packed", type=Path, required=True, help="what rl_training.pack wrote")
    parser.add_argument("--base", type=Path, default=embedded_folder(), help="a folder of int8 rows to start from")
    parser.add_argument("--adapter", type=Path, help="start from what another run wrote into its folder adapter")
    parser.add_argument("--out", type=Path, required=True, help="goes on where its last run stopped")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds of training in this run")
    parser.add_argument("--evaluate", nargs="*", default=[], choices=["val", "test"], help="splits, at the end")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return parser.parse_args(argv)


@errors_for_people()
def main(argv: list[str] | None = None) -> None:
    args = parsed(argv)
    config = EmbeddedGrpoConfig.from_yaml(args.config)
    print(config, flush=True)
    if learnt := set(args.evaluate) & set(config.splits):
        raise MedReasonerError(f"{', '.join(learnt)} is learnt from and measures nothing", "evaluate another split")
    if args.dry_run:
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    samples = read_samples(args.data)
    pictures = open_pictures(args.packed, samples)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    entries, absent = training_entries(args.data), training_absent(args.data)
    model = load_model(args.base, device, adapter=False)
    run = Run(model, Feed(samples, entries, absent, tokenizer, config.supervised()), config)
    args.out.mkdir(parents=True, exist_ok=True)
    state = args.out / STATE
    if state.exists():
        run.resume(state)
        forget(args.out / LOG, run.step)
    elif args.adapter:
        run.policy.load(args.adapter)
    shown, truth = torch.from_numpy(pictures).to(device), torch.from_numpy(load_masks(args.packed)).to(device)
    train(run, args.data, shown, truth, args.limit, args.out)
    run.save(state)
    run.policy.save(args.out / "adapter")
    for split in args.evaluate:
        cases = evaluate(run, args.data, shown, truth, split, None)
        (args.out / f"{split}.json").write_text(json.dumps(cases))
        print(split, json.dumps(figures(cases)))
        print_table(cases)
    if (args.out / LOG).exists():
        summarise([json.loads(line) for line in (args.out / LOG).read_text().splitlines()], args.out)


if __name__ == "__main__":
    main()
