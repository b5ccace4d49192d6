"""What the viewer does, without a browser: real images, the embedded models."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from medreasoner.contract.answer import Box, GroundingAnswer, Point
from medreasoner.contract.errors import AnswerError, ImageError, MedReasonerError
from medreasoner.expert import load_expert
from medreasoner.imaging import open_image
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.catalogue import open_reasoner
from viewer_app.reading import Reading

DISC = "Where do the nerve fibres leave the eye as one bundle?"


def carried(package: str, file: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / file


RETINA = carried("skimage", "data/retina.jpg")
BRAIN = carried("nibabel", "tests/data/anatomical.nii")


@pytest.fixture(scope="module")
def pipeline() -> GroundingPipeline:
    return GroundingPipeline(open_reasoner(), load_expert())


@pytest.fixture
def reading(pipeline: GroundingPipeline, tmp_path: Path) -> Reading:
    return Reading(pipeline, tmp_path / "saved")


def test_asks_corrects_and_takes_back(reading: Reading) -> None:
    reading.open(RETINA)
    first = reading.ask(DISC)
    answer = first.grounding.answer
    assert isinstance(answer, GroundingAnswer)
    moved = Box(answer.box.x_min, answer.box.y_min, answer.box.x_max, (answer.box.y_min + answer.box.y_max) / 2)
    second = reading.refine(moved)
    assert second.edited
    assert second.grounding.mask.sum() < first.grounding.mask.sum()
    assert second.grounding.answer.reasoning == answer.reasoning
    assert len(reading.answers) == 1  # corrected, not added
    assert reading.undo()
    assert reading.answer is first
    assert reading.undo()
    assert reading.answer is None
    assert not reading.undo()


def test_a_box_drawn_without_a_question_gets_a_mask_and_no_reasoning(reading: Reading) -> None:
    reading.open(RETINA)
    found = reading.refine(Box(120, 565, 290, 765))
    mask = found.grounding.mask
    assert mask.sum() > 5000  # the optic cup at least, of 100 pixels across
    assert mask[565:765, 120:290].sum() > 0.9 * mask.sum()
    assert found.grounding.answer.reasoning == ""


def test_a_box_drawn_after_absent_does_not_keep_its_reasoning(reading: Reading) -> None:
    reading.open(RETINA)
    reading.show(None)
    absent = reading.ask("Which vertebra is fractured?")
    assert absent.grounding.absent
    drawn = reading.refine(Box(120, 565, 290, 765), (Point(200, 600), Point(200, 700)))
    assert drawn.grounding.answer.reasoning == ""
    assert not drawn.grounding.absent


def test_answers_belong_to_their_slice(reading: Reading) -> None:
    reading.open(BRAIN)
    assert set(reading.axes()) == {"axial", "coronal", "sagittal", "stored"}
    reading.show("axial", 10)
    there = reading.refine(Box(5, 5, 25, 25))
    reading.show("axial", 11)
    assert reading.answer is None
    reading.refine(Box(6, 6, 26, 26))
    reading.go_to(0)
    assert reading.picture is there.picture
    assert reading.answer is there


def test_saves_the_mask_in_the_image_s_own_grid(reading: Reading) -> None:
    reading.open(BRAIN)
    reading.show("coronal", 20)
    reading.refine(Box(5, 5, 25, 25))
    written = reading.save()
    mask, image = open_image(written.mask), open_image(BRAIN)
    assert mask.shape == image.shape
    assert mask.index_to_lps == pytest.approx(image.index_to_lps)
    assert written.result.exists()
    assert written.overlay.exists()


def test_a_wrong_path_leaves_the_open_image(reading: Reading, tmp_path: Path) -> None:
    reading.open(BRAIN)
    with pytest.raises(ImageError, match="there is no file"):
        reading.open(tmp_path / "nowhere.nii")
    assert reading.image is not None
    assert reading.image.path == BRAIN


def test_says_what_is_missing(reading: Reading) -> None:
    with pytest.raises(MedReasonerError, match="no image is open"):
        reading.ask(DISC)
    reading.open(RETINA)
    with pytest.raises(MedReasonerError, match="no answer to save"):
        reading.save()
    with pytest.raises(AnswerError, match="no area"):
        reading.refine(Box(-50, -50, -10, -10))
