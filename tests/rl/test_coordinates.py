"""Coordinates as soft labels: where they stand in an answer, what they cost, that a stage learns by them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from medreasoner.contract.errors import MedReasonerError
from medreasoner.folders import embedded_folder
from rl_training.coordinates import FIRST, IGNORED, SoftNumbers, marked
from rl_training.tiny import make_tiny, tokenizer
from tests.collection import make_collection
from tests.rl.stages import run_finetune

THINK = "<think>This is a lumbar spine MRI. The question points to the L4-L5 intervertebral disc.</think>"
ANSWERS = {
    "a place: eight numbers, and neither those of the names nor those of the keys": (
        THINK + '<answer>{"bbox": [0, 12, 336, 100], "points_1": [5, 6], "points_2": [7, 8]}</answer><|im_end|>',
        [0, 12, 336, 100, 5, 6, 7, 8],
    ),
    "nothing there": (THINK + '<answer>{"absent": true}</answer><|im_end|>', []),
}


@pytest.fixture(scope="module")
def words() -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(embedded_folder())


@pytest.mark.parametrize("name", ANSWERS)
def test_coordinates_are_marked_where_they_stand(words: AutoTokenizer, name: str) -> None:
    answer, expected = ANSWERS[name]
    labels, tokens = marked(words, answer), words(answer, add_special_tokens=False)["input_ids"]
    assert [FIRST - label for label in labels if label <= FIRST] == expected
    assert all(label == token for label, token in zip(labels, tokens, strict=True) if label >= 0)
    restored = [words.convert_tokens_to_ids(str(FIRST - label)) if label <= FIRST else label for label in labels]
    assert restored == tokens


def test_a_reasoner_that_writes_digits_is_refused() -> None:
    digits = tokenizer()  # has a token for each number up to 56
    with pytest.raises(MedReasonerError, match="does not write 112 as one token"):
        marked(digits, '<answer>{"bbox": [12, 7, 112, 9]}</answer>')
    with pytest.raises(MedReasonerError, match="does not write 57 as one token"):
        SoftNumbers(digits, 112, 2.5)


def loss_of(words: AutoTokenizer, guess: int, truth: int, spread: float = 2.5) -> float:
    """What it costs to be sure of one number where another is true."""
    logits = torch.zeros(1, 2, len(words))
    logits[0, 0, words.convert_tokens_to_ids(str(guess))] = 5.0
    labels = torch.tensor([[IGNORED, FIRST - truth]])
    return float(SoftNumbers(words, 336, spread)(SimpleNamespace(logits=logits), labels))


def test_near_is_nearly_right(words: AutoTokenizer) -> None:
    costs = [loss_of(words, guess, 120) for guess in (120, 121, 123, 130)]
    assert costs == sorted(costs)
    assert costs[3] == pytest.approx(loss_of(words, 20, 120), abs=1e-3)
    sharp = loss_of(words, 121, 120, spread=0.01)  # then it is the cross-entropy of the token
    logits = torch.zeros(1, len(words))
    logits[0, words.convert_tokens_to_ids("121")] = 5.0
    plain = F.cross_entropy(logits, torch.tensor([words.convert_tokens_to_ids("120")]))
    assert sharp == pytest.approx(float(plain), rel=1e-5)


def test_the_loss_is_a_mean_over_all_tokens_of_an_update(words: AutoTokenizer) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 5, len(words), generator=generator)
    labels = torch.tensor([[IGNORED, 17, FIRST - 40, IGNORED, 9], [IGNORED, IGNORED, FIRST - 0, 3, FIRST - 336]])
    loss = SoftNumbers(words, 336, 2.5)
    outputs = [SimpleNamespace(logits=logits[row : row + 1]) for row in (0, 1)]
    whole = loss(SimpleNamespace(logits=logits), labels)
    parts = [loss(output, labels[row : row + 1], num_items_in_batch=6) for row, output in enumerate(outputs)]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-6)


def test_a_stage_learns_coordinates_as_places(tmp_path: Path) -> None:
    data, tiny = make_collection(tmp_path / "data"), make_tiny(tmp_path / "tiny")
    soft, hard = (run_finetune(tmp_path / str(s), data, tiny, number_spread=s, max_updates=2) for s in (2.5, 0.0))
    first, second = (json.loads((run / "checkpoint-2" / "trainer_state.json").read_text()) for run in (soft, hard))
    assert first["log_history"][0]["loss"] != second["log_history"][0]["loss"]
    with pytest.raises(SystemExit):
        run_finetune(tmp_path / "large", data, tiny, number_spread=2.5, canvas=112)
