"""The card of a checkpoint folder: what stands in it counts, and what cannot be right is told at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from medreasoner.contract.errors import CheckpointError
from medreasoner.instruction import instruction_hash
from medreasoner.reasoner.card import FILE, ReasonerCard


def test_a_downloaded_folder_needs_no_card(tmp_path: Path) -> None:
    assert ReasonerCard.of(tmp_path) == ReasonerCard(tmp_path.name)


def test_a_card_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    card = ReasonerCard("mine", 336, "direct", verdict=[" points", " asks"], trained_with=instruction_hash("direct"))
    card.save(tmp_path)
    assert ReasonerCard.of(tmp_path) == card


WRONG = {
    "a dialect that would be read as another": ({"dialect": "Strict"}, "dialect is 'Strict'"),
    "weights stored in an unknown way": ({"quantised": "int4"}, "quantised is 'int4'"),
    "a verdict of one word": ({"verdict": [" points"]}, "not two words"),
    "a canvas that is text": ({"canvas": "336"}, "canvas is '336'"),
    "a canvas without pixels": ({"canvas": 0}, "canvas is 0"),
    "an unknown field": ({"temperature": 1}, "not a reasoner card"),
    "another schema": ({"schema_version": 99}, "schema version 99"),
    "another instruction": ({"trained_with": "0" * 64}, "trained with another instruction"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_right_is_told(name: str, tmp_path: Path) -> None:
    changes, message = WRONG[name]
    values: dict[str, Any] = {**asdict(ReasonerCard("mine")), **changes}
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        ReasonerCard.of(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"mine"', "{}"])
def test_what_is_no_card_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match="not a reasoner card"):
        ReasonerCard.of(tmp_path)


def test_a_card_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(CheckpointError, match="not a reasoner card"):
        ReasonerCard.of(tmp_path)
