"""Make one prepared collection of images, masks and questions: boxes, points, splits by patient, checks, a data card.

python -m rl_training.prepare DATA OUT            DATA: a question file or its folder, a server's folder of studies
                                                  with saved labels, a folder in umrg-mini's layout, or U-MRG-14K's
                                                  parquet files
python -m rl_training.prepare DATA --dry-run      every check and the data card; writes nothing

OUT is what the training stages and `medreasoner evaluate` read (docs/train_on_your_data.md).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medreasoner.console import errors_for_people, out, tell
from rl_training.dataset import Collection, DataError, QuestionFile, Reader, SavedLabels, UmrgParquet
from rl_training.dataset.data_card import as_markdown, data_card
from rl_training.dataset.gathering import Gathered, gather
from rl_training.dataset.leakage import Leaks, find_leaks
from rl_training.dataset.prepared import new_folder
from rl_training.dataset.saved_labels import SHELF
from rl_training.dataset.splitting import SHARES, cut

SHOWN = 20  # bad rows, leaks and pairs of look-alikes that are printed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def prepare_command(
    data: Annotated[Path, typer.Argument(help="question file or folder, studies, umrg-mini's layout, parquet")],
    folder: Annotated[Path | None, typer.Argument(metavar="OUT", help="new folder; not with --dry-run")] = None,
    dry_run: Annotated[bool, typer.Option(help="check everything, write nothing")] = False,
    shares: Annotated[tuple[float, float, float], typer.Option(help="of examples: train, val, test")] = (
        SHARES["train"],
        SHARES["val"],
        SHARES["test"],
    ),
    seed: Annotated[int, typer.Option(help="of the cut by patient")] = 0,
    by_rule: Annotated[bool, typer.Option(help="make boxes and points anew where they are given too")] = False,
    leave_out_bad: Annotated[bool, typer.Option(help="go on without the rows that cannot be used")] = False,
    image_is_patient: Annotated[bool, typer.Option(help="images without a patient are one patient each")] = False,
    patient_pattern: Annotated[str, typer.Option(help="parquet: regular expression, its group 1 is the patient")] = "",
) -> None:
    """Prepare a collection for training and evaluation."""
    if dry_run == (folder is not None):
        raise DataError("either OUT or --dry-run is needed, not both", "name a new folder, or only check")
    reader = open_reader(data, image_is_patient, patient_pattern)
    split_shares = dict(zip(SHARES, shares, strict=True))
    with nullcontext() if folder is None else new_folder(folder) as temporary:
        card = prepare(reader, data, temporary, split_shares, seed, by_rule, leave_out_bad)
    out.print(Markdown(as_markdown(card)))
    if folder is not None:
        out.print(f"[dim]{escape(str(folder))}[/]")


def open_reader(data: Path, image_is_patient: bool = False, patient_pattern: str = "") -> Reader:
    """Tell by its files what kind of collection a path holds, and open it; raises `DataError` where it is none."""
    if data.suffix == ".parquet" or (data.is_dir() and next(data.rglob("*.parquet"), None)):
        return UmrgParquet(data, patient_pattern)
    if (data / "samples.jsonl").is_file():
        return Collection(data, project_questions=False)
    if (data / SHELF).is_dir():
        return SavedLabels.of_studies(data)
    return QuestionFile(data, image_is_patient)


def prepare(
    reader: Reader,
    data: Path,
    folder: Path | None,
    shares: dict[str, float],
    seed: int = 0,
    by_rule: bool = False,
    leave_out_bad: bool = False,
) -> dict[str, Any]:
    """Fill a folder that holds images and masks, or nothing where it is None; returns the data card.

    Raises:
        DataError: rows that cannot be used (each is printed), a cut that cannot be made, or a leak between splits.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out) as bar:
        task = bar.add_task("reading", total=len(reader))
        usable, bad = gather(reader, folder, by_rule, lambda: bar.advance(task))
    for error in bad[:SHOWN]:
        tell(error)
    if bad and not leave_out_bad:
        raise DataError(
            f"{len(bad):,} of {len(reader):,} rows cannot be used", "repair them, or leave them out: --leave-out-bad"
        )
    splits = cut([g.seen.group for g in usable], [g.seen.split for g in usable], shares, seed)
    usable = [replace(g, seen=replace(g.seen, split=splits[g.seen.group])) for g in usable]
    leaks = find_leaks([g.seen for g in usable])
    _refuse(leaks)
    for pair in leaks.alike[:SHOWN]:  # the card has their number only: their files may be named after patients
        out.print(f"[yellow]look alike, but are in two splits:[/] {escape(' and '.join(pair))}")
    rows = _rows(usable)
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    places = dict(Counter(g.place for g in usable)) | ({"left out": len(bad)} if bad else {})
    card = data_card(data.resolve().stem, rows, leaks, hashlib.sha256(lines.encode()).hexdigest(), places)
    if folder is not None:
        (folder / "samples.jsonl").write_text(lines, encoding="utf-8")
        (folder / "data_card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        (folder / "DATA_CARD.md").write_text(as_markdown(card), encoding="utf-8")
        for name, empty in (("questions.json", "{}"), ("absent_questions.json", "[]")):
            shared = data / name
            if isinstance(reader, Collection) and shared.is_file():
                shutil.copyfile(shared, folder / name)
            else:
                (folder / name).write_text(f"{empty}\n", encoding="utf-8")
    return card


def _refuse(leaks: Leaks) -> None:
    same = [*leaks.patients, *leaks.pictures]
    if same:
        told = "; ".join(" and ".join(pair) for pair in same[:SHOWN])
        raise DataError(
            f"{len(same):,} pairs of rows of one patient or picture are in two splits: {told}",
            "give equal pictures the same patient, or put all their rows into one split",
        )


def _rows(usable: list[Gathered]) -> list[dict[str, Any]]:
    """Add split and group; groups become numbers, so that no patient's id leaves the hospital."""
    numbers: dict[str, int] = {}
    return [
        {
            **g.row,
            "group": f"{g.row['source']}:{numbers.setdefault(g.seen.group, len(numbers) + 1)}",
            "split": g.seen.split,
        }
        for g in usable
    ]


def main() -> None:
    """Run the command; every expected error is one sentence and a hint."""
    with errors_for_people():
        app()


if __name__ == "__main__":
    main()
