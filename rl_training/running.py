"""Run a stage from the command line: plan, train or go on, write down what was done."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from medreasoner import __version__
from medreasoner.console import errors_for_people
from medreasoner.contract.errors import CheckpointError
from rl_training.checkpoints import last_whole
from rl_training.config import Stage
from rl_training.config.reading import read_yaml
from rl_training.plan import print_plan
from rl_training.stage import Start, attention_of, devices, open_start
from rl_training.stopping import STOPPED, asked_to_stop, heed_sigterm
from rl_training.summary import summarise

S = TypeVar("S", bound=Stage)
RUN_FILE = "run.json"
DATA_CARDS = ("data_card.json", "DATA_CARD.md")  # of rl_training.prepare


def command(
    name: str,
    kind: type[S],
    make_arguments: Callable[[S, Path], Any],
    make_trainer: Callable[[S, Start, Any], Any],
    description: str | None,
    argv: list[str] | None,
) -> None:
    """Read the command line, print the plan, train, summarise; errors end as one sentence and a hint."""
    given = _parser(description).parse_args(argv)
    with errors_for_people():
        config = read_yaml(given.config, kind)
        changes = {key: getattr(given, key) for key in ("reasoner", "minutes") if getattr(given, key) is not None}
        config = replace(config, **changes)
        if devices() == 1 or os.environ.get("RANK") == "0":
            print_plan(config, given.data)
        if given.dry_run:
            return
        arguments = make_arguments(config, given.output)  # before the model: under ZeRO-3 it is loaded in parts
        start = open_start(config, given.data, given.output, arguments)
        trainer = make_trainer(config, start, arguments)
        trainer.keep = config.keep
        heed_sigterm()
        if trainer.accelerator.is_main_process:
            write_run(name, config, start, given.data, given.output)
        train(trainer, given.output)
        first = trainer.accelerator.is_main_process
        trainer.accelerator.end_training()  # a process that ends beside open connections may abort (gloo's threads)
        if asked_to_stop() and trainer.state.global_step < trainer.state.max_steps:
            sys.exit(STOPPED)
        if first:
            summarise(trainer.state.log_history, given.output)


def _parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("config", type=Path, help="a YAML file; rl_training/configs has examples")
    made.add_argument("--data", type=Path, required=True, help="a folder that rl_training.prepare wrote")
    made.add_argument("--output", type=Path, required=True, help="the run's folder; a run in it is continued")
    made.add_argument("--reasoner", help="start from this folder instead of the configuration's")
    made.add_argument("--minutes", type=float, help="time limit of this run instead of the configuration's")
    made.add_argument("--dry-run", action="store_true", help="print configuration and plan, and stop")
    return made


def write_run(stage: str, config: Stage, start: Start, data: Path, run: Path) -> None:
    """Write down what a run is made of, for `rl_training.merge` and for people.

    Raises:
        CheckpointError: the run's folder was started from another checkpoint.
    """
    path = run / RUN_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if before.get("start", str(start.folder.resolve())) != str(start.folder.resolve()):
        raise CheckpointError(f"{run} was started from {before['start']}", "go on with that one, or give a new folder")
    about = {
        "stage": stage,
        "start": str(start.folder.resolve()),
        "data": data_facts(data, start),
        "config": asdict(config),
        "attention": attention_of(config),
        "devices": devices(),
        "version": __version__,
    }
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    start.card.save(run)
    for name in DATA_CARDS:
        if (data / name).is_file():
            shutil.copy(data / name, run / name)


def data_facts(data: Path, start: Start) -> dict[str, Any]:
    """Say which data was used: its samples' hash, and how many rows."""
    return {
        "folder": data.resolve().name,
        "samples_sha256": hashlib.sha256((data / "samples.jsonl").read_bytes()).hexdigest(),
        "train_rows": len(start.train),
        "validation_rows": 0 if start.validation is None else len(start.validation),
    }


def train(trainer: Any, run: Path) -> None:
    """Go on from the newest whole checkpoint, or begin; always ends with one."""
    newest = last_whole(run)
    if newest is not None:
        print(f"goes on from {newest.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if not (run / f"checkpoint-{trainer.state.global_step}").is_dir():
        trainer._save_checkpoint(trainer.model, None)
