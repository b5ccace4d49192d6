"""What several commands take, and the models that they open for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medreasoner.pipeline import GroundingPipeline

ReasonerOption = Annotated[str, typer.Option("--reasoner", help="embedded, server, a folder, or a folder's path")]
ExpertOption = Annotated[str, typer.Option("--expert", help="see: medreasoner models")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: a GPU where there is one")]
OutOption = Annotated[Path, typer.Option("--out", help="folder for the files")]


def open_pipeline(reasoner: str, expert: str, device: str | None) -> GroundingPipeline:
    """Load both models; errors as `open_reasoner` and `load_expert`."""
    from medreasoner.expert import load_expert
    from medreasoner.pipeline import GroundingPipeline
    from medreasoner.reasoner.catalogue import open_reasoner

    return GroundingPipeline(open_reasoner(reasoner, device), load_expert(expert))
