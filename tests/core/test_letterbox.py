"""Pictures of any size on a square canvas, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medreasoner.contract.answer import AbsentAnswer, Box, GroundingAnswer, Point
from medreasoner.contract.errors import AnswerError
from medreasoner.picture import Picture
from medreasoner.reasoner.letterbox import Letterbox
from medreasoner.reasoner.local import in_picture

FEW = settings(max_examples=100, deadline=None)
SIZES = st.integers(1, 3000)
PLACES = st.floats(-100, 3000)


@pytest.mark.parametrize(
    ("width", "height", "canvas", "inner"),
    [
        (336, 336, 336, (0, 0, 336, 336)),
        (672, 672, 336, (0, 0, 336, 336)),
        (100, 50, 336, (0, 84, 336, 168)),
        (50, 100, 336, (84, 0, 168, 336)),
        (1, 1, 336, (0, 0, 336, 336)),
        (5000, 1, 336, (0, 167, 336, 1)),
        (3, 2, 10, (0, 1, 10, 7)),
    ],
    ids=["same", "smaller", "wide", "tall", "one pixel", "a line", "odd rest"],
)
def test_the_longer_side_fills_the_canvas(
    width: int, height: int, canvas: int, inner: tuple[int, int, int, int]
) -> None:
    fit = Letterbox.of(width, height, canvas)
    assert (fit.left, fit.top, fit.inner_width, fit.inner_height) == inner
    corner, far = fit.to_canvas(Point(0, 0)), fit.to_canvas(Point(width, height))
    assert (corner.x, corner.y) == inner[:2]
    assert (far.x, far.y) == pytest.approx((inner[0] + inner[2], inner[1] + inner[3]))


@FEW
@given(SIZES, SIZES, st.sampled_from([28, 336, 840]), PLACES, PLACES)
def test_a_point_comes_back_from_the_canvas(width: int, height: int, canvas: int, x: float, y: float) -> None:
    fit = Letterbox.of(width, height, canvas)
    back = fit.to_picture(fit.to_canvas(Point(x, y)))
    assert (back.x, back.y) == pytest.approx((x, y), abs=1e-6, rel=1e-6)


@FEW
@given(SIZES, SIZES, PLACES, PLACES, st.floats(0.5, 500), st.floats(0.5, 500))
def test_a_box_comes_back_from_the_canvas(
    width: int, height: int, x: float, y: float, across: float, down: float
) -> None:
    fit = Letterbox.of(width, height, 336)
    box = Box(x, y, x + across, y + down)
    assert fit.box_to_picture(fit.box_to_canvas(box)).as_list() == pytest.approx(box.as_list(), abs=1e-6, rel=1e-6)


def test_pixels_land_where_points_do() -> None:
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[10:20, 40:50] = 255
    fit = Letterbox.of(60, 30, 120)
    boxed = fit.picture(pixels)
    assert boxed.shape == (120, 120, 3)
    box = fit.box_to_canvas(Box(40, 10, 50, 20))
    assert box == Box(80, 50, 100, 70)
    assert boxed[55:65, 85:95].min() == 255
    assert boxed[:30].max() == boxed[90:].max() == 0, "the borders are black"


def test_a_mask_scales_without_grey() -> None:
    mask = np.zeros((4, 8), bool)
    mask[1:3, 2:5] = True
    boxed = Letterbox.of(8, 4, 16).mask(mask)
    assert boxed.dtype == bool
    expected = np.zeros((16, 16), bool)
    expected[6:10, 4:10] = True
    np.testing.assert_array_equal(boxed, expected)


def test_a_picture_of_the_canvas_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3)).astype(np.uint8)
    np.testing.assert_array_equal(Letterbox.of(28, 28, 28).picture(pixels), pixels)


# An answer on its way from the canvas into the picture


def placed(box: Box, *points: Point) -> GroundingAnswer:
    picture = Picture(np.zeros((50, 100, 3), np.uint8))  # on a canvas of 200: scale 2, 50 black rows above and below
    first, second = points or (Point(100, 100), Point(100, 100))
    answer = in_picture(GroundingAnswer(box, (first, second), "Why."), Letterbox.of(100, 50, 200), picture)
    assert isinstance(answer, GroundingAnswer)
    return answer


def test_an_answer_is_scaled_and_its_points_move_to_pixel_centres() -> None:
    answer = placed(Box(20, 60, 40, 80), Point(21, 61), Point(39, 79))
    assert answer == GroundingAnswer(Box(10, 5, 20, 15), (Point(10.75, 5.75), Point(19.75, 14.75)), "Why.")


def test_a_box_over_the_border_is_cut_to_the_picture() -> None:
    assert placed(Box(0, 0, 200, 200)).box == Box(0, 0, 100, 50)


def test_points_on_the_border_move_into_the_picture() -> None:
    assert placed(Box(0, 60, 40, 80), Point(0, 0), Point(200, 199)).points == (Point(0.5, 0.5), Point(99.5, 49.5))


@pytest.mark.parametrize("box", [Box(0, 0, 200, 50), Box(0, 150, 200, 200), Box(300, 60, 320, 80)])
def test_a_box_on_the_black_border_alone_is_no_answer(box: Box) -> None:
    with pytest.raises(AnswerError, match="no area"):
        placed(box)


def test_absent_stays_absent() -> None:
    picture = Picture(np.zeros((50, 100, 3), np.uint8))
    assert in_picture(AbsentAnswer("No."), Letterbox.of(100, 50, 200), picture) == AbsentAnswer("No.")
