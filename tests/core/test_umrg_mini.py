"""The embedded reasoner on real labelled images, where the shared collection lies beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medreasoner.cli import app

DATA = Path(__file__).parents[3] / "shared" / "data" / "umrg-mini"


@pytest.mark.nightly
@pytest.mark.shared_data
@pytest.mark.skipif(not DATA.exists(), reason="umrg-mini does not ship with the repository")
def test_embedded_reasoner_beats_the_prior_that_knows_the_target(tmp_path: Path) -> None:
    app(["evaluate", str(DATA), "--limit", "120", "--overlays", "0", "--out", str(tmp_path)], standalone_mode=False)
    total = json.loads((tmp_path / "evaluation.json").read_text())["summary"]
    assert total["box_iou"]["mean"] > total["prior_iou"]["mean"] + 0.05
    assert total["named"]["mean"] > 0.7
    assert total["parsed"]["mean"] == 1.0
