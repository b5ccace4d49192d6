"""What is known of a saved mask."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import EDITABLE, LabelEdit, LabelRecord
from medreasoner.contract.wire import GroundingResult

DRAWN = LabelRecord(
    question="Where is the liver?",
    absent=False,
    axis="axial",
    slice_index=40,
    reasoning="This is a CT. The question points to the liver. Ça va, 脾臓.",
    target="liver",
    window=(40.0, 400.0),
    box=[1.0, 2.0, 30.0, 40.0],
    points=[[3.0, 4.0], [20.5, 30.5]],
    reasoner={"name": "embedded", "sha256": "ab", "instruction_sha256": "cd"},
    expert={"name": "litemedsam", "sha256": "ef"},
    author="r.koch",
    saved_at="2026-02-01T08:30:00.250+00:00",
    edits=(LabelEdit("box", "2026-02-01T08:29:00Z"), LabelEdit("mask", "2026-02-01T08:29:30+00:00")),
)
BY_HAND = LabelRecord("", False, "stored", 0, target="liver")  # nobody asked
ABSENT = LabelRecord("Where is the gallstone?", True, "stored", 0)


@pytest.mark.parametrize("record", [DRAWN, ABSENT, replace(ABSENT, axis="oblique"), BY_HAND])
def test_a_record_comes_back_as_it_went(record: LabelRecord) -> None:
    assert LabelRecord.from_json(record.to_json()) == record


def test_people_can_read_it() -> None:
    assert "Ça va, 脾臓." in DRAWN.to_json()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-9e8, 9e8), min_size=4, max_size=4).filter(lambda b: b[0] < b[2] and b[1] < b[3]),
    st.none() | st.lists(st.tuples(st.floats(-9e8, 9e8), st.floats(-9e8, 9e8)).map(list), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(EDITABLE), st.datetimes(timezones=st.just(timezone.utc))), max_size=3),
)
def test_numbers_and_times_survive(box: list[float], points: Any, edits: list[tuple[str, datetime]]) -> None:
    made = tuple(LabelEdit(what, at.isoformat()) for what, at in edits)
    record = replace(DRAWN, box=box, points=points, edits=made)
    assert LabelRecord.from_json(record.to_json()) == record


def test_an_answer_becomes_a_record_that_people_change_and_the_server_signs() -> None:
    result = GroundingResult(
        "Where?", "Here.", False, 0.7, (512, 256), "coronal", 3, [1.0, 2.0, 3.0, 4.0], [[1.5, 2.5]], target="spleen"
    )
    start = datetime.now(timezone.utc) - timedelta(seconds=1)
    record = LabelRecord.of(result, (40.0, 400.0)).edited("box").edited("question").signed("r.koch")
    assert (record.target, record.box, record.window) == ("spleen", [1.0, 2.0, 3.0, 4.0], (40.0, 400.0))
    assert [edit.what for edit in record.edits] == ["box", "question"]
    assert record.author == "r.koch"
    assert start < datetime.fromisoformat(record.saved_at) < datetime.now(timezone.utc) + timedelta(seconds=1)
    assert LabelRecord.from_json(record.to_json()) == record
    with pytest.raises(MedReasonerError, match="not an edit"):
        record.edited("colour")


def test_whoever_signs_last_counts() -> None:
    assert replace(DRAWN, author="someone else").signed("r.koch").author == "r.koch"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"colour": "red"}, "not a LabelRecord"),
        ({"schema_version": 2}, "schema version 2"),
        ({"question": ...}, "without question"),
        ({"absent": ..., "axis": ...}, "without absent, axis"),
        ({"question": "  "}, "is empty"),
        ({"question": None}, "question is 'None'"),
        ({"absent": "no"}, "absent is 'no'"),
        ({"absent": 0}, "absent is '0'"),
        ({"absent": True}, "absent and yet has a box"),
        ({"axis": "transverse"}, "unknown axis"),
        ({"slice_index": None}, "is not a slice"),
        ({"slice_index": -1}, "is not a slice"),
        ({"window": [40]}, "not two numbers"),
        ({"box": [1, 2, 3]}, "not four numbers"),
        ({"box": [1, 2, float("nan"), 4]}, "not four numbers"),
        ({"box": [1, 2, 1, 4]}, "has no area"),
        ({"points": [1, 2]}, "not pairs of numbers"),
        ({"points": [[1, 2, 3]]}, "not pairs of numbers"),
        ({"points": [[1, 2]] * 101}, "not pairs of numbers"),
        ({"reasoning": 5}, "reasoning is '5'"),
        ({"reasoning": "a" * 20_001}, "reasoning is 'aaa"),
        ({"target": ["liver"]}, "target is"),
        ({"reasoner": "embedded"}, "reasoner is"),
        ({"expert": {"name": 3}}, "name is '3'"),
        ({"author": None}, "author is"),
        ({"saved_at": "yesterday"}, "saved_at is 'yesterday'"),
        ({"saved_at": "2026-02-01T08:30:00"}, "not in UTC"),
        ({"saved_at": "2026-02-01T08:30:00+02:00"}, "not in UTC"),
        ({"saved_at": 1767225600}, "saved_at is '1767225600'"),
        ({"edits": "box"}, "edits is 'box'"),
        ({"edits": ["box"]}, "not an edit"),
        ({"edits": [{"what": "box"}]}, "not an edit"),
        ({"edits": [{"what": "colour", "at": "2026-02-01T08:30:00Z"}]}, "not an edit"),
        ({"edits": [{"what": "box", "at": "noon"}]}, "at is 'noon'"),
    ],
)
def test_a_bad_record_is_refused_and_says_which_field(changed: dict[str, Any], why: str) -> None:
    values = {**json.loads(DRAWN.to_json()), **changed}
    with pytest.raises(MedReasonerError, match=why) as caught:
        LabelRecord.from_json(json.dumps({k: v for k, v in values.items() if v is not ...}))
    assert len(str(caught.value)) < 400
