"""Pictures and masks move together, and box and points are read from the mask that comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl_training.warp import Freedom, boxes_and_points, warp_batch

SIDE = 64


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> torch.Tensor:
    ys, xs = torch.meshgrid(*[torch.arange(SIDE) + 0.5] * 2, indexing="ij")
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    along, aside = (xs - x) * cos + (ys - y) * sin, (ys - y) * cos - (xs - x) * sin
    return (along / across) ** 2 + (aside / down) ** 2 <= 1


MASKS = torch.stack(
    [ellipse(32, 32, 14, 8), ellipse(20, 40, 6, 12), ellipse(40, 24, 15, 5, 40), ellipse(10, 10, 9, 9)] * 4
)


def freedom(count: int, warp: bool, across: bool = False, down: bool = False) -> Freedom:
    return Freedom(*(torch.full((count,), value) for value in (warp, across, down)))


def warped(masks: torch.Tensor, allowed: Freedom, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Warp pictures that are white where their mask is."""
    pictures = masks[:, None].float().expand(-1, 3, -1, -1)
    return warp_batch(pictures, masks.float(), allowed, torch.Generator().manual_seed(seed))


def test_the_mask_moves_and_the_picture_with_it() -> None:
    pictures, masks = warped(MASKS, freedom(16, True, True, True))
    moved = (masks != MASKS.float()).flatten(1).any(1)
    assert moved.float().mean() > 0.8
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert pictures.shape == (16, 3, SIDE, SIDE)
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
    middle = pictures.mean(1)
    for shown, mask in zip(middle, masks.bool(), strict=True):
        bright = shown > (shown[mask].median() + shown[~mask].median()) / 2
        assert (bright & mask).sum() / (bright | mask).sum() > 0.85


@pytest.mark.parametrize("seed", range(5))
def test_no_target_is_lost(seed: int) -> None:
    _, masks = warped(MASKS, freedom(16, True, True, True), seed)
    assert masks.flatten(1).sum(1).min() > 40


def test_a_picture_that_may_not_move_stays() -> None:
    _, masks = warped(MASKS, freedom(16, False))
    assert torch.equal(masks, MASKS.float())


@pytest.mark.parametrize(("across", "down", "axes"), [(True, False, [1]), (False, True, [0]), (True, True, [0, 1])])
def test_a_picture_that_may_only_flip_is_itself_or_its_mirror_image(across: bool, down: bool, axes: list[int]) -> None:
    _, masks = warped(MASKS, freedom(16, False, across, down))
    flips = [[]] + [[axis] for axis in axes] + ([axes] if len(axes) == 2 else [])
    kinds = [
        [i for i, flip in enumerate(flips) if torch.equal(after, before.float().flip(flip) if flip else before.float())]
        for before, after in zip(MASKS, masks, strict=True)
    ]
    assert all(kinds)
    asymmetric = [kind[0] for kind in kinds if len(kind) == 1]
    assert len(set(asymmetric)) > 1, "some flip, some do not"


def test_an_absent_target_stays_absent() -> None:
    _, masks = warped(torch.zeros(8, SIDE, SIDE, dtype=torch.bool), freedom(8, True, True, True))
    assert masks.sum() == 0


def test_the_same_seed_gives_the_same_batch() -> None:
    first, again = (warped(MASKS, freedom(16, True), seed=7) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_box_is_tight_and_points_lie_on_the_target_after_a_warp() -> None:
    _, warped_masks = warped(MASKS, freedom(16, True, True, True), seed=3)
    masks = warped_masks.bool()
    boxes, points = boxes_and_points(masks)
    for mask, box, pair in zip(masks.numpy(), boxes.tolist(), points.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert all(mask[y, x] for x, y in pair)
        assert pair[0] != pair[1]


@pytest.mark.parametrize(
    ("mask", "along"),
    [
        (ellipse(32, 32, 20, 8), (1, 0)),
        (ellipse(32, 32, 8, 20), (0, 1)),
        (ellipse(32, 32, 20, 6, 45), (0.7071, 0.7071)),
        (ellipse(32, 32, 20, 6, -45), (0.7071, -0.7071)),
    ],
    ids=["wide", "tall", "falling", "rising"],
)
def test_points_lie_one_deviation_from_the_middle_along_the_long_axis(
    mask: torch.Tensor, along: tuple[float, float]
) -> None:
    _, ((first, second),) = boxes_and_points(mask[None])
    apart = (second - first).float()
    assert float(apart.norm()) == pytest.approx(20, abs=1.5), "an ellipse's deviation is half its half-axis"
    assert abs(float(apart @ torch.tensor(along).float())) == pytest.approx(float(apart.norm()), rel=0.01)
    middle = (first + second).float() / 2 + 0.5
    assert middle.tolist() == pytest.approx([32, 32], abs=1)


def test_points_of_a_ring_lie_on_the_ring() -> None:
    ring = ellipse(32, 32, 20, 20) & ~ellipse(32, 32, 15, 15)
    _, ((first, second),) = boxes_and_points(ring[None])
    assert all(ring[y, x] for x, y in (first.tolist(), second.tolist()))


def test_a_single_pixel_and_an_empty_mask_do_not_fail() -> None:
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 5, 9] = True
    boxes, points = boxes_and_points(masks)
    assert boxes[0].tolist() == [9, 5, 10, 6]
    assert points[0].tolist() == [[9, 5], [9, 5]]
    assert boxes[1].tolist() == [0, 0, SIDE, SIDE]
