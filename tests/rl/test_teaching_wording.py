"""Teaching the reader of wordings: what is saved is what was learnt."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from medreasoner.evaluation.cases import read_samples
from medreasoner.evaluation.kinds import BODY_PART
from medreasoner.evaluation.questions import load_entries
from medreasoner.reasoner.wording import Wording
from rl_training.wording import _logits, learn, lesson, save
from tests.collection import make_collection


def test_what_is_saved_reads_questions_as_what_was_learnt(tmp_path: Path) -> None:
    data = make_collection(tmp_path / "data")
    elsewhere = [f"Which gallstone number {n} hurts?" for n in range(7)]
    learnt = lesson(read_samples(data), load_entries(data, "train"), elsewhere)
    assert len(learnt.questions) == 2 * (5 * 7 + 7), "each as it is and once more as people type"
    weights, bias = learn(learnt)
    assert torch.equal(weights, learn(learnt)[0]), "the same seed learns the same"
    save(learnt, weights, bias, tmp_path)
    wording = Wording.of(tmp_path)

    fundus = list(BODY_PART).index("fundus photograph")
    assert wording.shown.sum() == 1
    assert wording.shown[fundus, 0]
    for question, disc in (("Please outline the optic disc.", True), ("Does the gallstone hurt?", False)):
        rows = [torch.tensor(b) for b in [_buckets(question)]]
        exact = _logits(rows, weights.T, bias).softmax(1)[0]
        assert wording.shares(question) == pytest.approx(exact.tolist(), abs=0.02), "int8 rows round a little"
        doubt = wording.doubts(question)
        assert (doubt["This is a fundus photograph."] < 0) is disc
        assert doubt["This is a mammogram."] == pytest.approx(math.log(1.001 / 0.001))


def _buckets(question: str) -> list[int]:
    from medreasoner.reasoner.wording import buckets
    from rl_training.wording import BUCKETS

    return buckets(question, BUCKETS)
