"""medreasoner evaluate."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from medreasoner import __version__
from medreasoner.cli.options import DeviceOption, ExpertOption, OutOption, ReasonerOption, open_pipeline
from medreasoner.console import out
from medreasoner.expert import DEFAULT_EXPERT

if TYPE_CHECKING:
    from medreasoner.evaluation.run import Answered, Examiner, Outcome
    from medreasoner.pipeline import GroundingPipeline


def evaluate(
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
    about = _about(examiner.pipeline, data, split)
    groups = by_picture(samples, cases)
    answers = ask_here(examiner, groups) if jobs == 1 else ask_in_processes(make, groups, jobs)
    del examiner  # where other processes do the work, this one needs no models
    keep = WorstOverlays(folder / "overlays", overlays, {c.row: samples[c.row]["bbox"] for c in cases if not c.absent})
    outcomes: list[Outcome] = []
    try:
        with closing(_with_bar(answers, len(cases))) as shown:
            for answered in shown:
                outcomes.append(answered.outcome)
                keep.add(answered.outcome, answered.picture, answered.mask)
    finally:  # what was measured before an error or Ctrl-C is not lost
        if outcomes:
            about["cases"] = f"{len(outcomes)} of {len(cases)}"
            _print_report(write_files(outcomes, about, folder, keep.finish()))
            out.print(f"[dim]{escape(str(folder / 'index.html'))}[/]")


def _with_bar(answers: Generator[Answered, None, None], count: int) -> Generator[Answered, None, None]:
    """Pass on the answers and show how many there are; ends what makes them when it is closed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out) as bar, closing(answers):
        task = bar.add_task("asking", total=count)
        for answered in answers:
            yield answered
            bar.advance(task)


def _about(pipeline: GroundingPipeline, data: Path, split: str) -> dict[str, str]:
    """Say what is measured, by which command and on what machine, without paths of this machine."""
    return {
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

    pipeline = open_pipeline(reasoner, expert, device)
    return Examiner(pipeline, samples, data, prior_boxes(samples), oracle, modality)


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
