"""The questions written for this project: complete, fair and tidy."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from medreasoner.contract.wire import checked_question
from medreasoner.evaluation.kinds import kinds_that_may_show
from medreasoner.evaluation.questions import STYLES
from rl_training.questions import ABSENT, HERE, own_questions, read_sections

OWN = own_questions()
MISSING = read_sections(ABSENT)
NOWHERE = "none"  # a heading's kind for structures that no image of this project can show


def questions_of(target: str) -> list[str]:
    return [question for questions in OWN[target].values() for question in questions]


def test_sections_are_read_with_white_space_tidied(tmp_path: Path) -> None:
    path = tmp_path / "liver.txt"
    path.write_text("lost\n# visual\nWhat  is brown?\n\n \n# terse\nbile\n# visual\nWhere?\n", encoding="utf-8")
    assert read_sections(path) == {"visual": ["What is brown?", "Where?"], "terse": ["bile"]}


def test_every_file_but_the_absent_one_is_a_target() -> None:
    assert len(OWN) == len(list(HERE.glob("*.txt"))) - 1 > 60
    assert "absent" not in OWN
    assert {"liver", "left kidney", "L4-L5 intervertebral disc"} <= OWN.keys()


@pytest.mark.parametrize("target", OWN)
def test_a_target_has_every_style_and_enough_questions(target: str) -> None:
    assert set(OWN[target]) == set(STYLES)
    assert min(len(questions) for questions in OWN[target].values()) >= 20
    assert len(questions_of(target)) >= 350


@pytest.mark.parametrize("target", OWN)
def test_no_question_is_asked_twice(target: str) -> None:
    counts = Counter(question.lower() for question in questions_of(target))
    assert [question for question, count in counts.items() if count > 1] == []


def test_hardly_a_question_means_two_targets() -> None:
    """Short ones may: to the radiologist "bx target" may be a breast mass or a kidney tumour."""
    counts = Counter(q for target in OWN for q in {question.lower() for question in questions_of(target)})
    assert sum(count > 1 for count in counts.values()) <= 5


@pytest.mark.parametrize("target", OWN)
def test_only_explicit_questions_name_the_target(target: str) -> None:
    name = re.compile(rf"\b{re.escape(target)}\b", re.IGNORECASE)
    for style in set(STYLES) - {"explicit"}:
        assert [question for question in OWN[target][style] if name.search(question)] == []


def test_questions_are_plain_text_that_the_server_would_take() -> None:
    everything = [q for target in OWN for q in questions_of(target)] + [q for rows in MISSING.values() for q in rows]
    assert [q for q in everything if not (q.isascii() and q.isprintable())] == []
    assert [q for q in everything if checked_question(q) != q] == []
    assert [q for q in everything if not 3 <= len(q) <= 200] == []
    assert [q for q in everything if re.search(r"</?[a-z|]|[{}]", q)] == [], (
        "none may be mistaken for tags or templates"
    )


@pytest.mark.parametrize("heading", MISSING)
def test_an_absent_heading_names_a_structure_and_kinds_of_image_that_are_known(heading: str) -> None:
    structure, bar, kinds = (part.strip() for part in heading.partition("|"))
    assert structure
    assert bar
    for kind in kinds.split(","):
        known = kinds_that_may_show(f"{structure} | {kind}")
        assert bool(known) is (kind.strip().lower() != NOWHERE), f"{kind.strip()!r} is no kind of image"
    assert len(MISSING[heading]) >= 10


def test_an_absent_structure_is_no_target_and_its_questions_are_its_own() -> None:
    structures = [heading.partition("|")[0].strip().lower() for heading in MISSING]
    assert len(structures) == len(set(structures)) > 50
    assert not set(structures) & {target.lower() for target in OWN}
    counts = Counter(question.lower() for questions in MISSING.values() for question in questions)
    assert max(counts.values()) == 1
    assert not counts.keys() & {question.lower() for target in OWN for question in questions_of(target)}
