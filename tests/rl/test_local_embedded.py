"""The local loop with the embedded reasoner: right labels make it better and are published, wrong ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medreasoner.reasoner.champions import Champions
from rl_training.dataset import SavedLabels
from rl_training.local import __main__ as local
from rl_training.local.holdout import Divided
from tests.rl.labelled import save_labels

LABELS, SHARE = range(30), 0.5  # a hold-out of ten targets and more that are there, and some that are not


def run(studies: Path, registry: Path, here: Path, **changes: float) -> None:
    """Train as local.yaml says, but shortly."""
    config = yaml.safe_load(local.DEFAULT.read_text())
    config["finetune"] |= {"epochs": 1, "save_every": 4, **changes}
    config |= {"holdout": SHARE, "device": "cpu"}
    here.mkdir()
    (here / "local.yaml").write_text(yaml.safe_dump(config))
    words = ["--output", str(here / "run"), "--registry", str(registry), "--config", str(here / "local.yaml")]
    local.main([str(studies), *words])


@pytest.mark.nightly
def test_right_labels_are_published_and_wrong_ones_refused(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    studies = save_labels(tmp_path / "right", LABELS)
    run(studies, registry, tmp_path / "good")
    champions = Champions(registry)
    (good,) = champions.entries()
    assert good.published, good.reason
    assert good.difference["mean"] > 0, "the same photograph, cut differently, and nothing learnt"
    assert good.challenger["absent_recognised"] == good.champion["absent_recognised"] == 1.0

    sides = Divided(SavedLabels.of_studies(studies), registry, SHARE)
    trained = {number for number in LABELS if sides[number].split == "train"}
    wrong = save_labels(tmp_path / "wrong", LABELS, misplaced=trained)
    run(wrong, registry, tmp_path / "bad", learning_rate=3e-3)
    bad = champions.entries()[-1]
    assert (bad.number, bad.published, champions.number()) == (2, False, good.number)
    assert bad.difference["mean"] < 0
