"""The folder of a challenger: the reasoner's card and ONE adapter on the weights that the first of them started from.

A later run goes on training the champion's own adapter, so nothing has to be added up or cut down (decision 0018).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.adapter import CONFIG, WEIGHTS, has_adapter
from medreasoner.reasoner.card import EMBEDDED, ReasonerCard, base_folder
from medreasoner.reasoner.quantised import folder_hash
from rl_training.checkpoints import last_whole
from rl_training.starting import find_folder


def base_of(reasoner: str) -> Path:
    """Return the folder whose weights the adapters of a registry change.

    Raises:
        CheckpointError: there is no such folder, or it is itself an adapter on another.
    """
    folder = find_folder(reasoner)
    if base_folder(folder, ReasonerCard.of(folder)) != folder:
        raise CheckpointError(f"{reasoner} is an adapter on another reasoner", "name the reasoner that it changes")
    return folder


def adapter_of(champion: Path | None, base: Path) -> str:
    """Return the folder of the adapter to go on with; empty where the reasoner as shipped is the champion.

    Raises:
        CheckpointError: the champion changes other weights, or is no adapter.
    """
    if champion is None:
        return ""
    card = ReasonerCard.of(champion)
    if not has_adapter(champion) or base_folder(champion, card).resolve() != base.resolve():
        raise CheckpointError(
            f"the champion {champion.name} is no adapter on {base.name}",
            "train the reasoner that it was made from, or use another registry",
        )
    if card.base_sha256 not in ("", folder_hash(base)):
        raise CheckpointError(
            f"the champion {champion.name} was trained on weights of {base.name} that an update has replaced",
            "publish 0, the reasoner as shipped, and train again: medreasoner models --publish 0",
        )
    return str(champion)


def make_challenger(stage: Path, reasoner: str, base: Path, folder: Path) -> Path:
    """Put the newest adapter of a stage and its card into a folder, replacing it; returns the folder.

    Raises:
        CheckpointError: the stage has no whole checkpoint.
    """
    chosen = last_whole(stage)
    if chosen is None:
        raise CheckpointError(f"{stage.name} left no whole checkpoint", "start the run again")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    card = ReasonerCard.of(stage)
    named = EMBEDDED if reasoner == EMBEDDED else str(base.resolve())
    replace(card, base=named, base_sha256=folder_hash(base)).save(folder)
    config = json.loads((chosen / CONFIG).read_text(encoding="utf-8"))
    (folder / CONFIG).write_text(
        json.dumps({**config, "base_model_name_or_path": reasoner}, indent=2), encoding="utf-8"
    )
    shutil.copyfile(chosen / WEIGHTS, folder / WEIGHTS)
    return folder
