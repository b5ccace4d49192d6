"""Image, mask, box and points move together; the oracle is the mask that comes out, or an ellipse's own equation."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medreasoner.evaluation.questions import Entry
from rl_training.dataset import Collection, Example
from rl_training.dataset.augmentation import grey_levels, in_memory, on_disk, training_chain, validation_chain
from rl_training.dataset.loading import LoadExample, Numbersd, bounds, centres, mapped, outline_of
from rl_training.dataset.placing import box_of, place_of
from rl_training.dataset.transforms import (
    MIN_KEPT,
    RandAffineTargetd,
    RandCropTargetd,
    RandFlipTargetd,
    may_flip,
    move,
)
from tests.collection import make_collection

SIDE = 96
EYE = torch.eye(3, dtype=torch.float64)
TOLERANCE = 2.0  # pixels: nearest-neighbour sampling may miss the tips of an outline, half a pixel per step and side
ellipses = st.tuples(
    st.floats(30, 66), st.floats(30, 66), st.floats(6, 20), st.floats(6, 20), st.floats(0, math.pi)
)  # centre x and y, half axes, turn
some = settings(deadline=None, max_examples=40)  # about 10 ms each
seeds = st.integers(0, 2**31 - 1)


def affine(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([*rows, [0, 0, 1]], dtype=torch.float64)


def ellipse(x: float, y: float, across: float, down: float, turn: float) -> NDArray[np.bool_]:
    ys, xs = np.mgrid[:SIDE, :SIDE] + 0.5
    along = (xs - x) * math.cos(turn) + (ys - y) * math.sin(turn)
    aside = (ys - y) * math.cos(turn) - (xs - x) * math.sin(turn)
    return np.asarray((along / across) ** 2 + (aside / down) ** 2 <= 1)


def data_of(mask: NDArray[np.bool_], **more: Any) -> dict[str, Any]:
    """Make the dictionary of a picture that is white where its mask is."""
    place = place_of(mask)
    data = {
        "image": torch.from_numpy(mask).float()[None].repeat(3, 1, 1),
        "mask": torch.from_numpy(mask).float()[None],
        "absent": place is None,
        "outline": outline_of(mask),
        "moved": EYE,
        "kind": "blood smear",
        "laterality": "",
        "target": "white blood cell",
        "question": "Which cell fights infection?",
        **more,
    }
    if place is not None:
        data |= {"box": bounds(data["outline"]), "points": centres(place[1])}
    return data


def assert_consistent(moved: dict[str, Any], tolerance: float = TOLERANCE) -> None:
    """Recompute the box from the moved mask, and look under the points."""
    mask = moved["mask"][0].numpy() > 0
    box = box_of(mask)
    assert box is not None
    assert np.abs(moved["box"].numpy() - box.as_list()).max() <= tolerance
    ys, xs = np.nonzero(mask)
    for x, y in moved["points"].tolist():
        assert np.hypot(xs + 0.5 - x, ys + 0.5 - y).min() <= tolerance
    shown = moved["image"].mean(0).numpy() > 0.5
    assert (shown & mask).sum() / (shown | mask).sum() > 0.8, "the picture went where the mask went"


@given(ellipses)
@some
def test_the_identity_changes_nothing(shape: tuple[float, ...]) -> None:
    data = data_of(ellipse(*shape))
    moved = move(data, EYE)
    assert torch.equal(moved["mask"], data["mask"])
    assert torch.allclose(moved["image"], data["image"], atol=1e-5)
    assert moved["box"].tolist() == data["box"].tolist()
    assert moved["points"].tolist() == data["points"].tolist()


@given(ellipses)
@some
def test_the_outline_has_the_half_open_box_of_the_mask(shape: tuple[float, ...]) -> None:
    mask = ellipse(*shape)
    rows, columns = np.nonzero(mask)
    tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert bounds(outline_of(mask)).tolist() == tight
    box = box_of(mask)
    assert box is not None and box.as_list() == tight


@pytest.mark.parametrize(
    ("matrix", "how"),
    [
        (affine([[-1, 0, SIDE], [0, 1, 0]]), lambda m: m[:, ::-1]),
        (affine([[1, 0, 0], [0, -1, SIDE]]), lambda m: m[::-1]),
        (affine([[0, 1, 0], [-1, 0, SIDE]]), lambda m: np.rot90(m)),
        (affine([[1, 0, 7], [0, 1, -5]]), lambda m: np.roll(m, (-5, 7), (0, 1))),
    ],
    ids=["mirrored", "upside down", "quarter turn", "shifted"],
)
@given(shape=ellipses)
@some
def test_whole_pixel_moves_are_exact(matrix: torch.Tensor, how: Any, shape: tuple[float, ...]) -> None:
    mask = ellipse(*shape)
    moved = move(data_of(mask), matrix)
    assert np.array_equal(moved["mask"][0].numpy() > 0, how(mask)), "numpy's own flips are the oracle"
    assert_consistent(moved, tolerance=0.5)
    numbers = Numbersd()(moved)
    box = box_of(how(mask))
    assert box is not None and numbers["box"].tolist() == box.as_list()
    assert numbers["points"].tolist() == moved["points"].floor().tolist(), "no point had to be put back on the mask"


@given(ellipses, seeds)
@some
def test_an_affine_move_agrees_with_the_warped_mask(shape: tuple[float, ...], seed: int) -> None:
    moved = RandAffineTargetd(prob=1).set_random_state(seed)(data_of(ellipse(*shape)))
    assert_consistent(moved)


@given(ellipses, seeds)
@some
def test_a_moved_ellipse_has_the_box_of_its_equation(shape: tuple[float, ...], seed: int) -> None:
    data = data_of(ellipse(*shape))
    moved = RandAffineTargetd(prob=1, shift=0).set_random_state(seed)(data)
    x, y, across, down, turn = shape
    axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) @ np.diag([across, down])
    matrix = moved["moved"]
    half = np.linalg.norm(matrix[:2, :2].numpy() @ axes, axis=1)  # half widths of the box of an ellipse
    middle = mapped(matrix, torch.tensor([[x, y]], dtype=torch.float64))[0].numpy()
    if (middle - half > 0).all() and (middle + half < SIDE).all():
        expected = np.concatenate([middle - half, middle + half])
        assert np.abs(moved["box"].numpy() - expected).max() <= TOLERANCE, (
            "pixels stand out of the ellipse by one at most"
        )


@given(ellipses, seeds)
@some
def test_a_crop_holds_the_whole_target_and_agrees_with_the_mask(shape: tuple[float, ...], seed: int) -> None:
    data = data_of(ellipse(*shape))
    moved = RandCropTargetd(prob=1).set_random_state(seed)(data)
    assert_consistent(moved)
    assert bounds(moved["outline"]).min() >= -1e-9 and bounds(moved["outline"]).max() <= SIDE + 1e-9
    enlarged = float(torch.linalg.det(moved["moved"][:2, :2]))
    assert 1 <= enlarged <= (1 / 0.6) ** 2 + 1e-9
    assert float(moved["mask"].sum()) == pytest.approx(float(data["mask"].sum()) * enlarged, rel=0.12)


@given(ellipses, seeds)
@some
def test_the_inverse_brings_box_and_points_back(shape: tuple[float, ...], seed: int) -> None:
    data = data_of(ellipse(*shape))
    moved = RandAffineTargetd(prob=1, shift=0.05).set_random_state(seed)(data)
    back = torch.linalg.inv(moved["moved"])
    if torch.equal(mapped(moved["moved"], data["outline"]), moved["outline"]):  # not cut by the border
        assert torch.allclose(mapped(back, moved["points"]), data["points"], atol=1e-9)
        assert torch.allclose(bounds(mapped(back, moved["outline"])), data["box"], atol=1e-9)
        again = move(moved, back)["mask"][0] > 0
        both = (again & (data["mask"][0] > 0)).sum() / (again | (data["mask"][0] > 0)).sum()
        assert both > 0.8, "sampled twice"


def test_a_target_cut_by_the_border_is_read_again_from_what_is_left() -> None:
    mask = ellipse(48, 48, 15, 15, 0)
    shifted = affine([[1, 0, 40], [0, 1, 0]])
    moved = move(data_of(mask), shifted)
    assert 0.65 < float(moved["mask"].sum()) / mask.sum() < 0.9
    place = place_of(moved["mask"][0].numpy() > 0)
    assert place is not None and moved["box"].tolist() == place[0].as_list()
    assert moved["points"].tolist() == [[p.x + 0.5, p.y + 0.5] for p in place[1]]


@pytest.mark.parametrize(
    "matrix",
    [
        affine([[1, 0, 55], [0, 1, 0]]),
        affine([[1, 0, 500], [0, 1, 0]]),
        affine([[0.01, 0, 48.2], [0, 0.01, 48.2]]),
    ],
    ids=["less than MIN_KEPT is left", "nothing is left", "smaller than a pixel"],
)
def test_a_move_that_loses_the_target_is_refused(matrix: torch.Tensor) -> None:
    data = data_of(ellipse(48, 48, 15, 15, 0))
    assert 0 < MIN_KEPT < 1
    moved = move(data, matrix)
    assert torch.equal(moved["mask"], data["mask"]) and moved["box"].tolist() == data["box"].tolist()
    assert torch.equal(moved["moved"], EYE)


def test_without_a_mask_the_box_moves_by_its_corners_and_is_never_cut() -> None:
    data = data_of(ellipse(48, 48, 15, 10, 0))
    del data["mask"]
    corners = data["outline"] = torch.tensor([[33, 38], [63, 38], [63, 58], [33, 58]], dtype=torch.float64)
    quarter = affine([[0, 1, 0], [-1, 0, SIDE]])
    assert move(data, quarter)["box"].tolist() == bounds(mapped(quarter, corners)).tolist() == [38, 33, 58, 63]
    away = affine([[1, 0, 40], [0, 1, 0]])
    assert move(data, away)["box"].tolist() == data["box"].tolist(), "nobody knows what would be left of the target"


def test_an_absent_target_stays_absent() -> None:
    data = data_of(np.zeros((SIDE, SIDE), bool))
    for transform in (RandAffineTargetd(prob=1), RandCropTargetd(prob=1), RandFlipTargetd(prob=1)):
        moved = transform.set_random_state(0)(data)
        assert moved["mask"].sum() == 0 and "box" not in moved
        assert not torch.equal(moved["moved"], EYE), "the picture itself may move freely"
    assert "points" not in Numbersd()(data)


@pytest.mark.parametrize(
    ("change", "across", "down"),
    [
        ({}, True, True),
        ({"kind": "mammogram"}, True, False),
        ({"kind": "chest X-ray"}, False, False),
        ({"kind": "CT image"}, False, False),
        ({"question": "Which cell lies on the left?"}, False, False),
        ({"question": "Which cell lies at the upper border?"}, False, False),
        ({"question": "Mark the R breast mass."}, False, False),
        ({"question": "What sits at 3 o'clock?"}, False, False),
        ({"target": "left kidney"}, False, False),
        ({"laterality": "right"}, False, False),
        ({"question": "Which bright leftover is it?"}, True, True),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_flips_respect_left_and_right(change: dict[str, str], across: bool, down: bool) -> None:
    data = data_of(ellipse(30, 40, 10, 6, 0.4), **change)
    assert may_flip(data) == (across, down)
    moved = RandFlipTargetd(prob=1).set_random_state(0)(data)
    axes = [axis for axis, may in ((1, down), (2, across)) if may]
    assert torch.equal(moved["mask"], data["mask"].flip(axes) if axes else data["mask"])
    assert_consistent(moved, tolerance=0.5)


def test_grey_levels_change_and_nothing_moves() -> None:
    data = data_of(ellipse(48, 48, 15, 10, 0.3))
    data["image"] = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for step in grey_levels(prob=1.0):
        if hasattr(step, "set_random_state"):
            step.set_random_state(1)
        after = step(data)
        assert {k: v for k, v in after.items() if k not in ("image",)}.keys() == data.keys() - {"image"}
        assert after["mask"] is data["mask"] and after["box"] is data["box"] and after["points"] is data["points"]
        assert after["image"].shape == data["image"].shape
        data = after
    assert 0 <= float(data["image"].min()) <= float(data["image"].max()) <= 1


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    collection = Collection(make_collection(tmp_path_factory.mktemp("data") / "made"), "train")
    return [collection[i] for i in range(len(collection))]


def test_a_chain_gives_whole_numbers_on_the_target(examples: list[Example]) -> None:
    chain = training_chain(128, seed=5)
    seen = [chain(example) for example in examples * 5]
    for data in seen:
        mask = data["mask"][0].numpy() > 0
        box = box_of(mask)
        assert box is not None and np.abs(data["box"].numpy() - box.as_list()).max() <= TOLERANCE + 1
        assert all(mask[y, x] for x, y in data["points"].tolist())
        assert data["image"].shape == (3, 128, 128) and 0 <= data["image"].min() <= data["image"].max() <= 1
        assert data["question"] in data["questions"][data["style"]]
    assert len({tuple(data["box"].tolist()) for data in seen}) > 15, "pictures move"


def test_the_same_seed_gives_the_same_data(examples: list[Example]) -> None:
    first, again = ([training_chain(96, seed=7)(e) for e in examples] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["image"], other["image"]) and one["question"] == other["question"]


def test_loading_agrees_with_the_picture_of_the_example(examples: list[Example]) -> None:
    example = replace(examples[0], box=None, points=None)
    data = LoadExample(240)(example)
    given = examples[0].box
    assert given is not None
    assert (data["box"] * 2).tolist() == pytest.approx(given.as_list(), abs=2), (
        "the collection's 480 pixels on a canvas of 240"
    )
    assert mapped(torch.linalg.inv(data["moved"]), data["points"]).max() < 480
    assert validation_chain(240)(example)["box"].dtype == torch.int64


def test_caches_keep_what_loading_gives_and_not_what_chance_does(examples: list[Example], tmp_path: Path) -> None:
    plain = [LoadExample(96)(example) for example in examples]
    for cached in (
        in_memory(examples, training_chain(96, seed=1)),
        on_disk(examples, training_chain(96, seed=1), tmp_path / "cache"),
    ):
        first, second = ([cached[i] for i in range(len(examples))] for _ in range(2))
        assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert len(list((tmp_path / "cache").iterdir())) == len(examples)
    kept = on_disk(examples, validation_chain(96), tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # MONAI warns of a cache file that it cannot read, and replaces it
        assert torch.equal(kept[0]["image"], plain[0]["image"])


def test_given_points_are_kept_when_wished(examples: list[Example]) -> None:
    example = examples[0]
    assert example.points is not None
    data = LoadExample(480, by_rule=False)(example)
    assert Numbersd()(data)["points"].tolist() == [[p.x, p.y] for p in example.points]


def test_questions_are_drawn_by_weight(examples: list[Example]) -> None:
    asked = replace(examples[0], questions=Entry("cup", "", {"terse": ["cup?"], "explicit": ["Outline the cup."]}))
    styles = {validation_chain(32, {"terse": 0.0, "explicit": 1.0}, seed)(asked)["style"] for seed in range(8)}
    assert styles == {"explicit"}
