"""What counts as an answer, and what does not."""

from __future__ import annotations

import contextlib
import json
import pickle
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medreasoner.contract import errors
from medreasoner.contract.answer import AbsentAnswer, Box, GroundingAnswer, Point, parse_answer
from medreasoner.contract.errors import AnswerError, MedReasonerError

FEW = settings(max_examples=100, deadline=None)
BOX = [10.0, 20.0, 110.0, 220.0]
ABSENT = '<think>No bowel.</think><answer>{"absent": true}</answer>'


def written(fields: object = None, reasoning: str = "A kidney.", **changed: object) -> str:
    whole = {"bbox": BOX, "points_1": [40, 60], "points_2": [80, 180], **changed}
    return f"<think>{reasoning}</think><answer>{json.dumps(whole if fields is None else fields)}</answer>"


def test_an_answer_is_read() -> None:
    answer = parse_answer(written())
    assert answer == GroundingAnswer(Box(*BOX), (Point(40, 60), Point(80, 180)), "A kidney.")


def test_absent_is_read() -> None:
    assert parse_answer(ABSENT) == AbsentAnswer("No bowel.")


@pytest.mark.parametrize(
    "text",
    [
        written(reasoning=""),
        written(reasoning="a < b, a > c, <b>, </ think>"),
        written(reasoning="line\nline"),
        f"\n {written()} \n",
        written().replace("</think>", "</think>\n\n"),
        written(bbox=[-3, 0.5, 1e3, 8]),
        written(reasoning="Milz, 脾臓, \u202e"),
    ],
    ids=["no reasoning", "angle brackets", "lines", "space around", "space between", "any finite number", "scripts"],
)
def test_what_is_not_a_mistake(text: str) -> None:
    parse_answer(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "exactly one <think>"),
        ("The liver is on the left.", "exactly one <think>"),
        (written().split("</think>")[1], "exactly one <think>"),
        (written().split("<answer>")[0], "exactly one <think>"),
        (written()[: -len("</answer>")], "exactly one <think>"),
        (written() + "<answer>{}</answer>", "exactly one <think>"),
        ("<think>a</think>" + written(), "exactly one <think>"),
        (written(reasoning="a<think>b"), "exactly one <think>"),
        (written(reasoning="a</think><answer>{}</answer><think>b"), "exactly one <think>"),
        ("Sure! " + written(), "exactly one <think>"),
        (written() + "<|im_end|>", "exactly one <think>"),
        (written().upper(), "exactly one <think>"),
        ("<answer>{}</answer><think>a</think>", "exactly one <think>"),
        (written().replace('"', "'"), "not JSON"),
        (written().replace("]}", "],}"), "not JSON"),
        (written().replace("{", "```json {"), "not JSON"),
        ("<think>a</think><answer></answer>", "not JSON"),
        (written().replace('"points_2"', '"points_1"'), "a key is repeated"),
        (ABSENT.replace("}", ', "absent": true}'), "a key is repeated"),
        (written().replace("[10.0", "[" * 100_000), "not JSON"),
        (written().replace("110.0", "1" * 5000), "not JSON"),
        (written([]), "does not hold a JSON object"),
        (written("10,20,110,220"), "does not hold a JSON object"),
        ("<think>a</think><answer>null</answer>", "does not hold a JSON object"),
        (written({}), "expected the keys"),
        (written({"bbox": BOX}), "expected the keys"),
        (written(label="kidney"), "expected the keys"),
        (written(absent=True), "expected the keys"),
        (written(absent=False), "expected the keys"),
        (written({"absent": False}), "expected the keys"),
        (written({"absent": 1}), "expected the keys"),
        (written({"absent": "true"}), "expected the keys"),
        (written({"absent": [True]}), "expected the keys"),
        (written({"Absent": True}), "expected the keys"),
        (written(bbox="10,20,110,220"), "expected 4 numbers"),
        (written(bbox=None), "expected 4 numbers"),
        (written(bbox={"x_min": 10}), "expected 4 numbers"),
        (written(bbox=BOX[:3]), "expected 4 numbers"),
        (written(bbox=[*BOX, 1]), "expected 4 numbers"),
        (written(bbox=[[*BOX]]), "expected 4 numbers"),
        (written(bbox=[True, True, 110, 220]), "expected 4 numbers"),
        (written(bbox=["10", 20, 110, 220]), "expected 4 numbers"),
        (written(bbox=[None, 20, 110, 220]), "expected 4 numbers"),
        (written(points_1=[40]), "expected 2 numbers"),
        (written(points_2=[[80, 180]]), "expected 2 numbers"),
        (written(points_2=[80, False]), "expected 2 numbers"),
        (written(bbox=[float("nan"), 20, 110, 220]), "finite pixel positions"),
        (written(bbox=[10, 20, 110, float("inf")]), "finite pixel positions"),
        (written().replace("110.0", "1e999"), "finite pixel positions"),
        (written(bbox=[10**400, 20, 110, 220]), "finite pixel positions"),
        (written(points_1=[-(10**400), 20]), "finite pixel positions"),
        (written(points_1=[2e9, 20]), "finite pixel positions"),
        (written(bbox=[110, 220, 10, 20]), "has no area"),
        (written(bbox=[10, 20, 110, 20]), "has no area"),
        (written(bbox=[10, 20, 10, 220]), "has no area"),
        (written(bbox=[5, 5, 5, 5]), "has no area"),
    ],
)
def test_malformed_text_is_refused_with_the_reason_and_what_to_do(text: str, why: str) -> None:
    with pytest.raises(AnswerError, match=why) as caught:
        parse_answer(text)
    assert "\n  -> " in str(caught.value)
    assert len(str(caught.value)) < 600, "a bad text must not flood the log"


