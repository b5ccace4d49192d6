"""What README says of the embedded reasoner is what benchmarks/results holds, for the weights that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.catalogue import embedded_folder
from medreasoner.reasoner.quantised import folder_hash

ROOT = Path(__file__).parents[2]
REPORT = json.loads((ROOT / "benchmarks" / "results" / "evaluation_umrg_mini_test.json").read_text())
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_figures_belong_to_the_weights_that_ship() -> None:
    assert REPORT["about"]["reasoner_sha256"] == folder_hash(embedded_folder())
    assert REPORT["about"]["instruction_sha256"] == instruction_hash("direct")


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


@pytest.mark.parametrize("figure", ["box_iou", "named", "dice", "false_absent", "absent_recognised"])
def test_readme_repeats_the_figures(figure: str) -> None:
    value = REPORT["summary"][figure]
    assert f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})" in README
