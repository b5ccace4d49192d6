"""What travels between client and server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medreasoner.contract.errors import MedReasonerError, QuestionError
from medreasoner.contract.wire import (
    AXES,
    MAX_QUESTION_CHARACTERS,
    SCHEMA_VERSION,
    GroundingRequest,
    GroundingResult,
    RegionRequest,
    checked_question,
)

FEW = settings(max_examples=60, deadline=None)
ABSENT = GroundingResult("Where?", "Not here.", True, 0.7, (512, 256), "axial", 40)
FOUND = replace(
    ABSENT,
    absent=False,
    box=[1.0, 2.0, 3.0, 4.0],
    points=[[1.5, 2.5], [2.5, 3.5]],
    box_corners_ijk=[[0.5, 1.5, 40.0]] * 4,
    points_ijk=[[1.0, 2.0, 40.0]] * 2,
    box_corners_lps=[[-10.0, 2.5, 3.0]] * 4,
    points_lps=[[-9.0, 2.0, 3.0]] * 2,
    reasoner={"name": "embedded", "sha256": "ab", "instruction": "cd"},
    expert={"name": "LiteMedSAM", "sha256": "ef"},
    attempts=2,
    timings={"look": 0.25},
)


def request(**values: Any) -> str:
    return json.dumps({"question": "Where is the liver?", **values})


@FEW
@given(
    st.text(min_size=1, max_size=80).filter(str.strip),
    st.none() | st.sampled_from(AXES),
    st.none() | st.integers(0, 10**9),
    st.none() | st.tuples(st.floats(-9e8, 9e8), st.floats(-9e8, 9e8)),
)
def test_a_request_comes_back_as_it_went(
    question: str, axis: str | None, index: int | None, window: tuple[float, float] | None
) -> None:
    sent = GroundingRequest(question, axis, index, window)
    assert GroundingRequest.from_json(sent.to_json()) == sent
    assert "\n" not in sent.to_json()


@pytest.mark.parametrize("result", [ABSENT, FOUND], ids=["absent", "found"])
def test_a_result_comes_back_as_it_went(result: GroundingResult) -> None:
    again = GroundingResult.from_json(result.to_json())
    assert again == result
    assert isinstance(again.picture_size, tuple)


def test_a_reply_carries_what_monai_labels_clients_read_too() -> None:
    reply = {**json.loads(FOUND.to_json()), "label_names": {"liver": 1}, "latencies": {"total": 0.5}}
    assert GroundingResult.from_reply(reply) == FOUND
    with pytest.raises(MedReasonerError, match="not a GroundingResult"):
        GroundingResult.from_reply({**reply, "colour": "red"})


def test_a_result_keeps_scripts_readable() -> None:
    assert "脾臓" in replace(ABSENT, reasoning="脾臓").to_json()


def test_a_result_never_carries_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(ABSENT, confidence=float("nan")).to_json()


def test_a_question_is_enough() -> None:
    assert GroundingRequest.from_json(request()) == GroundingRequest("Where is the liver?")


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("", "is empty"),
        (" \n\t\u2003", "is empty"),
        ("a" * 10_000, "has 10,000 characters"),
        ("a" * (MAX_QUESTION_CHARACTERS + 1), "has 2,001 characters"),
        (None, "is empty"),
        (5, "is empty"),
        (["Where?"], "is empty"),
    ],
    ids=["empty", "blank", "10,000 characters", "one too many", "null", "number", "list"],
)
def test_a_question_that_cannot_be_asked(question: Any, why: str) -> None:
    with pytest.raises(QuestionError, match=why):
        GroundingRequest.from_json(request(question=question))


def test_white_space_does_not_count() -> None:
    assert checked_question("  Where\n is\tit? " + " " * 5000) == "Where is it?"
    assert len(checked_question("a" * MAX_QUESTION_CHARACTERS)) == MAX_QUESTION_CHARACTERS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON"),
        ("[]", "not a GroundingRequest"),
        ("null", "not a GroundingRequest"),
        (request(slices=3), "not a GroundingRequest"),
        ("{}", "without question"),
        (request(schema_version=SCHEMA_VERSION + 1), "schema version 2 is not 1"),
        (request(schema_version="1"), "schema version 1 is not 1"),
        (request(schema_version=None), "schema version None is not 1"),
        (request(axis="oblique"), "unknown axis"),
        (request(axis=["axial"]), "unknown axis"),
        (request(slice_index=-1), "slice_index '-1'"),
        (request(slice_index=1.0), "slice_index '1.0'"),
        (request(slice_index="3"), "slice_index '3'"),
        (request(slice_index=True), "slice_index 'True'"),
        (request(slice_index=[3]), "slice_index"),
        (request(window=[]), "is not two numbers"),
        (request(window=[40]), "is not two numbers"),
        (request(window=[40, 400, 1]), "is not two numbers"),
        (request(window=40), "is not two numbers"),
        (request(window="40,400"), "is not two numbers"),
        (request(window="40"), "is not two numbers"),
        (request(window={"40": 1, "400": 2}), "is not two numbers"),
        (request(window=["40", "400"]), "is not two numbers"),
        (request(window=[40, True]), "is not two numbers"),
        (request(window=[40, float("nan")]), "is not two numbers"),
        (request(window=[float("-inf"), 400]), "is not two numbers"),
        (request(window=[40, 10**400]), "is not two numbers"),
    ],
)
def test_a_bad_request_is_refused_and_says_which_field(text: str, why: str) -> None:
    with pytest.raises(MedReasonerError, match=why) as caught:
        GroundingRequest.from_json(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"schema_version": 0}, "schema version 0 is not 1"),
        ({"colour": "red"}, "not a GroundingResult"),
        ({"picture_size": ...}, "without picture_size"),
        ({"question": ..., "absent": ...}, "without question, absent"),
    ],
    ids=["version", "unknown field", "no size", "two missing"],
)
def test_a_result_of_another_form_is_refused(changed: dict[str, Any], why: str) -> None:
    values = {**json.loads(FOUND.to_json()), **changed}
    with pytest.raises(MedReasonerError, match=why):
        GroundingResult.from_json(json.dumps({k: v for k, v in values.items() if v is not ...}))


@FEW
@given(
    st.lists(st.floats(-9e8, 9e8), min_size=4, max_size=4).filter(lambda b: b[0] < b[2] and b[1] < b[3]),
    st.none() | st.lists(st.tuples(st.floats(-9e8, 9e8), st.floats(-9e8, 9e8)).map(list), min_size=1, max_size=4),
)
def test_a_drawn_region_comes_back_as_it_went(box: list[float], points: Any) -> None:
    sent = RegionRequest(box, points, "Where?", "axial", 3, (40.0, 400.0))
    assert RegionRequest.from_json(sent.to_json()) == sent


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "neither a box nor a point"),
        ({"box": None, "points": []}, "neither a box nor a point"),
        ({"box": [1, 2, 3]}, "not four numbers"),
        ({"box": ["1", "2", "3", "4"]}, "not four numbers"),
        ({"box": [1, 2, float("inf"), 4]}, "not four numbers"),
        ({"box": [1, 2, 1, 4]}, "has no area"),
        ({"points": [[1]]}, "not pairs of numbers"),
        ({"points": {"x": 1, "y": 2}}, "not pairs of numbers"),
        ({"points": [[1, float("nan")]]}, "not pairs of numbers"),
        ({"box": [1, 2, 3, 4], "question": 3}, "is empty"),
        ({"box": [1, 2, 3, 4], "question": "a" * 2001}, "2,001 characters"),
        ({"box": [1, 2, 3, 4], "axis": "transverse"}, "unknown axis"),
        ({"box": [1, 2, 3, 4], "slice_index": -1}, "slice_index"),
        ({"box": [1, 2, 3, 4], "window": [1]}, "not two numbers"),
        ({"box": [1, 2, 3, 4], "mask": 1}, "not a RegionRequest"),
    ],
)
def test_a_bad_region_is_refused_and_says_which_field(values: dict[str, Any], why: str) -> None:
    with pytest.raises(MedReasonerError, match=why) as caught:
        RegionRequest.from_json(json.dumps(values))
    assert len(str(caught.value)) < 400
