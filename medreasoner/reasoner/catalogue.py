"""Which reasoners there are, and how to open one by name."""

from __future__ import annotations

from pathlib import Path

from medreasoner.contract.errors import CheckpointError
from medreasoner.folders import embedded_folder, models_folder
from medreasoner.reasoner.card import EMBEDDED, FILE, ReasonerCard
from medreasoner.reasoner.protocol import Reasoner

DEFAULT_REASONER = EMBEDDED
SERVER = "server"


def open_reasoner(name: str = DEFAULT_REASONER, device: str | None = None) -> Reasoner:
    """Open a reasoner.

    Args:
        name: "embedded", "server" (an OpenAI-compatible server from the environment), the name of a folder in
            `models_folder`, or a path to a folder.
        device: for local ones; None takes a GPU where there is one.

    Raises:
        CheckpointError: no such folder.
        ReasonerError: the server's address or model is not set.
    """
    if name == SERVER:
        from medreasoner.reasoner.server import ServerReasoner

        return ServerReasoner.from_environment()
    from medreasoner.reasoner.local import LocalReasoner

    if name == DEFAULT_REASONER:
        return LocalReasoner(embedded_folder(), device)
    for folder in (Path(name).expanduser(), models_folder() / name):
        if folder.is_dir():
            return LocalReasoner(folder, device)
    raise CheckpointError(
        f"no reasoner called {name!r}",
        f"use 'embedded', 'server', a folder's path, or put the model's folder into {models_folder()}",
    )


def installed_reasoners() -> list[tuple[str, Path, ReasonerCard | CheckpointError]]:
    """List what `open_reasoner` takes: name, folder, and the card or what is wrong with it."""
    found: list[tuple[str, Path]] = [(DEFAULT_REASONER, embedded_folder())]
    if models_folder().is_dir():
        folders = sorted(p for p in models_folder().iterdir() if (p / FILE).exists() or _is_qwen(p / "config.json"))
        found += [(folder.name, folder) for folder in folders]
    return [(name, folder, _card_or_error(folder)) for name, folder in found]


def _card_or_error(folder: Path) -> ReasonerCard | CheckpointError:
    try:
        return ReasonerCard.of(folder)
    except CheckpointError as error:
        return error


def _is_qwen(config: Path) -> bool:
    return config.is_file() and '"qwen2_5_vl"' in config.read_text(encoding="utf-8", errors="replace")
