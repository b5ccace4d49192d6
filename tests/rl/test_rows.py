"""Training sees what the reasoner sees: the same prompt, picture and numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medreasoner.contract.answer import GroundingAnswer
from medreasoner.contract.errors import MedReasonerError
from medreasoner.folders import embedded_folder
from medreasoner.geometry import box_iou
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.letterbox import Letterbox
from medreasoner.reasoner.local import LocalReasoner, in_picture
from rl_training.rewards import paper_soft
from rl_training.rows import Canvas, Row, rows_of, user_turn
from rl_training.tiny import make_tiny
from tests.collection import make_collection

CARD = ReasonerCard("any", canvas=56, instruction="direct")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_collection(tmp_path_factory.mktemp("rows") / "data")


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def reasoner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalReasoner:
    folder = embedded_folder() if request.param == "embedded" else make_tiny(tmp_path_factory.mktemp("rows") / "tiny")
    return LocalReasoner(folder, "cpu")


def test_trl_tokenises_the_prompt_as_the_reasoner_does(reasoner: LocalReasoner, data: Path) -> None:
    """TRL fills the turn's gap and calls the processor's chat template (GRPOTrainer._tokenize_prompts)."""
    canvas = Canvas(rows_of(data, "train"), reasoner.card)
    columns = canvas.columns(0)
    turn = columns["prompt"]
    for part in turn[0]["content"]:
        if part["type"] == "image":
            part["image"] = columns["images"][0]
    made = reasoner._processor.apply_chat_template(
        [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    asked = reasoner._prompt(canvas.rows[0].question, made["image_grid_thw"])[0].tolist()
    opening = len(reasoner._grammar.opening)
    assert made["input_ids"][0].tolist() == asked[:-opening]
    seen = canvas.rows[0].example.picture()
    fit = Letterbox.of(seen.width, seen.height, reasoner.card.canvas)
    pixels = reasoner._processor.image_processor(images=[fit.picture(seen.pixels)], return_tensors="pt")
    assert np.array_equal(made["pixel_values"], pixels["pixel_values"])


def test_the_taught_answer_is_made_of_the_tokens_that_guided_decoding_writes(
    reasoner: LocalReasoner, data: Path
) -> None:
    canvas = Canvas(rows_of(data, "train"), reasoner.card)
    grammar = reasoner._grammar
    assert grammar.numbers is not None
    answer = GroundingAnswer.from_text(canvas.answer(0))
    numbers = [*map(int, answer.box.as_list()), *(int(v) for p in answer.points for v in (p.x, p.y))]
    ending = [*grammar.end_of_reasoning, *grammar.open_answer, *grammar.box]
    for number, after in zip(numbers, grammar.after_number, strict=True):
        ending += [grammar.numbers[number], *after]
    tokens = reasoner._tokenizer(canvas.answer(0), add_special_tokens=False)["input_ids"]
    assert tokens[-len(ending) :] == ending
    assert tuple(tokens[: len(grammar.opening)]) == grammar.opening


def test_the_taught_answer_earns_everything_and_comes_back_to_the_picture(reasoner: LocalReasoner, data: Path) -> None:
    canvas = Canvas(rows_of(data, "train"), reasoner.card)
    for index, row in enumerate(canvas.rows):
        columns = canvas.columns(index)
        assert paper_soft([canvas.answer(index)], box=[columns["box"]], points=[columns["points"]]) == [4.0]
        seen, truth = row.example.picture(), row.example.box
        assert truth is not None
        back = in_picture(
            GroundingAnswer.from_text(canvas.answer(index)),
            Letterbox.of(seen.width, seen.height, reasoner.card.canvas),
            seen,
        )
        assert isinstance(back, GroundingAnswer)
        # one canvas pixel is 8.6 picture pixels on 56, 1.4 on 336; the target is 170 x 200
        assert box_iou(back.box, truth) > (0.85 if reasoner.card.canvas == 56 else 0.97)


def test_without_a_mask_the_given_place_is_moved(reasoner: LocalReasoner, data: Path) -> None:
    rows = rows_of(data, "train")
    canvas = Canvas([*rows, Row(replace(rows[0].example, mask=None), rows[0].question)], reasoner.card)
    masked, given = canvas.columns(0), canvas.columns(len(rows))
    assert given["mask"] is None
    assert np.allclose(given["box"], masked["box"], atol=1)
    scale = reasoner.card.canvas / 480
    example = rows[0].example
    assert example.points is not None
    assert given["points"][0] == pytest.approx(
        [(v + 0.5) * scale - 0.5 for v in (example.points[0].x, example.points[0].y)]
    )


def test_absent_rows_keep_their_share_and_have_no_place(data: Path) -> None:
    rows = rows_of(data, "train", absent_share=0.5)
    absent = [row for row in rows if row.example.absent]
    assert (len(rows), len(absent)) == (8, 4)
    columns = Canvas(rows, CARD).columns(rows.index(absent[0]))
    assert columns["box"] is columns["points"] is columns["mask"] is None
    assert rows == rows_of(data, "train", absent_share=0.5)  # the same seed draws the same
    assert rows != rows_of(data, "train", absent_share=0.5, seed=1)
    assert len(rows_of(data, "train", wordings=3)) == 12


def test_a_row_that_is_absent_itself_is_asked_once(tmp_path: Path) -> None:
    data = make_collection(tmp_path / "data")
    (data / "absent_questions.json").write_text("[]")
    samples = data / "samples.jsonl"
    present = json.loads(samples.read_text().splitlines()[0])
    own = {"id": "made/absent", "absent": True, "mask": None, "bbox": None, "points": None, "question_key": None}
    row = {**present, **own, "category": "gallbladder", "questions": {"implicit": ["Where is bile stored?"]}}
    samples.write_text(samples.read_text() + json.dumps(row) + "\n")  # about a picture that shows another target
    absent = [row.question for row in rows_of(data, "train", absent_share=0.5) if row.example.absent]
    assert absent == ["Where is bile stored?"]


def test_augmented_rows_move_picture_mask_box_and_points_together(data: Path) -> None:
    card = replace(CARD, canvas=168)
    rows = rows_of(data, "train", absent_share=0.2, wordings=3)
    plain, moved = Canvas(rows, card), Canvas(rows, card, augment=True)
    seen = set()
    for index, row in enumerate(rows):
        shown = moved.shown(index)
        assert shown.picture.pixels.shape == (168, 168, 3)
        assert not np.array_equal(shown.picture.pixels, plain.shown(index).picture.pixels)
        seen.add(shown.picture.content_hash)
        if row.example.absent:
            assert shown.mask is shown.place is None
            continue
        assert shown.mask is not None
        assert shown.place is not None
        box, points = shown.place
        where = np.argwhere(shown.mask)
        (top, left), (bottom, right) = where.min(0), where.max(0) + 1
        assert np.allclose(box.as_list(), [left, top, right, bottom], atol=1.5)
        assert all(shown.mask[int(p.y), int(p.x)] for p in points)
        assert paper_soft([moved.answer(index)], box=[box.as_list()], points=[[[p.x, p.y] for p in points]]) == [4.0]
    assert len(seen) == len(rows), "every wording of a target comes with a move of its own"
    again = Canvas(rows, card, augment=True)
    assert again.shown(5).picture.content_hash == moved.shown(5).picture.content_hash
    assert Canvas(rows, card, augment=True, seed=1).shown(5).picture.content_hash not in seen


def test_the_test_split_is_never_trained_on(data: Path) -> None:
    with pytest.raises(MedReasonerError, match="'test'"):
        rows_of(data, "test")


def test_a_turn_puts_the_question_where_the_card_says() -> None:
    for first in (True, False):
        (turn,) = user_turn("Where?", replace(CARD, question_first=first))
        assert [part["type"] for part in turn["content"]] == (["text", "image"] if first else ["image", "text"])
