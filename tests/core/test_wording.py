"""What the words of a question alone say about the kinds of image that can answer it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medreasoner.contract.errors import CheckpointError
from medreasoner.folders import embedded_folder
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.wording import FILE, Wording, buckets


@pytest.fixture(scope="module")
def wording() -> Wording:
    return Wording.of(embedded_folder())


@pytest.mark.parametrize(
    ("question", "sentence", "shown"),
    [
        ("Where is the liver?", "This is an abdominal CT.", True),
        ("Where is the liver?", "This is a chest X-ray.", False),
        ("Which growth did the endoscopist snare?", "This is a colonoscopy.", True),
        ("Which growth did the endoscopist snare?", "This is a blood smear.", False),
        ("Where do the nerve fibres leave the eye as one bundle?", "This is a fundus photograph.", True),
        ("Where do the nerve fibres leave the eye as one bundle?", "This is a mammogram.", False),
        ("Which chamber pumps blood into the aorta?", "This is a cardiac MRI.", True),
        ("Which chamber pumps blood into the aorta?", "This is a dermoscopy image.", False),
        ("Where is the appendix?", "This is a knee X-ray.", False),
    ],
)
def test_words_tell_which_kind_of_image_is_meant(wording: Wording, question: str, sentence: str, shown: bool) -> None:
    doubt = wording.doubts(question)[sentence]
    assert doubt < 0 if shown else doubt > 2, "nats for: it is not there"


@pytest.mark.parametrize("question", ["", "???", "\u80dd\u810f"], ids=["empty", "marks", "no Latin"])
def test_a_question_without_known_words_is_no_evidence_of_its_own(wording: Wording, question: str) -> None:
    assert buckets(question, 100) == []
    assert max(wording.shares(question)) < 0.5


def test_a_misspelt_word_keeps_most_of_its_pieces() -> None:
    right, wrong = (set(buckets(word, 1 << 30)) for word in ("haemorrhage", "haemorhage"))
    assert len(right & wrong) >= 0.6 * len(right)
    assert right & set(buckets("Haemorrhage?", 1 << 30)) == right, "case and marks do not count"


def test_every_opening_of_the_card_has_its_doubt(wording: Wording) -> None:
    card = ReasonerCard.of(embedded_folder())
    assert card.wording_weight > 0
    assert {s for sentences in card.kinds.values() for s in sentences} <= set(wording.sentences)
    assert wording.weights.dtype == np.int8
    assert np.isclose(wording.shares("Where is the liver?").sum(), 1)


def test_a_missing_or_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="wording_weight"):
        Wording.of(tmp_path)
    (tmp_path / FILE).write_bytes((embedded_folder() / FILE).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="->"):
        Wording.of(tmp_path)
