"""Batched forward passes over a Qwen2.5-VL model's own weights, for pictures of one size.

transformers loops over pictures inside its vision attention and builds masks for each batch; with equal pictures and
right padding neither is needed, and the whole pass compiles. tests/rl/test_forward.py holds it to the original.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def to_patches(pictures: torch.Tensor, patch: int = 14, merge: int = 2) -> torch.Tensor:
    """Cut pictures into patches in Qwen2-VL's order: merge x merge neighbours together, the frame doubled in time.

    Args:
        pictures: (batch, 3, side, side) float in [0, 1]; normalised here to mean 0.5, deviation 0.5.

    Returns:
        (batch, patches, 3 * 2 * patch * patch) float.
    """
    batch, channels, side, _ = pictures.shape
    grid = side // patch
    x = (pictures - 0.5) / 0.5
    x = x.reshape(batch, channels, grid // merge, merge, patch, grid // merge, merge, patch)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # rows of groups, columns of groups, rows, columns, channels, y, x
    x = x.reshape(batch, grid * grid, channels, 1, patch, patch).expand(-1, -1, -1, 2, -1, -1)
    return x.reshape(batch, grid * grid, -1)


def _vision_rotation(grid: int, head: int, merge: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the 2-D rotary positions, (patches, head), in patch order."""
    frequency = 1.0 / (10_000.0 ** (torch.arange(0, head // 2, 2, device=device).float() / (head // 2)))
    rows, columns = torch.meshgrid(torch.arange(grid, device=device), torch.arange(grid, device=device), indexing="ij")
    order = [
        t.reshape(grid // merge, merge, grid // merge, merge).permute(0, 2, 1, 3).flatten() for t in (rows, columns)
    ]
    angles = torch.cat([t[:, None].float() * frequency for t in order], 1)
    angles = torch.cat([angles, angles], 1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn pairs of the last dimension's halves by the rotary angles, which must broadcast to `x`."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


def _vision_block(block: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int) -> torch.Tensor:
    batch, count, width = x.shape
    attention = block.attn
    qkv = attention.qkv(block.norm1(x)).reshape(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k = rotate(qkv[0], cos, sin), rotate(qkv[1], cos, sin)
    mixed = F.scaled_dot_product_attention(q, k, qkv[2])
    x = x + attention.proj(mixed.transpose(1, 2).reshape(batch, count, width))
    return x + block.mlp(block.norm2(x))  # type: ignore[no-any-return]


def _text_layer(layer: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    out = layer(x, attention_mask=None, position_embeddings=(cos, sin))
    hidden: torch.Tensor = out[0] if isinstance(out, tuple) else out  # a tuple in older releases of transformers
    return hidden


def vision_tokens(visual: Any, patches: torch.Tensor, compiled: bool = False) -> torch.Tensor:
    """Run the vision tower with full attention in every block.

    Args:
        visual: the model's vision tower; its configuration must list every block in fullatt_block_indexes.
        patches: (batch, patches, values) from `to_patches`.
        compiled: compile a block once and use it for all of them (the whole tower at once takes minutes).

    Returns:
        (batch, tokens, width of the text trunk), rows of merged patches from the top left.
    """
    config = visual.config
    batch, count, _ = patches.shape
    heads, width = config.num_heads, config.hidden_size
    cos, sin = _vision_rotation(int(count**0.5), width // heads, config.spatial_merge_size, patches.device)
    kernel = visual.patch_embed.proj.weight
    x = F.linear(patches, kernel.reshape(width, -1))
    run_block = torch.compile(_vision_block) if compiled else _vision_block
    for block in visual.blocks:
        x = run_block(block, x, cos, sin, heads)
    merged = visual.merger.ln_q(x).reshape(batch, count // config.spatial_merge_size**2, -1)
    return visual.merger.mlp(merged)  # type: ignore[no-any-return]


def with_picture(embedded: torch.Tensor, image_start: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Put a picture's tokens in the place of the image tokens of its prompt.

    Args:
        embedded: (batch, length, width), the tokens' embeddings.
        image_start: (batch,) index of the first image token.
        seen: (batch, image tokens, width) from `vision_tokens`.
    """
    at = image_start[:, None] + torch.arange(seen.shape[1], device=embedded.device)
    return embedded.scatter(1, at[..., None].expand(-1, -1, embedded.shape[-1]), seen.to(embedded.dtype))


def text_states(
    text: Any, embeddings: torch.Tensor, positions: torch.Tensor, tap: tuple[int, ...] = (), compiled: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run the text trunk causally over right-padded sequences.

    Args:
        text: the model's language model.
        embeddings: (batch, length, width).
        positions: (3, batch, length) rotary positions, see `rotary_positions`.
        tap: layers after which the hidden states are returned too.
        compiled: compile one layer and use it for all of them.

    Returns:
        final states (batch, length, width), and the tapped ones.
    """
    cos, sin = text.rotary_emb(embeddings, positions)
    run_layer = torch.compile(_text_layer) if compiled else _text_layer
    x, tapped = embeddings, []
    for number, layer in enumerate(text.layers, start=1):
        x = run_layer(layer, x, cos, sin)
        if number in tap:
            tapped.append(x)
    return text.norm(x), tapped


def rotary_positions(image_start: torch.Tensor, length: int, grid: int) -> torch.Tensor:
    """Return Qwen2.5-VL's three-part positions for sequences with one square image each.

    Args:
        image_start: (batch,) index of the first image token.
        length: tokens in a sequence.
        grid: image tokens along one side.

    Returns:
        (3, batch, length) long: temporal, row and column positions.
    """
    at = torch.arange(length, device=image_start.device)[None, :]
    start = image_start[:, None]
    inside = (at >= start) & (at < start + grid * grid)
    after = at >= start + grid * grid
    offset = (at - start).clamp(min=0)
    text = torch.where(after, at - grid * grid + grid, at)
    rows = torch.where(inside, start + offset // grid, text)
    columns = torch.where(inside, start + offset % grid, text)
    return torch.stack([torch.where(inside, start.expand_as(text), text), rows, columns])
