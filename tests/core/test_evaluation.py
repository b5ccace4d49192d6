"""`medreasoner evaluate` on a tiny made collection: what it asks, what it writes, what it counts."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medreasoner.cli import app
from medreasoner.contract.errors import ImageError
from medreasoner.contract.target import named_target
from medreasoner.evaluation.cases import cases_of, read_samples
from medreasoner.evaluation.kinds import cannot_show
from medreasoner.evaluation.naming import names
from medreasoner.evaluation.questions import part
from medreasoner.evaluation.report import summary
from medreasoner.evaluation.run import Examiner, Outcome, prior_boxes
from medreasoner.expert import DEFAULT_EXPERT
from tests.collection import make_collection

GOOD = Outcome(
    row=0,
    image="a.png",
    kind="fundus photograph",
    modality="fundus",
    style="explicit",
    question="optic disc?",
    target="optic disc",
    absent=False,
    said_absent=False,
    parsed=True,
    attempts=1,
    named=True,
    box_iou=0.8,
    point_dice=0.7,
    point_dice_union=1.1,
    dice=0.9,
    prior_iou=0.3,
    oracle_dice=0.95,
    confidence=0.8,
    seconds=1.0,
    reasoning="The question points to the optic disc. It is bright.",
    box=[0, 0, 10, 10],
)


def test_command_writes_table_files_and_page(tmp_path: Path) -> None:
    data, out = make_collection(tmp_path / "data"), tmp_path / "report"
    app(["evaluate", str(data), "--out", str(out)], standalone_mode=False)
    report = json.loads((out / "evaluation.json").read_text())
    assert report["summary"]["present"] == 1
    assert report["summary"]["absent"] == 2  # both listed questions of the test split, on the one picture there is
    assert report["summary"]["parsed"]["mean"] == 1.0
    assert report["summary"]["box_iou"]["mean"] > 0.5  # a centred crop of an optic disc
    assert report["summary"]["oracle_dice"]["mean"] > 0.6
    assert report["about"]["expert"] == DEFAULT_EXPERT
    rows = list(csv.DictReader((out / "cases.csv").open()))
    assert len(rows) == 3
    page = (out / "index.html").read_text()
    assert page.count("<figure>") == 3
    assert all((out / name).exists() for name in ("overlays/00000.jpg", "overlays/00001.jpg", "overlays/00002.jpg"))


def test_failures_and_false_absence_count_as_nothing() -> None:
    lost = replace(GOOD, parsed=False, named=False, box_iou=0.0, dice=0.0, attempts=2)
    silent = replace(GOOD, said_absent=True, named=False, box_iou=0.0, dice=0.0)
    right = replace(GOOD, absent=True, said_absent=True, style="listed", box_iou=0.0)
    total = summary([GOOD, lost, silent, right])
    assert total["box_iou"]["mean"] == pytest.approx(0.8 / 3, abs=1e-4)
    assert total["parsed"]["mean"] == 0.75
    assert total["false_absent"]["mean"] == pytest.approx(1 / 3, abs=1e-4)
    assert total["absent_recognised"]["mean"] == 1.0
    assert total["box_iou"]["low"] <= total["box_iou"]["mean"] <= total["box_iou"]["high"]


def test_cases_repeat_and_keep_to_their_split(tmp_path: Path) -> None:
    data = make_collection(tmp_path / "data")
    samples = read_samples(data)
    first, second = (cases_of(samples, data, "test") for _ in range(2))
    assert first == second
    assert {samples[case.row]["split"] for case in first} == {"test"}
    assert all("wording 8" in c.question or "wording 9" in c.question for c in first if not c.absent)
    with pytest.raises(ImageError, match="->"):
        read_samples(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "crossed"),
    [
        (("fundus photograph", "chest X-ray"), {("macula", "chest X-ray"), ("left lung", "fundus photograph")}),
        (("abdominal CT", "chest X-ray"), set()),  # one part of the body: either may show both
        (("medical image", "chest X-ray"), set()),  # nobody knows what the first one shows
    ],
)
def test_questions_of_single_pictures_are_asked_on_other_parts_of_the_body_too(
    kinds: tuple[str, str], crossed: set[tuple[str, str]], tmp_path: Path
) -> None:
    """As saved labels have them, so that a local hold-out knows whether absent targets are still recognised."""
    data = make_collection(tmp_path / "data")
    (data / "absent_questions.json").write_text("[]")
    sample = next(s for s in read_samples(data) if s["split"] == "test" and not s["dispersed"])
    samples = [
        {**sample, "kind": kind, "question_key": name, "questions": {"clinical": [f"{name}?"]}}
        for kind, name in zip(kinds, ("macula", "left lung"), strict=True)
    ]
    cases = cases_of(samples, data, "test")
    absent = [case for case in cases if case.absent]
    assert {(case.name, samples[case.row]["kind"]) for case in absent} == crossed
    assert all(case.question == f"{case.name}?" for case in cases)
    assert len(absent) <= len(samples)


def test_question_lists_are_cut_without_overlap() -> None:
    items = [str(n) for n in range(48)]
    cut = [part(items, split) for split in ("train", "val", "test")]
    assert [item for some in cut for item in some] == items
    assert [len(c) for c in cut] == [33, 5, 10]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("mask", None, "no usable bbox, points and mask"),  # as U-MRG's training rows have none once prepared
        ("points", None, "no usable bbox, points and mask"),
        ("bbox", [9, 9, 9, 20], "no usable bbox, points and mask"),
        ("mask", "masks/gone.png", "cannot be read"),
    ],
)
def test_a_target_without_its_truth_is_named_before_anything_is_asked(
    key: str, value: Any, what: str, tmp_path: Path
) -> None:
    data = make_collection(tmp_path / "data")
    samples = read_samples(data)
    case = next(case for case in cases_of(samples, data, "test") if not case.absent)
    samples[case.row][key] = value
    nobody: Any = None
    with pytest.raises(ImageError, match=what):
        Examiner(nobody, samples, data, {}).ask(case)


def test_prior_is_the_median_training_box(tmp_path: Path) -> None:
    box = prior_boxes(read_samples(make_collection(tmp_path / "data")))["optic disc"]
    assert box.as_list() == pytest.approx([v * 336 / 480 for v in (74, 139, 244, 339)], abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "targets", "sure"),
    [
        ("chest X-ray", {"dermoscopy image"}, True),
        ("chest X-ray", {"cardiac MRI"}, False),  # both show the trunk
        ("mammogram", {"chest X-ray"}, False),  # neighbours overlap
        ("CT image", {"dermoscopy image"}, False),  # who knows which part of the body
        ("head CT", {"panoramic dental X-ray"}, False),
    ],
)
def test_absence_is_claimed_only_where_it_is_sure(kind: str, targets: set[str], sure: bool) -> None:
    assert cannot_show(kind, targets) is sure


def test_named_target() -> None:
    assert named_target("This is an MRI. The question points to the L4-L5 intervertebral disc. Here") == (
        "L4-L5 intervertebral disc"
    )
    assert names("Old red cells are cleared by the spleen, seen at the left.", "spleen")
    assert not names("The question points to the liver. It is near the spleen.", "spleen")
