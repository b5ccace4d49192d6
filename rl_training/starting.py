"""The folder that a stage starts from: found by name, unpacked where its weights are int8 rows, and its card."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from medreasoner.contract.errors import CheckpointError
from medreasoner.folders import models_folder
from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.card import FILE as CARD
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.catalogue import DEFAULT_REASONER, embedded_folder
from medreasoner.reasoner.wording import FILE as WORDING
from rl_training.config import Stage


def find_folder(reasoner: str) -> Path:
    """Return the checkpoint folder that `medreasoner ask --reasoner` would open; raises `CheckpointError`."""
    if reasoner == DEFAULT_REASONER:
        return embedded_folder()
    for folder in (Path(reasoner).expanduser(), models_folder() / reasoner):
        if (folder / "config.json").is_file():
            return folder
    raise CheckpointError(
        f"no checkpoint called {reasoner!r} to start from",
        f"name a folder with config.json, or put it into {models_folder()}; --reasoner overrides the configuration",
    )


def stage_card(config: Stage, folder: Path) -> ReasonerCard:
    """Return the card of what a stage trains: the starting folder's, with what the configuration says otherwise.

    Training teaches strict JSON, whatever dialect the starting folder writes.
    """
    card = ReasonerCard.of(folder)
    name = config.instruction or card.instruction
    return replace(
        card,
        name=config.name,
        canvas=config.canvas or card.canvas,
        instruction=name,
        may_abstain=card.may_abstain if config.may_abstain is None else config.may_abstain,
        dialect="strict",
        quantised="",
        trained_with=instruction_hash(name),
    )


def plain_folder(folder: Path, run: Path) -> Path:
    """Return a folder that transformers loads as it is: the same one, or its int8 rows unpacked into ``run/start``.

    The embedded reasoner's weights become float32 (0.6 GB); an unpacked folder from an earlier run is used again.

    Raises:
        CheckpointError: the weights do not fit.
    """
    card = ReasonerCard.of(folder)
    start = run / "start"
    if not card.quantised or (start / CARD).is_file():
        return start if card.quantised else folder
    import torch

    from rl_training.sft import load_model

    model = load_model(folder, torch.device("cpu"))
    part = run / "start.part"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    copy_processor(folder, part)
    replace(card, quantised="").save(part)
    part.rename(start)
    return start


def copy_processor(folder: Path, out: Path) -> None:
    """Copy tokenizer, processor, chat template and reader of wordings; not weights, their configuration or the card."""
    for file in folder.iterdir():
        ours = file.name in (CARD, "config.json") or file.name.endswith(".index.json")
        if (file.suffix in (".json", ".jinja", ".txt", ".model") and not ours) or file.name == WORDING:
            shutil.copy(file, out / file.name)
