"""Answers as published checkpoints write them."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medreasoner.contract.answer import AbsentAnswer, Box, GroundingAnswer, Point, parse_answer
from medreasoner.contract.errors import AnswerError
from medreasoner.reasoner.published import parse_published

FEW = settings(max_examples=100, deadline=None)
BODY = "{'bbox': [10, 20, 110, 220], 'points_1': [40, 60], 'points_2': [80, 180]}"
GOOD = f"<think>A kidney.</think><answer>{BODY}</answer>"
ANSWER = GroundingAnswer(Box(10, 20, 110, 220), (Point(40, 60), Point(80, 180)), "A kidney.")


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        (GOOD, "A kidney."),
        (GOOD.replace("'", '"'), "A kidney."),
        (f"Sure:\n{GOOD}\nDone.<|im_end|>", "A kidney."),
        (f"<answer>{BODY}</answer>", ""),
        (f"<think>\nA kidney.\n</think>\n<answer>\n{BODY}\n</answer>", "A kidney."),
        (GOOD.replace(", ", ",\n  "), "A kidney."),
        (GOOD.replace("</think>", ""), ""),
    ],
    ids=["single", "double", "text around", "no think", "lines", "spread", "think not closed"],
)
def test_what_published_checkpoints_write_is_read(text: str, reasoning: str) -> None:
    assert parse_published(text) == GroundingAnswer(ANSWER.box, ANSWER.points, reasoning)


@pytest.mark.parametrize("body", ["{'absent': True}", '{"absent": true}'])
def test_absent_is_read(body: str) -> None:
    assert parse_published(f"<think>No.</think><answer>{body}</answer>") == AbsentAnswer("No.")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "found 0"),
        ("<think>A kidney.</think>", "found 0"),
        (f"<answer>{BODY}", "expected one"),
        (BODY, "found 0"),
        (GOOD + GOOD, "found 2"),
        (f"<answer>{GOOD}", "found 2"),
        ("<answer>[10, 20, 110, 220]</answer>", "expected one"),
        (f"<answer>{BODY.replace('110', '1' * 2500)}</answer>", "expected one"),
        (GOOD.replace("}", ""), "expected one"),
        (GOOD.replace("]", ""), "not a dictionary"),
        (GOOD.replace("110", "10**2"), "not a dictionary"),
        (GOOD.replace("110", "int('110')"), "not a dictionary"),
        (GOOD.replace("110", "__import__('os').getpid()"), "not a dictionary"),
        (GOOD.replace("110", "nan"), "not a dictionary"),
        (GOOD.replace("110", "null"), "not a dictionary"),
        (GOOD.replace("110", "\x00"), "not a dictionary"),
        (GOOD.replace("110", "[" * 1500), "not a dictionary"),
        (GOOD.replace("110", "-" * 1500 + "1"), "not a dictionary"),
        ("<answer>{[1]: 2}</answer>", "not a dictionary"),
        ("<answer>{{}}</answer>", "not a dictionary"),
        ("<answer>{1, 2}</answer>", "does not hold a JSON object"),
        (GOOD.replace("'bbox'", "'box'"), "expected the keys"),
        (GOOD.replace("}", ", 'label': 1}"), "expected the keys"),
        (GOOD.replace("}", ", 3: 1}"), "expected the keys"),
        ("<answer>{'absent': False}</answer>", "expected the keys"),
        ("<answer>{'absent': 1}</answer>", "expected the keys"),
        (GOOD.replace("[10, 20, 110, 220]", "(10, 20, 110, 220)"), "expected 4 numbers"),
        (GOOD.replace("110", "True"), "expected 4 numbers"),
        (GOOD.replace("110", "true"), "expected 4 numbers"),
        (GOOD.replace("110", "'110'"), "expected 4 numbers"),
        (GOOD.replace("110", "1j"), "expected 4 numbers"),
        (GOOD.replace("110", "1e999"), "finite"),
        (GOOD.replace("110", "0x" + "f" * 1500), "finite"),
        (GOOD.replace("110", "5"), "no area"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(AnswerError, match=why) as caught:
        parse_published(text)
    assert len(str(caught.value)) < 400


@FEW
@given(st.lists(st.integers(0, 800), min_size=8, max_size=8))
def test_strict_text_means_the_same_to_both_parsers(numbers: list[int]) -> None:
    x, y, width, height, *at = numbers
    answer = GroundingAnswer(Box(x, y, x + width + 1, y + height + 1), (Point(*at[:2]), Point(*at[2:])), "Why.")
    assert parse_published(answer.to_text()) == parse_answer(answer.to_text()) == answer


PYTHON = st.sampled_from(["{", "}", "[", "]", ":", ",", "'bbox'", "1", "-", "(", ")", "lambda", "\\", "\n", "#", "b''"])


@FEW
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@given(st.lists(PYTHON | st.text(string.printable, max_size=3), max_size=20).map("".join))
def test_scraps_of_python_raise_nothing_but_answer_errors(text: str) -> None:
    with contextlib.suppress(AnswerError):
        parse_published(f"<answer>{{{text}}}</answer>")
