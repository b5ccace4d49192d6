"""The quick sampler against transformers' own `generate` and forward pass, on a tiny random model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import END, GRID, IMAGE, SIDE, START

from rl_training.forward import to_patches
from rl_training.rollout import Sampler, Samples

PAD, STOP, ANSWER, GROUP = 0, 1, 12, 4
PROMPT = GRID * GRID + 12


@pytest.fixture(scope="module")
def prompts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three prompts of different lengths: ids, lengths, where the image starts."""
    generator = torch.Generator().manual_seed(3)
    ids, lengths, starts = torch.full((3, PROMPT), PAD), [], []
    for row, (before, after) in enumerate([(3, 2), (6, 4), (1, 1)]):
        words = torch.randint(2, 90, (before + after,), generator=generator).tolist()
        tokens = [*words[:before], START, *[IMAGE] * (GRID * GRID), END, *words[before:]]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        lengths.append(len(tokens))
        starts.append(before + 1)
    return ids, torch.tensor(lengths), torch.tensor(starts)


def sample(model: Any, prompts: Any, pictures: torch.Tensor, temperature: float) -> Samples:
    sampler = Sampler(model, 3 * GROUP, PROMPT, ANSWER, STOP, PAD)
    return sampler.sample(*prompts, pictures, temperature)


def inputs(prompts: Any, pictures: torch.Tensor, row: int) -> dict[str, torch.Tensor]:
    """What transformers takes for one row."""
    ids, lengths, _ = prompts
    patches = to_patches(pictures[row : row + 1])[0]
    kinds = (ids[row : row + 1, : lengths[row]] == IMAGE).int()
    grid = torch.tensor([[1, SIDE // 14, SIDE // 14]])
    return {"input_ids": ids[row : row + 1, : lengths[row]], "mm_token_type_ids": kinds, "pixel_values": patches,
            "image_grid_thw": grid}  # fmt: skip


def test_the_likeliest_tokens_are_those_of_generate(model: Any, prompts: Any, pictures: torch.Tensor) -> None:
    ours = sample(model, prompts, pictures, 0.0)
    for row in range(3):
        given = inputs(prompts, pictures, row)
        theirs = model.generate(**given, do_sample=False, max_new_tokens=ANSWER, eos_token_id=STOP, pad_token_id=PAD)[
            0, given["input_ids"].shape[1] :
        ]
        for member in range(GROUP):
            mine, length = ours.tokens[row * GROUP + member], ours.lengths[row * GROUP + member]
            assert mine[:length].tolist() == theirs.tolist()
            assert (mine[length:] == PAD).all()


def test_tokens_come_as_often_as_the_model_says(model: Any, prompts: Any, pictures: torch.Tensor) -> None:
    torch.manual_seed(11)
    given = inputs(prompts, pictures, 1)
    with torch.no_grad():
        share = (model(**given).logits[0, -1].float() / 1.7).softmax(0)
    rows = 3 * 2000
    drawn = Sampler(model, rows, PROMPT, 1, STOP, PAD).sample(*prompts, pictures, 1.7).tokens[2000:4000, 0]
    counted = torch.bincount(drawn, minlength=len(share)) / 2000
    spread = (share * (1 - share) / 2000).sqrt()
    assert ((counted - share).abs() < 5 * spread + 1e-3).all()


def test_members_of_a_group_differ_and_a_seed_repeats_them(model: Any, prompts: Any, pictures: torch.Tensor) -> None:
    torch.manual_seed(5)
    first = sample(model, prompts, pictures, 1.0)
    torch.manual_seed(5)
    again = sample(model, prompts, pictures, 1.0)
    assert torch.equal(first.tokens, again.tokens)
    groups = first.tokens.reshape(3, GROUP, ANSWER)
    assert all(len({tuple(answer.tolist()) for answer in group}) > 1 for group in groups)


def test_a_sampler_follows_weights_that_change(model: Any, prompts: Any, pictures: torch.Tensor) -> None:
    sampler = Sampler(model, 3 * GROUP, PROMPT, ANSWER, STOP, PAD)
    before = sampler.sample(*prompts, pictures, 0.0)
    weight = model.model.language_model.layers[1].mlp.down_proj.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(-1)
        changed = sampler.sample(*prompts, pictures, 0.0)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert not torch.equal(before.tokens, changed.tokens)
    assert torch.equal(sampler.sample(*prompts, pictures, 0.0).tokens, before.tokens)
