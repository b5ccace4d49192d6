"""medreasoner models: reasoners and experts, and the checkpoints that were trained here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from medreasoner.console import out
from medreasoner.contract.errors import MedReasonerError
from medreasoner.expert import EXPERTS, describe_experts
from medreasoner.folders import models_folder
from medreasoner.reasoner.catalogue import installed_reasoners
from medreasoner.reasoner.champions import Champions, Lineage, registry_folder

_MISSING = "-"


def models(
    compare: Annotated[tuple[int, int] | None, typer.Option(help="two checkpoints side by side")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="let the one before answer again")] = False,
    publish: Annotated[int | None, typer.Option(min=0, help="let this checkpoint answer; 0: as shipped")] = None,
    registry: Annotated[
        Path | None, typer.Option(help="checkpoints trained here; default: local, among models")
    ] = None,
) -> None:
    """List reasoners, experts and the checkpoints trained here; compare two, or change which one the server uses."""
    if (compare is not None) + rollback + (publish is not None) > 1:
        raise MedReasonerError("--compare, --rollback and --publish exclude each other", "give one of them")
    champions = Champions(registry_folder(str(registry or "")))
    if compare is not None:
        out.print(comparison_table(champions, compare))
    elif rollback or publish is not None:
        champions.rollback() if publish is None else champions.publish(publish)
        number = champions.number()
        out.print(f"checkpoint {number} is in service" if number else "the reasoner as shipped is in service")
    else:
        out.print(models_table())
        folder = escape(str(models_folder()))
        out.print(f"weights that do not ship go into {folder} (set MEDREASONER_MODELS to change it)")
        if champions.entries():
            out.print(checkpoints_table(champions))
            out.print(f"ask one of them with --reasoner {escape(str(champions.folder))}/NUMBER")


def models_table() -> Table:
    """What --reasoner and --expert take: where it lies, or where its weights belong."""
    table = Table("option", Column("where", overflow="fold"), "notes", title="models")
    for name, folder, card in installed_reasoners():
        if isinstance(card, MedReasonerError):
            notes = f"[yellow]{escape(card.what)}[/]"
        else:
            notes = f"canvas {card.canvas}, {'may' if card.may_abstain else 'does not'} answer 'absent'"
        table.add_row(f"--reasoner {escape(name)}", escape(str(folder)), notes)
    table.add_row("--reasoner server", "an OpenAI-compatible server", "MEDREASONER_SERVER_URL, _MODEL, _KEY, _CARD")
    for name, path, takes in describe_experts():
        entry = EXPERTS[name]
        where = str(path) if path else str(models_folder() / entry.file)
        missing = "" if path else f"; [yellow]not installed[/], from {escape(entry.source)}"
        table.add_row(f"--expert {name}", escape(where), f"takes {' and '.join(sorted(takes))}{missing}")
    return table


def checkpoints_table(champions: Champions) -> Table:
    """The checkpoints of a registry, with the box IoU of what each was compared with and its own.

    Raises:
        CheckpointError: the registry cannot be read.
    """
    table = Table("number", "", "made", "labels", "box IoU", Column("why", overflow="fold"), title="trained here")
    champion = champions.number()
    for lineage in champions.entries():
        mark = "[green]champion[/]" if lineage.number == champion else ""
        change = f"{lineage.champion['box_iou']:.3f} to {lineage.challenger['box_iou']:.3f}"
        why = f"{'took over' if lineage.published else 'did not take over'}: {lineage.reason}"
        made = lineage.made_at[:16].replace("T", " ")
        table.add_row(str(lineage.number), mark, made, str(lineage.labels), change, escape(why))
    return table


def comparison_table(champions: Champions, numbers: Sequence[int]) -> Table:
    """Some checkpoints side by side: figures, and the settings of their training in which they differ.

    Raises:
        MedReasonerError: there is no such checkpoint, or the registry cannot be read.
    """
    known = {lineage.number: lineage for lineage in champions.entries()}
    for number in numbers:
        if number not in known:
            raise MedReasonerError(f"there is no checkpoint {number}", f"there are {_listed(known)}")
    chosen = [known[number] for number in numbers]
    table = Table("", *(str(number) for number in numbers), title="checkpoints")
    for name, values in _figures(chosen).items():
        table.add_row(escape(name), *(escape(value) for value in values))
    return table


def _figures(chosen: list[Lineage]) -> dict[str, list[str]]:
    found = {
        "made": [lineage.made_at[:16].replace("T", " ") for lineage in chosen],
        "labels": [str(lineage.labels) for lineage in chosen],
        "data": [lineage.data_sha256[:12] for lineage in chosen],
        "trained from": [str(lineage.parent_number) for lineage in chosen],
        "hold-out cases": [str(lineage.challenger["n"]) for lineage in chosen],
    }
    for name in ("box_iou", "dice", "false_absent", "absent_recognised"):
        found[name.replace("_", " ")] = [_shown(lineage.challenger.get(name)) for lineage in chosen]
    modalities = [lineage.challenger.get("by_modality", {}) for lineage in chosen]
    for modality in sorted(set(chain(*modalities))):
        found[f"box IoU, {modality}"] = [_shown(by.get(modality, {}).get("box_iou")) for by in modalities]
    settings = [lineage.configuration for lineage in chosen]
    for name in sorted(set(chain(*settings))):
        values = [_MISSING if name not in one else str(one[name]) for one in settings]
        if len(set(values)) > 1:
            found[name] = values
    return found


def _shown(figure: float | None) -> str:
    return _MISSING if figure is None else f"{figure:.3f}"


def _listed(numbers: dict[int, Lineage]) -> str:
    return ", ".join(map(str, numbers)) or "none"
