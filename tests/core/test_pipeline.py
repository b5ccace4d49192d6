"""The whole way with the embedded weights: question and picture in, grounding out."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medreasoner.contract.answer import Box, GroundingAnswer
from medreasoner.contract.errors import AnswerError, CheckpointError, QuestionError
from medreasoner.contract.wire import GroundingResult
from medreasoner.expert import load_expert
from medreasoner.folders import embedded_folder
from medreasoner.geometry import box_iou
from medreasoner.imaging import open_image
from medreasoner.instruction import instruction_hash
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.catalogue import open_reasoner
from medreasoner.reasoner.local import LocalReasoner

OPTIC_DISC = Box(115, 560, 295, 770)  # read off scikit-image's retina.jpg by eye, in its 1411 x 1411 pixels


@pytest.fixture(scope="module")
def pipeline() -> GroundingPipeline:
    return GroundingPipeline(open_reasoner("embedded", "cpu"), load_expert())


@pytest.fixture(scope="module")
def retina() -> Picture:
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return replace(open_image(Path(spec.origin).parent / "data" / "retina.jpg").picture(), modality="OP")


def test_optic_disc_is_named_boxed_and_segmented(pipeline: GroundingPipeline, retina: Picture) -> None:
    grounding = pipeline.ground("Where do the nerve fibres leave the eye as one bundle?", retina)
    assert isinstance(grounding.answer, GroundingAnswer)
    assert "optic disc" in grounding.answer.reasoning
    assert pipeline.result(grounding, retina).target == "optic disc"
    assert box_iou(grounding.answer.box, OPTIC_DISC) > 0.5
    rows, columns = np.nonzero(grounding.mask)
    inside = (columns > 90) & (columns < 320) & (rows > 530) & (rows < 800)
    assert inside.mean() > 0.95
    assert 0 < grounding.confidence <= 1


def test_gallstones_are_not_in_an_eye(pipeline: GroundingPipeline, retina: Picture) -> None:
    grounding = pipeline.ground("Which pear-shaped sac hides the gallstone?", retina)
    assert grounding.absent
    assert not grounding.mask.any()
    result = pipeline.result(grounding, retina)
    assert result.box is None
    assert result.points_ijk is None


@pytest.mark.parametrize(("doubt", "absent"), [(9.0, True), (-9.0, False)])
def test_doubt_from_the_wording_reaches_the_verdict(
    pipeline: GroundingPipeline, retina: Picture, monkeypatch: pytest.MonkeyPatch, doubt: float, absent: bool
) -> None:
    reader = SimpleNamespace(doubts=lambda _: {"This is a fundus photograph.": doubt, "This is a mammogram.": -doubt})
    monkeypatch.setattr(pipeline.reasoner, "_wording", reader)
    assert pipeline.ground("Where is the optic disc?", retina).absent is absent


def test_result_speaks_every_coordinate_system(pipeline: GroundingPipeline, retina: Picture) -> None:
    grounding = pipeline.ground("Outline the optic disc.", retina)
    result = GroundingResult.from_json(pipeline.result(grounding, retina).to_json())
    assert result.box is not None
    assert result.box_corners_ijk is not None
    assert result.box_corners_lps is None
    np.testing.assert_allclose(result.box_corners_ijk[0], [result.box[0] - 0.5, result.box[1] - 0.5, 0], atol=2e-3)
    assert result.reasoner["instruction_sha256"] == instruction_hash("direct")
    assert len(result.reasoner["sha256"]) == len(result.expert["sha256"]) == 64


def test_answers_repeat_exactly(pipeline: GroundingPipeline, retina: Picture) -> None:
    first, second = (pipeline.ground("optic cup?", retina) for _ in range(2))
    assert first.answer == second.answer
    assert np.array_equal(first.mask, second.mask)


def test_drafts_never_change_the_text(pipeline: GroundingPipeline, retina: Picture) -> None:
    plain = LocalReasoner(embedded_folder(), "cpu")
    plain.card = replace(plain.card, phrases=[])
    question = "Which pale hollow grows when the pressure in the eye is too high?"
    assert plain.answer(question, retina).text == pipeline.reasoner.answer(question, retina).text


def test_refining_moves_the_mask_with_the_box(pipeline: GroundingPipeline, retina: Picture) -> None:
    mask = pipeline.refine(retina, OPTIC_DISC).mask
    assert mask[560:770, 115:295].sum() > 0.9 * mask.sum() > 0
    with pytest.raises(AnswerError, match="->"):
        pipeline.refine(retina, Box(5000, 5000, 5100, 5100))


def test_a_drawn_region_gets_a_result_in_which_no_reasoner_speaks(pipeline: GroundingPipeline, retina: Picture) -> None:
    found = pipeline.refine(retina, OPTIC_DISC)
    drawn = pipeline.region_result(retina, OPTIC_DISC, (), found, {"segment": 0.1}, "Where is the disc?")
    result = GroundingResult.from_json(drawn.to_json())
    assert (result.reasoning, result.reasoner, result.attempts, result.absent) == ("", {}, 0, False)
    assert result.box == OPTIC_DISC.as_list()
    assert result.box_corners_ijk == [[114.5, 559.5, 0], [294.5, 559.5, 0], [294.5, 769.5, 0], [114.5, 769.5, 0]]
    assert (result.points, result.points_ijk, result.question) == (None, None, "Where is the disc?")


@pytest.mark.parametrize("question", ["", "   \n", "x" * 10_000], ids=["empty", "blank", "endless"])
def test_unaskable_question_is_refused_before_any_work(pipeline: GroundingPipeline, question: str) -> None:
    with pytest.raises(QuestionError, match="->"):
        pipeline.ground(question, Picture(np.zeros((8, 8, 3), np.uint8)))


@pytest.mark.parametrize(("name", "shape"), [("wide", (40, 400, 3)), ("one pixel", (1, 1, 3)), ("black", (64, 64, 3))])
def test_odd_pictures_get_an_answer_inside_the_picture(
    pipeline: GroundingPipeline, name: str, shape: tuple[int, int, int]
) -> None:
    picture = Picture(np.zeros(shape, np.uint8))
    grounding = pipeline.ground(f"What is on this {name} picture?", picture)
    assert grounding.mask.shape == shape[:2]
    if isinstance(grounding.answer, GroundingAnswer):
        box = grounding.answer.box
        assert 0 <= box.x_min < box.x_max <= shape[1]
        assert 0 <= box.y_min < box.y_max <= shape[0]


def test_missing_and_incomplete_checkpoints_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="->"):
        open_reasoner("no-such-model")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_reasoner(str(tmp_path))
    for file in embedded_folder().iterdir():
        if "03-of" not in file.name:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match="weight files"):
        open_reasoner(str(tmp_path))
