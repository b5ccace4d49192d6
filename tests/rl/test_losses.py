"""Losses against closed forms and against `box_iou`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medreasoner.contract.answer import Box
from medreasoner.geometry import box_iou
from rl_training.losses import expected_number, giou, mask_loss, soft_number_loss

FEW = settings(max_examples=60, deadline=None)
NUMBERS = torch.arange(10, 31)  # tokens of the numbers 0 to 20 in a vocabulary of 40


def sure_of(number: int, by: float = 80.0) -> torch.Tensor:
    logits = torch.zeros(1, 40)
    logits[0, NUMBERS[number]] = by
    return logits


def test_flat_logits_cost_the_log_of_the_vocabulary() -> None:
    loss = soft_number_loss(torch.zeros(3, 40), torch.tensor([0, 10, 20]), NUMBERS, spread=2.0)
    assert loss.tolist() == pytest.approx([math.log(40)] * 3)


def test_the_soft_label_itself_costs_its_entropy_and_nothing_costs_less() -> None:
    truth, spread = torch.tensor([8]), 2.0
    label = torch.softmax(-((torch.arange(21) - 8.0) ** 2) / (2 * spread**2), 0)
    logits = torch.full((1, 40), -1e4)
    logits[0, NUMBERS] = label.log()
    entropy = float(-(label * label.log()).sum())
    assert float(soft_number_loss(logits, truth, NUMBERS, spread)) == pytest.approx(entropy, rel=1e-5)
    noise = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    assert float(soft_number_loss(logits + noise, truth.expand(50), NUMBERS, spread).min()) >= entropy - 1e-5


def test_a_near_miss_costs_less_than_a_far_one_and_a_word_costs_most() -> None:
    near, far, word = sure_of(9, 9.0), sure_of(15, 9.0), torch.zeros(1, 40)
    word[0, 0] = 9.0
    costs = [float(soft_number_loss(x, torch.tensor([8]), NUMBERS, 1.5)) for x in (near, far, word)]
    assert costs[0] < costs[1] <= costs[2]


@pytest.mark.parametrize("number", [0, 7, 20])
def test_the_expected_number_of_a_sure_one_is_itself(number: int) -> None:
    assert float(expected_number(sure_of(number), NUMBERS)) == pytest.approx(number, abs=1e-4)


def test_the_expected_number_is_the_mean_and_heeds_numbers_only() -> None:
    logits = torch.full((1, 40), -80.0)
    logits[0, NUMBERS[[4, 10]]] = torch.tensor([0.25, 0.75]).log()
    logits[0, 0] = 50.0
    assert float(expected_number(logits, NUMBERS)) == pytest.approx(8.5, abs=1e-4)


@pytest.mark.parametrize(
    ("box", "truth", "value"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),
        ([0, 0, 10, 10], [2, 2, 4, 4], 0.04),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),
        ([0, 0, 10, 10], [20, 0, 30, 10], -1 / 3),
        ([0, 0, 10, 10], [90, 90, 100, 100], 2e2 / 1e4 - 1),
        ([10, 0, 0, 10], [0, 0, 10, 10], 0.0),
    ],
    ids=["same", "half", "inside", "edge", "gap", "far", "inverted"],
)
def test_giou_in_closed_form(box: list[float], truth: list[float], value: float) -> None:
    assert float(giou(torch.tensor([box]).float(), torch.tensor([truth]).float())) == pytest.approx(value, abs=1e-6)


BOXES = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], *[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2)


@FEW
@given(BOXES, BOXES)
def test_giou_is_symmetric_at_most_iou_and_grows_towards_the_truth(a: list[int], b: list[int]) -> None:
    first, second = torch.tensor([a]).float(), torch.tensor([b]).float()
    value = float(giou(first, second))
    assert value == pytest.approx(float(giou(second, first)), abs=1e-6)
    assert -1 <= value <= box_iou(Box(*a), Box(*b)) + 1e-6
    nearer = float(giou((first + second) / 2, second))
    assert nearer >= value - 1e-6


def test_giou_pulls_boxes_that_do_not_touch() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]], requires_grad=True)
    giou(box, torch.tensor([[30.0, 0, 40, 10]])).sum().backward()
    assert box.grad[0, 2] > 0, "moving the right side to the right must help"


HALF = (torch.arange(8)[None, :, None] < 4).float().expand(1, 8, 8)


def test_a_perfect_mask_costs_nothing() -> None:
    for mask in (HALF, torch.zeros(1, 8, 8), torch.ones(1, 8, 8)):
        assert float(mask_loss((mask - 0.5) * 80, mask)) == pytest.approx(0, abs=1e-5)


def test_an_undecided_mask_costs_log_two_and_half_a_dice() -> None:
    undecided = torch.zeros(1, 8, 8)
    assert float(mask_loss(undecided, HALF)) == pytest.approx(math.log(2) + 1 - (2 * 16 + 1) / (32 + 32 + 1))
    assert float(mask_loss(undecided, torch.zeros(1, 8, 8))) == pytest.approx(math.log(2)), "no dice without a target"


def test_the_mask_loss_is_the_mean_over_the_batch() -> None:
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.cat([HALF, torch.zeros(1, 8, 8)])
    alone = [float(mask_loss(logits[i : i + 1], masks[i : i + 1])) for i in range(2)]
    assert float(mask_loss(logits, masks)) == pytest.approx(sum(alone) / 2)
