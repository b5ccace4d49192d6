"""medreasoner ask | serve | viewer | evaluate | models."""

from __future__ import annotations

import typer

from medreasoner.cli.asking import ask
from medreasoner.cli.evaluating import evaluate
from medreasoner.cli.models import models
from medreasoner.cli.starting import serve, viewer
from medreasoner.console import errors_for_people

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def about() -> None:
    """Ask a clinical question about a medical image. Research use only, not a medical device."""


for command in (ask, evaluate, models, serve, viewer):
    app.command(command.__name__)(command)


def main() -> None:
    """Run the command line; every expected error is one sentence and a hint."""
    with errors_for_people():
        app()