def test_absent_is_refused_where_only_a_place_will_do() -> None:
    with pytest.raises(AnswerError, match="may not answer 'absent'"):
        GroundingAnswer.from_text(ABSENT)
    assert GroundingAnswer.from_text(written()) == parse_answer(written())


PIXELS = st.integers(-(10**8), 10**8)
REASONING = st.text(max_size=60).map(str.strip).filter(lambda s: "<" not in s)


@FEW
@given(
    PIXELS, PIXELS, st.integers(1, 10**6), st.integers(1, 10**6), st.lists(PIXELS, min_size=4, max_size=4), REASONING
)
def test_what_is_written_is_read_again(x: int, y: int, width: int, height: int, at: list[int], reasoning: str) -> None:
    points = (Point(at[0], at[1]), Point(at[2], at[3]))
    answer = GroundingAnswer(Box(x, y, x + width, y + height), points, reasoning)
    assert parse_answer(answer.to_text()) == answer
    assert parse_answer(AbsentAnswer(reasoning).to_text()) == AbsentAnswer(reasoning)


def test_numbers_are_written_as_whole_pixels_and_a_box_keeps_its_area() -> None:
    answer = GroundingAnswer(Box(1.4, 2.6, 10.2, 11), (Point(3.7, 4.2), Point(5, 6.9)))
    assert answer.to_text().endswith('{"bbox": [1, 2, 11, 11], "points_1": [4, 4], "points_2": [5, 7]}</answer>')
    small = GroundingAnswer(Box(1.2, 1.2, 1.4, 1.4), (Point(1, 1), Point(1, 1)))
    assert parse_answer(small.to_text()).box == Box(1, 1, 2, 2)


SCRAPS = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    '{"bbox": ',
    "[1, 2, 3, 4]",
    '"points_1"',
    ": ",
    ", ",
    "[1, 2]",
]
SCRAPS += [
    '"points_2"',
    "}",
    '{"absent": true}',
    "NaN",
    "-Infinity",
    "1e400",
    "null",
    " ",
    "\x00",
    "\ud800",
    "'",
    "[[[",
]


@FEW
@given(st.lists(st.sampled_from(SCRAPS) | st.text(string.printable, max_size=5), max_size=25).map("".join))
def test_scraps_of_answers_raise_nothing_but_answer_errors(text: str) -> None:
    for whole in (text, f"<think></think><answer>{text}</answer>"):
        with contextlib.suppress(AnswerError):
            parse_answer(whole)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@FEW
@given(st.fixed_dictionaries({"bbox": JSON, "points_1": JSON, "points_2": JSON}) | JSON)
def test_any_json_raises_nothing_but_answer_errors(fields: object) -> None:
    with contextlib.suppress(AnswerError):
        parse_answer(f"<think></think><answer>{json.dumps(fields)}</answer>")


@pytest.mark.parametrize("nan_at", range(4))
def test_a_box_with_nan_has_no_area(nan_at: int) -> None:
    corners = [0.0, 0.0, 1.0, 1.0]
    corners[nan_at] = float("nan")
    with pytest.raises(AnswerError, match="no area"):
        Box(*corners)


def test_area_counts_half_open_pixels() -> None:
    assert Box(2, 3, 12, 8).area == 50


@pytest.mark.parametrize("kind", [k for k in vars(errors).values() if isinstance(k, type)])
def test_errors_survive_a_worker_process(kind: type[MedReasonerError]) -> None:
    error = kind("no box", "ask again")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.what, again.hint, str(again)) == (kind, "no box", "ask again", "no box\n  -> ask again")
