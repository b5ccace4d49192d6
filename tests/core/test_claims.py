"""What README says of the embedded reasoner is what benchmarks/results holds, for the weights that ship."""

from __future__ import annotations

import json

import pytest

from benchmarks.show_results import PAGE, RESULTS, page, readme_with, totals
from benchmarks.show_results import README as README_PATH
from medreasoner.expert import DEFAULT_EXPERT, load_expert
from medreasoner.folders import embedded_folder
from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.quantised import folder_hash

REPORT = json.loads(RESULTS.read_text(encoding="utf-8"))
README = README_PATH.read_text(encoding="utf-8")


def test_figures_belong_to_the_weights_that_ship() -> None:
    assert REPORT["about"]["reasoner_sha256"] == folder_hash(embedded_folder())
    assert REPORT["about"]["instruction_sha256"] == instruction_hash("direct")
    assert REPORT["about"]["expert"] == DEFAULT_EXPERT
    assert REPORT["about"]["expert_sha256"] == load_expert().sha256


@pytest.mark.parametrize(
    ("figure", "least"),
    [("box_iou", 0.50), ("named", 0.75), ("named_explicit", 0.97), ("parsed", 0.995), ("dice", 0.55)],
)
def test_goals_are_reached(figure: str, least: float) -> None:
    assert REPORT["summary"][figure]["mean"] >= least


def test_absence_is_told_as_it_is() -> None:
    assert REPORT["summary"]["absent_recognised"]["mean"] >= 0.80
    missed = REPORT["summary"]["false_absent"]["mean"]
    assert missed <= 0.03 or f"{missed * 100:.1f} % of present targets are called absent" in README


def test_pages_repeat_the_figures() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(REPORT)
    assert readme_with(README, totals(REPORT)) == README
