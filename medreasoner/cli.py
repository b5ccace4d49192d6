"""medreasoner ask | serve | viewer | evaluate | models."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from medreasoner import __version__
from medreasoner.console import errors_for_people, exit_code, out, tell
from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.wire import AXES, checked_question
from medreasoner.expert import DEFAULT_EXPERT

if TYPE_CHECKING:
    from medreasoner.evaluation.run import Examiner, Outcome
    from medreasoner.pipeline import GroundingPipeline

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ReasonerOption = Annotated[str, typer.Option("--reasoner", help="embedded, server, a folder, or a folder's path")]
ExpertOption = Annotated[str, typer.Option("--expert", help="see: medreasoner models")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: a GPU where there is one")]
OutOption = Annotated[Path, typer.Option("--out", help="folder for the files")]


@app.callback()
def about() -> None:
    """Ask a clinical question about a medical image. Research use only, not a medical device."""


@app.command("ask")
def ask_command(
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
    from medreasoner.asking import ask
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
        pipeline = _pipeline(reasoner, expert, device)
    failed: MedReasonerError | None = None
    for asked in [question] if question is not None else _typed_questions():
        with out.status("thinking ..."):
            try:
                grounding, written = ask(pipeline, stored, picture, asked, folder)
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


@app.command("evaluate")
def evaluate_command(
    data: Annotated[Path, typer.Argument(help="a collection in umrg-mini's layout (docs/evaluation.md)")],
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    reasoner: ReasonerOption = "embedded",
    expert: ExpertOption = DEFAULT_EXPERT,
    device: DeviceOption = None,
    folder: OutOption = Path("medreasoner-evaluation"),
    limit: Annotated[int | None, typer.Option(min=1, help="only this many cases, evenly spread")] = None,
    overlays: Annotated[int, typer.Option(min=0, help="how many overlays the page shows, worst first")] = 120,
    oracle: Annotated[bool, typer.Option(help="also the expert's mask for the true box")] = True,
    modality: Annotated[bool, typer.Option(help="pictures carry their modality, as DICOM files do")] = True,
    jobs: Annotated[int, typer.Option(min=1, help="processes; each loads the models, about 2 GB")] = 1,
) -> None:
    """Measure a reasoner and an expert; writes evaluation.json, cases.csv and index.html."""
    from medreasoner.asking import make_folder
    from medreasoner.evaluation.cases import cases_of, read_samples
    from medreasoner.evaluation.processes import ask_here, ask_in_processes
    from medreasoner.evaluation.report import write_files
    from medreasoner.evaluation.run import by_picture
    from medreasoner.evaluation.worst import WorstOverlays

    samples = read_samples(data)
    cases = cases_of(samples, data, split)
    if limit is not None and limit < len(cases):
        cases = [cases[i * len(cases) // limit] for i in range(limit)]
    make_folder(folder)
    make = partial(_examiner, reasoner, expert, device, data, samples, oracle, modality)
    with out.status("loading models ..."):
        examiner = make()
    pipeline = examiner.pipeline
    keep = WorstOverlays(folder / "overlays", overlays, {c.row: samples[c.row]["bbox"] for c in cases if not c.absent})
    about = {
        "reasoner": pipeline.reasoner.name,
        "reasoner_sha256": pipeline.reasoner.sha256,
        "instruction_sha256": pipeline.reasoner.instruction_sha256,
        "expert": pipeline.expert.name,
        "expert_sha256": pipeline.expert.sha256,
        "data": data.resolve().name,
        "split": split,
        "version": __version__,
        "command": "medreasoner " + " ".join(Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    groups = by_picture(samples, cases)
    answers = ask_here(examiner, groups) if jobs == 1 else ask_in_processes(make, groups, jobs)
    del examiner, pipeline  # where other processes do the work, this one needs no models
    outcomes: list[Outcome] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=out) as bar, closing(answers):
            task = bar.add_task("asking", total=len(cases))
            for answered in answers:
                outcomes.append(answered.outcome)
                keep.add(answered.outcome, answered.picture, answered.mask)
                bar.advance(task)
    finally:  # what was measured before an error or Ctrl-C is not lost
        if outcomes:
            about["cases"] = f"{len(outcomes)} of {len(cases)}"
            _print_report(write_files(outcomes, about, folder, keep.finish()))
            out.print(f"[dim]{escape(str(folder / 'index.html'))}[/]")


@app.command("models")
def models_command() -> None:
    """List reasoners and experts: what is installed, and where weights go."""
    from medreasoner.expert import EXPERTS, describe_experts
    from medreasoner.folders import models_folder
    from medreasoner.reasoner.catalogue import installed_reasoners

    table = Table("option", Column("where", overflow="fold"), "notes", title="models")
    for name, folder, card in installed_reasoners():
        if isinstance(card, MedReasonerError):
            table.add_row(f"--reasoner {escape(name)}", escape(str(folder)), f"[yellow]{escape(card.what)}[/]")
        else:
            notes = f"canvas {card.canvas}, {'may' if card.may_abstain else 'does not'} answer 'absent'"
            table.add_row(f"--reasoner {escape(name)}", escape(str(folder)), notes)
    table.add_row("--reasoner server", "an OpenAI-compatible server", "MEDREASONER_SERVER_URL, _MODEL, _KEY, _CARD")
    for name, path, takes in describe_experts():
        entry = EXPERTS[name]
        where = str(path) if path else str(models_folder() / entry.file)
        missing = "" if path else f"; [yellow]not installed[/], from {escape(entry.source)}"
        table.add_row(f"--expert {name}", escape(where), f"takes {' and '.join(sorted(takes))}{missing}")
    out.print(table)
    out.print(f"weights that do not ship go into {escape(str(models_folder()))} (set MEDREASONER_MODELS to change it)")


@app.command("serve")
def serve_command(
    studies: Annotated[str, typer.Argument(help="folder of images, or the URL of a DICOMweb server")],
    host: Annotated[str, typer.Option(help="address to listen on; other machines need tokens")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    conf: Annotated[list[str] | None, typer.Option(help="a setting, KEY=VALUE (README lists them)")] = None,
) -> None:
    """Serve questions to 3D Slicer and any MONAI Label client, until interrupted."""
    if not all(find_spec(package) for package in ("monailabel", "monailabel_app")):
        raise MedReasonerError("the server's packages are not installed", "pip install 'medreasoner[server]'")
    command = [sys.executable, "-m", "monailabel_app.serve", studies, "--host", host, "--port", str(port)]
    for pair in conf or []:
        command += ["--conf", pair]
    out.file.flush()
    os.execv(sys.executable, command)  # signals then reach the server itself


@app.command("viewer")
def viewer_command(
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
        raise MedReasonerError("the viewer's packages are not installed", "pip install 'medreasoner[viewer]'")
    command = [sys.executable, "-m", "viewer_app", "--port", str(port), "--reasoner", reasoner, "--expert", expert]
    command += ["--out", str(folder), *(["--device", device] if device else []), *([] if browser else ["--no-browser"])]
    os.execv(sys.executable, [*command, *([str(image)] if image else [])])


def _pipeline(reasoner: str, expert: str, device: str | None) -> GroundingPipeline:
    from medreasoner.expert import load_expert
    from medreasoner.pipeline import GroundingPipeline
    from medreasoner.reasoner.catalogue import open_reasoner

    return GroundingPipeline(open_reasoner(reasoner, device), load_expert(expert))


def _examiner(
    reasoner: str,
    expert: str,
    device: str | None,
    data: Path,
    samples: list[dict[str, Any]],
    oracle: bool,
    modality: bool,
) -> Examiner:
    from medreasoner.evaluation.run import Examiner, prior_boxes

    pipeline = _pipeline(reasoner, expert, device)
    return Examiner(pipeline, samples, data, prior_boxes(samples), oracle, modality)


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


def _print_report(report: dict[str, Any]) -> None:
    total = Table("figure", "mean", "95 % interval", title=f"{report['summary']['present']} present targets")
    for name, value in report["summary"].items():
        if isinstance(value, dict):
            total.add_row(name, f"{value['mean']:.3f}", f"{value['low']:.3f} to {value['high']:.3f}")
    out.print(total)
    for key in ("modality", "style", "target"):
        table = Table(key, "n", "box IoU", "Dice", "pDice", "named", "prior IoU", "oracle Dice")
        for row in report[key]:
            figures = [f"{row[f]:.3f}" for f in ("box_iou", "dice", "point_dice", "named", "prior_iou", "oracle_dice")]
            table.add_row(row["group"], str(row["n"]), *figures)
        out.print(table)


def main() -> None:
    """Run the command line; every expected error is one sentence and a hint."""
    with errors_for_people():
        app()


if __name__ == "__main__":
    main()
