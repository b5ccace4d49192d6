"""Rewards: what each answer earns, what no answer can break, and the published code's own numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import filters, measure

from medreasoner.contract.answer import Box, Point, parse_answer
from medreasoner.contract.errors import AnswerError, MedReasonerError
from medreasoner.expert import load_expert
from medreasoner.picture import Picture
from rl_training import rewards
from rl_training.rewards import REWARDS, combine, masks_from

FEW = settings(max_examples=80, deadline=None)
BOX, POINTS = [445, 136, 708, 729], [[534, 273], [595, 455]]  # the published example: 263 x 593, diagonal 648.704
GEOMETRY = ("box_iou", "box_align", "box_scale", "point_dice", "point_align", "point_angle")
TOP = dict.fromkeys(GEOMETRY, 1.0) | {"format_reward": 2, "paper_soft": 4, "paper_hard": 8, "base": 5}
TOP |= {"seed_soft": 4, "seed_hard": 8, "mask_dice": 1, "absent": 1, "brevity": 1}
STRICT = sorted(REWARDS.keys() - {"seed_soft", "seed_hard"})
ABSENT = '<think>No mass.</think><answer>{"absent": true}</answer>'
PICTURE = Picture(np.zeros((840, 840, 3), np.uint8))
MASK = np.zeros((840, 840), bool)
MASK[136:729, 445:708] = True


def fill(_: Picture, box: Box, points: tuple[Point, Point]) -> np.ndarray:
    """Stand in for an expert: everything in the box."""
    mask = np.zeros((840, 840), bool)
    mask[round(box.y_min) : round(box.y_max), round(box.x_min) : round(box.x_max)] = len(points) == 2
    return mask


def text(box: Any = BOX, points: Any = POINTS, think: str = "The left lung.") -> str:
    answer = json.dumps({"bbox": box, "points_1": points[0], "points_2": points[1]})
    return f"<think>{think}</think><answer>{answer}</answer>"


def earns(name: str, *texts: str, present: bool = True, **columns: Any) -> Any:
    rows = len(texts)
    row = {"box": BOX, "points": POINTS, "mask": MASK} if present else dict.fromkeys(("box", "points", "mask"))
    given_ = {key: [value] * rows for key, value in row.items()} | {
        "picture": [PICTURE] * rows,
        "prompts": ["?"] * rows,
    }
    given_ |= {"completion_ids": [[0] * 50] * rows, "expert": fill} | columns
    scores = REWARDS[name]([[{"role": "assistant", "content": t}] for t in texts], **given_)
    assert all(type(s) is float and math.isfinite(s) and 0 <= s <= TOP[name] + 1e-9 for s in scores)
    return scores[0] if rows == 1 else scores


# --- every reward


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_the_exact_answer_earns_the_top_of_the_range(name: str) -> None:
    exact = ABSENT if name == "absent" else text()
    assert earns(name, exact, present=name != "absent") == pytest.approx(TOP[name], abs=2e-4)


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_plain_strings_and_chat_turns_earn_the_same(name: str) -> None:
    columns = {"box": [BOX], "points": [POINTS], "mask": [MASK], "picture": [PICTURE], "completion_ids": [[0]]}
    assert REWARDS[name]([text()], **columns, expert=fill) == [earns(name, text())]


MALFORMED = [  # (text, why it is malformed)
    ("", "nothing"),
    ("A long excuse.", "no blocks"),
    ("<think>a</think><answer>{}</answer>", "no keys"),
    ("<answer>" + text().split("<answer>")[1], "no think block"),
    (text() + text(), "the whole twice"),
    (text() + "<answer>{}</answer>", "a second answer"),
    ("<think>a</think>" + text(), "two think blocks"),
    (text(think=text()), "an answer inside the reasoning"),
    (f"<think>{text().split('</think>')[1]}</think>", "the answer only inside the reasoning"),
    (text() + " So there.", "text after the answer"),
    (text().replace('"', "'"), "single quotes are not JSON"),
    (text().replace('"points_2"', '"bbox"'), "a key twice"),
    (text().replace("}", ', "sure": 1}'), "a key too many"),
    (text([708, 729, 445, 136]), "box inverted on both sides"),
    (text([708, 136, 445, 729]), "box inverted on one side"),
    (text([445, 136, 445, 729]), "box without width"),
    (text([445, 136, 708]), "three numbers"),
    (text("445,136,708,729"), "a string"),
    (text(None), "null"),
    (text([float("nan"), 136, 708, 729]), "NaN in the box"),
    (text(points=[[float("nan"), 1], [2, 3]]), "NaN in a point"),
    (text([445, 136, float("inf"), 729]), "infinity"),
    (text([445, 136, 10**400, 729]), "an integer beyond floats"),
    (text([445, 136, 1e308, 1e308]), "beyond any picture"),
    (text().replace("445", "4" * 5000), "more digits than Python reads"),
    (text([True, False, 708, 729]), "booleans are integers in Python"),
    (text([[445, 136, 708, 729]]), "box in a list"),
    (text(points=[[[1, 2]], [3, 4]]), "point in a list"),
    (text(points=[[1], [3, 4]]), "half a point"),
    (text(points=[["a", "b"], [3, 4]]), "letters for numbers"),
    (text().replace("[445", "[" * 100_000), "100,000 open brackets"),
    (text().replace("[445, 136, 708, 729]", "[" * 400 + "]" * 400), "400 nested brackets"),
    ("<think>" * 20_000, "20,000 openings"),
    ("\x00\ud800" + text(), "a lone surrogate in front"),
]


@pytest.mark.parametrize(("bad", "why"), MALFORMED, ids=[why for _, why in MALFORMED])
def test_malformed_answers_earn_nothing(bad: str, why: str) -> None:
    for name in STRICT:
        assert earns(name, bad) == earns(name, bad, present=False) == 0.0, f"{name}: {why}"


@pytest.mark.parametrize("name", ["seed_soft", "seed_hard"])
def test_malformed_answers_never_break_the_seed_modes(name: str) -> None:
    earns(name, *(bad for bad, _ in MALFORMED))  # checks finite and in range


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_no_depth_of_brackets_raises(name: str) -> None:
    deep = ["[" * n + "]" * n for n in range(700, 1100, 3)]
    earns(name, *(text().replace("[445, 136, 708, 729]", d) for d in deep))


@pytest.mark.parametrize("completion", [[], [{}], [{"content": None}], [{"content": [{"type": "text"}]}]])
@pytest.mark.parametrize("name", sorted(REWARDS))
def test_a_completion_without_text_earns_nothing(name: str, completion: Any) -> None:
    columns = {"box": [BOX], "points": [POINTS], "mask": [MASK], "picture": [PICTURE], "completion_ids": [[]]}
    assert REWARDS[name]([completion], **columns, expert=fill) == [0.0]


NUMBERS = st.floats(allow_nan=True) | st.integers() | st.sampled_from([0, 5e-324, 1e-300, -1e9 + 1, 1e9 - 1, True])
LISTS = st.lists(NUMBERS, min_size=1, max_size=5)


@FEW
@given(LISTS, LISTS, LISTS, st.text(max_size=8))
def test_any_numbers_stay_in_range(box: list[float], one: list[float], two: list[float], think: str) -> None:
    for name in REWARDS:
        earns(name, text(box, [one, two], think))


TAGS = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<",
    "thi",
    "nk>",
    " ",
    "a kidney on the left side",
    '{"absent": true}',
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=9).map("".join))
def test_shortening_the_reasoning_changes_no_verdict(answer: str) -> None:
    for whole in (
        answer,
        answer + ABSENT,
        "<think>" + answer + '</think><answer>{"absent": true}</answer>',
        answer + text(),
    ):
        try:
            wanted = 1.0 + bool(parse_answer(whole).reasoning)
        except AnswerError:
            wanted = 0.0
        assert earns("format_reward", whole) == wanted


# --- the paper's terms

SIDE = st.integers(0, 839)
PAIR = st.tuples(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE))
BOXES = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], SIDE, SIDE, st.integers(1, 600), st.integers(1, 600))


@FEW
@given(BOXES, PAIR)
def test_the_order_of_points_does_not_matter(box: list[int], pair: tuple[Any, Any]) -> None:
    for name in REWARDS:
        straight, swapped = earns(name, text(box, pair), text(box, pair[::-1]))
        assert straight == pytest.approx(swapped, abs=1e-9)


@FEW
@given(st.lists(st.integers(0, 800), min_size=2, max_size=6), st.sampled_from([(1, 0), (0, 1), (-1, 0), (1, 1)]))
def test_rewards_fall_as_box_and_points_move_away(steps: list[int], way: tuple[int, int]) -> None:
    def moved(step: int) -> str:
        dx, dy = step * way[0], step * way[1]
        box = [BOX[0] + dx, BOX[1] + dy, BOX[2] + dx, BOX[3] + dy]
        return text(box, [[x + dx, y + dy] for x, y in POINTS])

    for name in ("box_iou", "box_align", "point_dice", "point_align", "paper_soft", "paper_hard", "base"):
        scores = earns(name, *(moved(step) for step in sorted(steps)))
        assert all(near >= far - 1e-12 for near, far in pairwise(scores))


def test_box_terms_by_hand() -> None:
    half = text([445, 136, 708, 432.5])  # the upper half: IoU 1/2; holds point 1 only; area exactly half is invalid
    weight = 0.7 + 0.3 * (0.5 + 0.5) / 2  # 0.85
    assert earns("box_iou", half) == pytest.approx(math.log(2.5) / math.log(4) * weight)
    logistic = [1 / (1 + math.exp(3 * (v - 1))) for v in (296.5 / 4 / math.hypot(263, 593), 0, 2)]
    assert earns("box_align", half) == pytest.approx((logistic[0] - logistic[2]) / (logistic[1] - logistic[2]) * weight)
    distance = math.sqrt(2) * math.log(2)  # ln area and ln aspect both differ by ln 2: 0.980
    logistic = [1 / (1 + math.exp(3 * (v - 0.5))) for v in (distance, 0, 1)]
    assert earns("box_scale", half) == pytest.approx((logistic[0] - logistic[2]) / (logistic[1] - logistic[2]) * weight)


def test_point_terms_by_hand() -> None:
    across = text(points=[[534, 273], [534, 455]])  # a vertical pair of 182 px; true: (61, 182), 191.95 px long
    assert earns("point_angle", across) == pytest.approx(math.log(1 + 3 * 182 / math.hypot(61, 182)) / math.log(4))
    inside = text(points=[[549.25, 318.5], [579.75, 409.5]])  # the middle half of the pair: a disc of 1/4 the area
    assert earns("point_dice", inside) == pytest.approx(math.log(1 + 3 * 2 * 0.25 / 1.25) / math.log(4))
    # L1 off: 15.25 + 45.5 at both ends, over two coordinates
    logistic = [1 / (1 + math.exp(3 * (v - 1))) for v in (60.75 / 2 / math.hypot(263, 593), 0, 2)]
    assert earns("point_align", inside) == pytest.approx((logistic[0] - logistic[2]) / (logistic[1] - logistic[2]))


@pytest.mark.parametrize(("times", "weight"), [(0.49, 0.85), (0.6, 1), (1.9, 1), (2.1, 0.925)])
def test_area_off_by_a_factor_of_two_costs(times: float, weight: float) -> None:
    """The right edge moves; at 0.49 the second point is lost too: 0.7 + 0.3 (0.5 + 0.5) / 2."""
    iou = min(times, 1 / times)
    score = earns("box_iou", text([445, 136, 445 + 263 * times, 729]))
    assert score == pytest.approx(math.log(1 + 3 * iou) / math.log(4) * weight)


@pytest.mark.parametrize(("share", "weight"), [(0.45, 0.925), (0.55, 1)])
def test_points_closer_than_half_their_true_distance_cost(share: float, weight: float) -> None:
    dx, dy = 61 * share / 2, 182 * share / 2  # about the middle of the true pair, (564.5, 364)
    score = earns("point_dice", text(points=[[564.5 - dx, 364 - dy], [564.5 + dx, 364 + dy]]))
    assert score == pytest.approx(math.log(1 + 6 * share**2 / (1 + share**2)) / math.log(4) * weight)


@pytest.mark.parametrize(("apart", "weight"), [(10, 0.925), (11, 1)])
def test_seed_wants_points_more_than_ten_pixels_apart(apart: int, weight: float) -> None:
    points = [[564.5 - apart / 2, 364], [564.5 + apart / 2, 364]]  # a small disc in the true one, 191.95 px across
    pdice = 2 * apart**2 / (61**2 + 182**2)
    assert earns("seed_soft", text(points=points)) == pytest.approx(3 + log_by_hand(pdice) * weight, abs=1e-4)


def test_paper_modes_give_nothing_for_missing_the_target() -> None:
    miss = text([10, 10, 60, 60], [[20, 20], [40, 40]])
    assert earns("paper_soft", miss) == 2.0
    assert earns("box_iou", miss) == earns("point_dice", miss) == earns("box_scale", miss) == 0.0


def test_compositions_are_their_parts() -> None:
    some = text([400, 150, 690, 600], [[500, 300], [600, 400]])
    parts = {name: earns(name, some) for name in ("format_reward", *GEOMETRY)}
    assert earns("paper_hard", some) == pytest.approx(sum(parts.values()))
    assert earns("paper_soft", some) == pytest.approx(2 + parts["box_iou"] + parts["point_dice"])


@pytest.mark.parametrize(
    ("box", "points", "side", "expected", "why"),
    [
        (BOX, POINTS, 840, 5, "exact"),
        ([454, 145, 717, 738], POINTS, 840, 5, "9 px off on each edge"),
        ([455, 146, 718, 739], POINTS, 840, 4, "10 px off on each edge"),
        ([454, 145, 717, 738], POINTS, 420, 4, "9 px of 420 are 18 of 840"),
        ([445, 136, 708, 432.5], [[534, 273], [595, 430]], 840, 3, "IoU of exactly one half, edges 74 px off"),
        (BOX, [[534, 273], [595, 760]], 840, 4, "a point outside the answered box"),
        (BOX, [[534, 373], [595, 555]], 840, 4, "points 100 px off"),
        (BOX, [[534, 372], [595, 554]], 840, 5, "points 99 px off"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_thresholds_of_base_fire(box: Any, points: Any, side: int, expected: int, why: str) -> None:
    assert earns("base", text(box, points), side=[side]) == expected, why


def test_empty_reasoning_earns_half_the_format() -> None:
    assert earns("format_reward", text(think=" "), text(), ABSENT) == [1.0, 2.0, 2.0]


# --- the published code's numbers (facts/medreasoner.md 2b and 2d), each by hand arithmetic


def log_by_hand(v: float) -> float:
    return 0.9 * math.log(3 * v + 1) / math.log(4) + 0.1


@pytest.mark.parametrize(("v", "expected"), [(0, 0.1), (0.25, 0.463), (0.5, 0.695), (0.75, 0.865), (1, 1), (2, 1.363)])
def test_seed_smooth_log(v: float, expected: float) -> None:
    """Seen through an answer where it can be: boxes of the true width, a share v of the height, top-aligned."""
    assert log_by_hand(v) == pytest.approx(expected, abs=6e-4)
    if 0 < v < 1:
        both = 136 + 593 * v > 455  # the second point's y; the area counts above a half
        multiplier = 0.7 + 0.15 * ((1 if both else 0.5 if v * 593 > 137 else 0.25) + (1 if v > 0.5 else 0.5))
        score = earns("seed_soft", text([445, 136, 708, 136 + 593 * v], POINTS)) - 3
        assert score == pytest.approx(expected * multiplier, abs=6e-4)


@pytest.mark.parametrize(
    ("v", "centre", "expected"),
    [
        (0, 1, 1),
        (0.5, 1, 0.866),
        (1, 1, 0.55),
        (1.5, 1, 0.234),
        (2, 1, 0.1),
        (0.25, 0.5, 0.846),
        (0.5, 0.5, 0.646),
        (1, 0.5, 0.291),
        (2, 0.5, 0.1),
    ],
)
def test_seed_smooth_exp(v: float, centre: float, expected: float) -> None:
    from rl_training.rewards.published import _smooth_exp

    assert _smooth_exp(v, centre) == pytest.approx(expected, abs=6e-4)


SEED = [  # text, soft, hard, why; the hand arithmetic stands behind each
    (text(), 4, 8, "exact: every term 1"),
    (text(points=POINTS[::-1]), 4, 8, "points swapped: order is free"),
    # iou 0.1 * 0.8125 = 0.0813 (two points out, area off), pdice 0.1 * 0.8875 = 0.0888 (two points out, far enough)
    # edges off 469.5 / 648.7 = 0.724 -> 0.745 * 0.8125 = 0.605; scale 0.291 * 0.8125 = 0.237;
    # points off 434.25 / 648.7 = 0.669 -> 0.778 * 0.8875 = 0.691; |cos| 243 / (191.95 * 1.4142) -> 0.840
    (text([10, 10, 60, 60], [[20, 20], [40, 40]]), 2.17, 4.543, "box and points miss: floors"),
    # iou 0.0813; edges off (263 + 593) / 2 / 648.7 = 0.660 -> 0.784 * 0.8125 = 0.637; scale 1 * 0.8125
    (text([708, 729, 445, 136]), 3.081, 6.531, "inverted on both sides: width times height is positive"),
    (text([445, 136, 445, 729]), 3.081, 5.0, "no width: hard raises and loses all box terms, soft does not"),
    # smooth_log(2 J) is above 1 and clipped: the point term is 1 though a point is 61 px off
    # L1 61 / 4 / 648.7 = 0.0235 -> 0.9967; |cos| 182 / 191.95 = 0.9482 -> 0.9743; the other six marks are full
    (text(points=[[534, 273], [534, 455]]), 4, 7.971, "half-wrong points: pDice over the union is clipped at 1"),
    (text().replace('"', "'"), 4, 8, "single quotes are turned into double ones"),
    (text(think=text().split("</think>")[1]), 4, 8, "the answer inside the reasoning"),
    (text() + "tail" + text([0, 0, 1, 1]), 4, 8, "first match wins, whatever follows"),
    (text([float("nan"), 136, 708, 729]), 0, 0, "NaN: ours 0, theirs NaN"),
    (text(think=" "), 3.2, 7.2, "empty reasoning earns 0.2"),
    ("", 0, 0, "nothing"),
    ("<think>a</think>", 1, 1, "no answer"),
    ("<think>a</think><answer>left lung</answer>", 1.2, 1.2, "not JSON"),
    ("<think>a</think><answer>[1]</answer>", 1.2, 1.2, "JSON, but no object"),
    ("<think>a</think><answer>{}</answer>", 1.4, 1.4, "keys missing"),
    (text([1, 2], [[1], [2]]), 1.4, 1.4, "both malformed"),
    (text([1, 2, 3]), 2.6, 4.6, "box malformed, points exact"),
    (text(points=[[1], [2]]), 2.6, 4.6, "points malformed, box exact"),
]


@pytest.mark.parametrize(("answer", "soft", "hard", "why"), SEED, ids=[why for *_, why in SEED])
def test_seed_modes_give_the_published_numbers(answer: str, soft: float, hard: float, why: str) -> None:
    assert earns("seed_soft", answer) == pytest.approx(soft, abs=1e-3), why
    assert earns("seed_hard", answer) == pytest.approx(hard, abs=1.5e-3), why


def test_seed_saturates_where_ours_still_climbs() -> None:
    near, exact = text(points=[[534, 273], [534, 455]]), text()
    assert earns("seed_soft", near) == earns("seed_soft", exact)
    assert earns("paper_soft", near) < earns("paper_soft", exact) - 0.05


# --- beyond the paper


def test_mask_dice_by_hand_and_without_asking_in_vain() -> None:
    asked = []

    def noted(picture: Picture, box: Box, points: tuple[Point, Point]) -> np.ndarray:
        asked.append((box, points))
        return fill(picture, box, points)

    assert earns("mask_dice", text([445, 136, 708, 432.5]), expert=noted) == pytest.approx(2 / 3, abs=2e-3)
    assert earns("mask_dice", text([445, -50, 708, 729], [[-5, 9999], [1, 1]]), expert=noted) > 0.8
    assert asked[-1] == (Box(445, 0, 708, 729), (Point(0.5, 839.5), Point(1, 1)))
    told = len(asked)
    assert earns("mask_dice", text([900, 900, 990, 990]), ABSENT, "", expert=noted) == [0, 0, 0]
    assert earns("mask_dice", text(), present=False, expert=noted) == 0
    assert len(asked) == told
    with pytest.raises(MedReasonerError, match="840 x 840"):
        earns("mask_dice", text(), mask=[np.ones((4, 4))])


def test_mask_dice_with_the_real_expert() -> None:
    coins = skimage.io.imread(Path(skimage.__file__).parent / "data" / "coins.png")
    picture = Picture(np.repeat(coins[..., None], 3, axis=2))
    regions = measure.regionprops(measure.label(coins > filters.threshold_otsu(coins)))
    region = max(
        (r for r in regions if r.solidity > 0.95), key=lambda r: r.area
    )  # a whole coin, free of its neighbours
    coin = np.zeros(coins.shape, bool)
    coin[region.slice] = region.image_filled
    top, left, bottom, right = region.bbox
    points = [[left + 15, top + 15], [right - 15, bottom - 15]]
    answers = [text([left, top, right, bottom], points), text([0, 250, 40, 300], points)]
    on, off = rewards.mask_dice(answers, [picture] * 2, [coin] * 2, expert=masks_from(load_expert("litemedsam")))
    assert on > 0.9
    assert off < 0.1


def test_points_go_only_to_an_expert_that_takes_them() -> None:
    @dataclass
    class Recorder:
        takes: frozenset[str]
        given: Any = None

        def set_picture(self, picture: Picture) -> None:
            self.picture = picture

        def segment(self, box: Box, points: Any = ()) -> Any:
            self.given = points
            return type("Found", (), {"mask": fill(self.picture, box, (Point(0, 0),) * 2)})

    for takes, count in ((frozenset({"box"}), 0), (frozenset({"box", "points"}), 2)):
        recorder: Any = Recorder(takes)
        assert earns("mask_dice", text(), expert=masks_from(recorder)) == 1
        assert len(recorder.given) == count


@pytest.mark.parametrize(
    ("answer", "present", "expected", "why"),
    [
        (ABSENT, False, 1, "rightly absent"),
        (ABSENT, True, 0, "wrongly absent"),
        (text(), False, 0, "a box around nothing"),
        (text(), True, 0, "the box terms judge it"),
        (ABSENT.replace("true", "1"), False, 0, "1 is not true"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value and "<" not in value else None,
)
def test_absent(answer: str, present: bool, expected: int, why: str) -> None:
    assert earns("absent", answer, present=present) == expected, why


def test_an_absent_target_leaves_only_the_format() -> None:
    for name in (*GEOMETRY, "mask_dice"):
        assert earns(name, text(), present=False) == earns(name, ABSENT) == 0
    for name in ("paper_soft", "paper_hard", "base"):
        assert earns(name, text(), present=False) == earns(name, ABSENT) == 2


@pytest.mark.parametrize(("tokens", "expected"), [(0, 1), (128, 1), (320, 0.5), (512, 0), (4000, 0)])
def test_brevity_falls_between_its_two_lengths(tokens: int, expected: float) -> None:
    assert earns("brevity", text(), completion_ids=[[7] * tokens]) == expected


# --- combination and bad rows


def test_combine_weighs_and_passes_settings_on() -> None:
    reward = combine(["paper_soft", "mask_dice", "brevity"], [1, 2, -0.5], expert=fill, limit_tokens=256)
    row = {"box": [BOX], "points": [POINTS], "mask": [MASK], "picture": [PICTURE], "completion_ids": [[0] * 192]}
    assert reward(completions=[text()], prompts=["?"], **row) == [pytest.approx(4 + 2 - 0.25)]
    assert reward.__name__ == "paper_soft+2*mask_dice+-0.5*brevity"


@pytest.mark.parametrize(
    ("names", "weights", "more", "says"),
    [
        (["paper"], [1], {}, "paper_soft"),
        ([], [], {}, "none is"),
        (["absent", "absent"], [1, 1], {}, "twice"),
        (["absent"], [1, 1], {}, "one finite weight"),
        (["absent"], [float("nan")], {}, "one finite weight"),
        (["absent"], [1], {"limits": 3}, "limits"),
        (["mask_dice"], [1], {}, "no expert"),
    ],
)
def test_combine_says_what_is_wrong(names: Any, weights: Any, more: Any, says: str) -> None:
    with pytest.raises(MedReasonerError, match=says):
        combine(names, weights, **more)


@pytest.mark.parametrize(
    ("box", "points"),
    [
        (None, POINTS),
        (BOX, None),
        ([1, 2, 3], POINTS),
        ([9, 9, 1, 1], POINTS),
        ([1, 2, float("nan"), 4], POINTS),
        ([1, 2, 1 + 1e-12, 4], POINTS),
        (BOX, [[1, 2]]),
        (BOX, [[1, float("inf")], [1, 2]]),
    ],
)
def test_an_unusable_row_is_named(box: Any, points: Any) -> None:
    with pytest.raises(MedReasonerError, match="row 1 of the batch"):
        rewards.paper_soft([text()] * 2, [BOX, box], [POINTS, points])


def test_brevity_needs_room_to_fall() -> None:
    with pytest.raises(MedReasonerError, match="below"):
        rewards.brevity([text()], [[1]], free_tokens=9, limit_tokens=9)
