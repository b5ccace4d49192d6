"""medreasoner serve and medreasoner viewer: this process becomes the other one, so that signals reach it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from medreasoner.cli.options import DeviceOption, ExpertOption, OutOption, ReasonerOption
from medreasoner.console import out
from medreasoner.contract.errors import MedReasonerError
from medreasoner.expert import DEFAULT_EXPERT


def serve(
    studies: Annotated[str, typer.Argument(help="folder of images, or the URL of a DICOMweb server")],
    host: Annotated[str, typer.Option(help="address to listen on; other machines need tokens")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    conf: Annotated[list[str] | None, typer.Option(help="a setting, KEY=VALUE (README lists them)")] = None,
) -> None:
    """Serve questions to 3D Slicer and any MONAI Label client, until interrupted."""
    if not all(find_spec(package) for package in ("monailabel", "monailabel_app")):
        raise MedReasonerError("the server's packages are not installed", "install requirements.lock as make demo does")
    command = [sys.executable, "-m", "monailabel_app.serve", studies, "--host", host, "--port", str(port)]
    for pair in conf or []:
        command += ["--conf", pair]
    out.file.flush()
    os.execv(sys.executable, command)  # signals then reach the server itself


def viewer(
    image: Annotated[Path | None, typer.Argument(help="file or series folder to open at once")] = None,
    port: Annotated[int, typer.Option(help="on this machine only; 0 takes a free one")] = 8080,
    browser: Annotated[bool, typer.Option(help="open the page at once")] = True,
    reasoner: ReasonerOption = "embedded",
    expert: ExpertOption = DEFAULT_EXPERT,
    device: DeviceOption = None,
    folder: OutOption = Path("medreasoner-answers"),
) -> None:
    """Ask in a browser: scroll, ask, correct the box, save; for those without 3D Slicer."""
    if find_spec("viewer_app") is None or find_spec("trame") is None:
        raise MedReasonerError("the viewer's packages are not installed", "install requirements.lock as make demo does")
    command = [sys.executable, "-m", "viewer_app", "--port", str(port), "--reasoner", reasoner, "--expert", expert]
    command += ["--out", str(folder), *(["--device", device] if device else []), *([] if browser else ["--no-browser"])]
    os.execv(sys.executable, [*command, *([str(image)] if image else [])])
