"""The batched forward pass against transformers' own, on a tiny random model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from small import END, GRID, IMAGE, SIDE, START
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rl_training.forward import rotary_positions, text_states, to_patches, vision_tokens


@pytest.fixture(scope="module")
def grids() -> torch.Tensor:
    return torch.tensor([[1, SIDE // 14, SIDE // 14]] * 3)


def sequences() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, mask and start of the image for three right-padded rows with the image in different places."""
    generator = torch.Generator().manual_seed(2)
    rows, starts, length = [], [], 40
    for before, behind in ((3, 4), (9, 12), (1, 20)):
        words = torch.randint(1, 80, (before + behind,), generator=generator).tolist()
        rows.append([*words[:before], START, *[IMAGE] * GRID**2, END, *words[before:]])
        starts.append(before + 1)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return torch.tensor([row + [0] * (length - len(row)) for row in rows]), mask, torch.tensor(starts)


def test_patches_are_those_of_the_image_processor(pictures: torch.Tensor) -> None:
    processor = Qwen2VLImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3, min_pixels=784, max_pixels=10**6)
    images = [Image.fromarray((p.permute(1, 2, 0) * 255).round().byte().numpy()) for p in pictures]
    expected = processor(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(to_patches(pictures).flatten(0, 1), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_vision_tokens_are_those_of_transformers(model: Any, pictures: torch.Tensor, grids: torch.Tensor) -> None:
    patches = to_patches(pictures)
    expected = model.model.visual(patches.flatten(0, 1), grid_thw=grids).pooler_output
    found = vision_tokens(model.model.visual, patches)
    assert found.shape == (3, GRID**2, 48)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found.flatten(0, 1), expected, atol=1e-4, rtol=1e-4)


def test_positions_are_those_of_transformers(model: Any, grids: torch.Tensor) -> None:
    ids, mask, start = sequences()
    expected, _ = model.model.get_rope_index(ids, (ids == IMAGE).int(), image_grid_thw=grids, attention_mask=mask)
    found = rotary_positions(start, ids.shape[1], GRID)
    real = mask.bool().expand(3, -1, -1)
    assert torch.equal(found[real], expected[real])


@torch.no_grad()
def test_logits_are_those_of_transformers(model: Any, pictures: torch.Tensor, grids: torch.Tensor) -> None:
    ids, mask, start = sequences()
    patches = to_patches(pictures)
    expected = model(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=patches.flatten(0, 1),
        image_grid_thw=grids,
        mm_token_type_ids=(ids == IMAGE).int(),
    ).logits

    text = model.model.language_model
    embedded = text.embed_tokens(ids)
    places = (ids == IMAGE)[..., None].expand_as(embedded)
    embedded = embedded.masked_scatter(places, vision_tokens(model.model.visual, patches))
    states, tapped = text_states(text, embedded, rotary_positions(start, ids.shape[1], GRID), tap=(1,))
    found = model.lm_head(states)

    real = mask.bool()
    assert expected[real].std() > 0.1
    torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=1e-4)
    assert [t.shape for t in tapped] == [embedded.shape]


@torch.no_grad()
def test_a_picture_does_not_touch_its_neighbours(model: Any, pictures: torch.Tensor) -> None:
    together = vision_tokens(model.model.visual, to_patches(pictures))
    alone = vision_tokens(model.model.visual, to_patches(pictures[1:2]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)
