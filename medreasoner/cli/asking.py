"""medreasoner ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from medreasoner.cli.options import DeviceOption, ExpertOption, OutOption, ReasonerOption, open_pipeline
from medreasoner.console import exit_code, out, tell
from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.wire import AXES, checked_question
from medreasoner.expert import DEFAULT_EXPERT


def ask(
    image: Annotated[Path, typer.Argument(help="DICOM file or series folder, NIfTI, NRRD, PNG, JPEG")],
    question: Annotated[str | None, typer.Argument(help="left out: ask many, one a line")] = None,
    slice_index: Annotated[int | None, typer.Option("--slice", help="from 0; default: the middle one")] = None,
    axis: Annotated[str | None, typer.Option("--axis", help=", ".join(AXES))] = None,
    window: Annotated[tuple[float, float] | None, typer.Option("--window", help="centre and width")] = None,
    reasoner: ReasonerOption = "embedded",
    expert: ExpertOption = DEFAULT_EXPERT,
    device: DeviceOption = None,
    folder: OutOption = Path("medreasoner-answers"),
) -> None:
    """Answer a question about one image: reasoning, box, points, mask and a picture to look at."""
    from medreasoner import asking
    from medreasoner.imaging import open_image

    if question is not None:
        checked_question(question)  # before anything slow
    if axis is not None and axis not in AXES:
        raise MedReasonerError(f"unknown axis {axis!r}", f"use one of {', '.join(AXES)}")
    stored = open_image(image)
    picture = stored.picture(axis, slice_index, window)
    out.print(
        f"[dim]{escape(image.name)}: {picture.axis} slice {picture.slice_index}, {picture.width} x {picture.height}[/]"
    )
    with out.status("loading models ..."):
        pipeline = open_pipeline(reasoner, expert, device)
    failed: MedReasonerError | None = None
    for asked in [question] if question is not None else _typed_questions():
        with out.status("thinking ..."):
            try:
                grounding, written = asking.ask(pipeline, stored, picture, asked, folder)
            except MedReasonerError as error:
                if question is not None:
                    raise
                tell(error)
                failed = error
                continue
        out.print(f"\n[bold]{escape(grounding.question)}[/]")
        out.print(escape(grounding.answer.reasoning))
        if grounding.absent:
            out.print("[yellow]not present in this image[/]", end=" ")
        out.print(f"confidence {grounding.confidence:.2f}, {grounding.timings['total']:.1f} s")
        failed = None
        for label, path in (("overlay", written.overlay), ("mask", written.mask), ("result", written.result)):
            out.print(f"[dim]{label:8}{escape(str(path))}[/]")

    if failed is not None:  # the last typed question got no answer
        raise typer.Exit(exit_code(failed))


def _typed_questions() -> Iterator[str]:
    out.print("[dim]one question a line; an empty line ends[/]")
    while True:
        try:
            line = input("question> ")
        except EOFError:
            return
        if not line.strip():
            return
        yield line
