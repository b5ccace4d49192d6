"""The folder that a stage starts from: found by name, unpacked where its weights are int8 rows, and its card."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from medreasoner.contract.errors import CheckpointError
from medreasoner.folders import embedded_folder, models_folder
from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.adapter import CONFIG as ADAPTER
from medreasoner.reasoner.adapter import has_adapter, merge_adapter
from medreasoner.reasoner.card import FILE as CARD
from medreasoner.reasoner.card import ReasonerCard, base_folder
from medreasoner.reasoner.catalogue import DEFAULT_REASONER
from medreasoner.reasoner.wording import FILE as WORDING
from rl_training.config import Stage


def find_folder(reasoner: str) -> Path:
    """Return the checkpoint folder that `medreasoner ask --reasoner` would open; raises `CheckpointError`."""
    if reasoner == DEFAULT_REASONER:
        return embedded_folder()
    for folder in (Path(reasoner).expanduser(), models_folder() / reasoner):
        if (folder / "config.json").is_file() or (folder / CARD).is_file():
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
        base="",
        base_sha256="",
        quantised="",
        trained_with=instruction_hash(name),
    )


def plain_folder(folder: Path, run: Path) -> Path:
    """Return a folder that transformers loads as it is: the same one, or ``run/start`` with its weights made plain.

    That is what int8 rows and adapters need. The embedded reasoner's weights become float32 (0.6 GB); the folder of an
    earlier run is used again.

    Raises:
        CheckpointError: the weights do not fit.
    """
    card, start = ReasonerCard.of(folder), run / "start"
    base = base_folder(folder, card)
    quantised = ReasonerCard.of(base).quantised
    if base == folder and not quantised:
        if has_adapter(folder):
            raise CheckpointError(
                f"{folder} holds an adapter beside plain weights",
                "put the adapter into a folder of its own, with a card",
            )
        return folder
    if (start / CARD).is_file():
        return start
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    from rl_training.sft import load_model

    if quantised:
        model = load_model(base, torch.device("cpu"))
    else:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype="auto", local_files_only=True)
    if base != folder:
        merge_adapter(model.state_dict(), folder)
    part = run / "start.part"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    copy_processor(base, part)
    replace(card, base="", quantised="").save(part)
    part.rename(start)
    return start


def copy_processor(folder: Path, out: Path) -> None:
    """Copy tokenizer, processor, chat template and reader of wordings; not weights, their descriptions or the card."""
    for file in folder.iterdir():
        ours = file.name in (CARD, ADAPTER, "config.json") or file.name.endswith(".index.json")
        if (file.suffix in (".json", ".jinja", ".txt", ".model") and not ours) or file.name == WORDING:
            shutil.copy(file, out / file.name)
