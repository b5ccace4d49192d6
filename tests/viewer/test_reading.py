"""What the viewer does, without a browser: real images, the embedded models."""

from __future__ import annotations

import asyncio
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from medreasoner.contract.answer import Box, GroundingAnswer, Point
from medreasoner.contract.errors import AnswerError, ImageError, MedReasonerError
from medreasoner.expert import load_expert
from medreasoner.imaging import open_image
from medreasoner.picture import Picture
from medreasoner.pipeline import GroundingPipeline
from medreasoner.reasoner.catalogue import open_reasoner
from medreasoner.reasoner.protocol import Reply
from tests.app.plain_models import ABSENT, ToldReasoner
from tests.app.plain_models import pipeline as plain_pipeline
from tests.dicom_files import ROWS, series
from viewer_app.app import ViewerApp
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


def test_a_view_that_is_a_mirror_image_shows_no_answer_of_the_other(tmp_path: Path) -> None:
    """A patient who lay prone: the acquired plane and the radiological view are both called axial."""
    reading = Reading(plain_pipeline(ABSENT), tmp_path)
    reading.open(series(tmp_path / "prone", directions=np.diag([-1.0, -1.0, 1.0])))
    here = reading.refine(Box(2, 3, 9, 7))
    view = reading.show("axial", here.picture.slice_index)
    assert (view.axis, view.slice_index) == (here.picture.axis, here.picture.slice_index)
    assert view.index_of(Point(0, 0)) == pytest.approx(here.picture.index_of(Point(view.width, view.height)), abs=1)
    assert reading.answer is None
    reading.go_to(0)
    assert reading.answer is here


def test_an_answer_is_not_laid_over_an_image_that_was_opened_meanwhile(tmp_path: Path) -> None:
    models = plain_pipeline(ABSENT)
    reading = Reading(models, tmp_path)
    reading.open(series(tmp_path / "before"))
    after = series(tmp_path / "after")

    class Slow(ToldReasoner):
        def answer(self, question: str, picture: Picture) -> Reply:
            reading.open(after)
            return super().answer(question, picture)

    models.reasoner = Slow(ABSENT)
    with pytest.raises(MedReasonerError, match="another image was opened"):
        reading.ask(DISC)
    assert reading.answers == []
    assert reading.image is not None
    assert reading.image.path == after


def test_turning_pages_keeps_the_plane_that_was_acquired(tmp_path: Path) -> None:
    """It is oblique, a view that cannot be asked for by name."""
    half = np.sqrt(0.5)
    reading = Reading(plain_pipeline(ABSENT), tmp_path)
    reading.open(series(tmp_path / "oblique", directions=np.array([[1, 0, 0], [0, half, -half], [0, half, half]])))
    app = ViewerApp(reading)
    app.show_opened()
    assert app.state.axis == "oblique"
    app.on_view("oblique", 1, 0, 400)
    assert app.state.error == ""
    assert reading.picture is not None
    assert (reading.picture.slice_index, reading.picture.height) == (1, round(ROWS * 0.8 / 0.6))
    assert reading.picture.window == (0, 400)  # a centre of 0 is one
    app.on_view("coronal", 1, "", 400)
    assert reading.picture.axis == "coronal"
    assert reading.picture.window != (0, 400)


def test_going_back_to_an_answer_brings_its_window_back(tmp_path: Path) -> None:
    reading = Reading(plain_pipeline(ABSENT), tmp_path)
    reading.open(series(tmp_path / "ct"))
    app = ViewerApp(reading)
    app.show_opened()

    def choose(**fields: float | str) -> None:
        """As typed on the page, which then tells all that the view depends on."""
        app.state.update(fields)
        app.on_view(*(app.state[name] for name in ("axis", "slice_index", "window_centre", "window_width")))

    def fields() -> tuple[float | None, float | None]:
        return app.state.window_centre, app.state.window_width

    own = reading.ask("Where is the liver?").picture.window
    choose(window_centre=55, window_width="350")
    there = reading.ask("Where is the cyst?")
    choose(window_centre="", window_width="")
    assert reading.picture.window == own
    app.go_to(1)
    assert fields() == (55, 350)
    assert reading.picture is there.picture
    choose(slice_index=1)
    assert reading.picture.window == (55, 350)
    app.go_to(0)
    assert fields() == (None, None)
    choose(window_centre=50)  # half of one: the field keeps it until the other half comes
    assert (fields(), reading.picture.window) == ((50, None), own)


def test_a_box_that_cannot_be_used_leaves_the_answer_on_the_page(tmp_path: Path) -> None:
    """As a click makes it; the page clears points and mask when drawing begins."""
    reading = Reading(plain_pipeline(ABSENT), tmp_path)
    reading.open(RETINA)
    app = ViewerApp(reading)
    app.show_opened()
    asyncio.run(app.refine([10, 10, 60, 60], []))
    shown = [app.state[name] for name in ("box", "points", "mask")]
    assert all(shown)
    app.state.update({"box": [5, 5, 5, 5], "points": [], "mask": ""})
    asyncio.run(app.refine([5, 5, 5, 5], []))
    assert "no area" in app.state.error
    assert [app.state[name] for name in ("box", "points", "mask")] == shown


def test_saves_the_mask_in_the_image_s_own_grid(reading: Reading) -> None:
    reading.open(BRAIN)
    reading.show("coronal", 20)
    reading.refine(Box(5, 5, 25, 25))
    written = reading.save()
    assert json.loads(written.result.read_text())["attempts"] == 0  # no reasoner looked
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
