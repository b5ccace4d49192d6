"""Prompts with a picture each, read together; then answers go on token by token with a key-value cache."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

from rl_training.forward import rotary_positions, to_patches, vision_tokens, with_picture


class BatchDecoder:
    """A batch of answers in the making on a Qwen2.5-VL model.

    Attributes:
        logits: (batch, vocabulary) float, for the token after all that was read so far.
    """

    logits: torch.Tensor

    def __init__(self, model: Any, pad: int, prompts: list[list[int]], pictures: torch.Tensor) -> None:
        """Read the prompts, padded on the left.

        Args:
            model: its weights; the configuration names the image token.
            pad: token of the padding, which nothing attends to.
            prompts: token rows of any lengths, each with the image tokens inside.
            pictures: (batch, 3, side, side) float in [0, 1].
        """
        self._model, self._text = model, model.model.language_model
        self.device = pictures.device
        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=self.device)
        padding = torch.tensor([longest - len(p) for p in prompts], device=self.device)
        is_image = ids == model.config.image_token_id
        start, grid = is_image.int().argmax(1), int(is_image[0].sum().item() ** 0.5)
        self._keep = (torch.arange(longest, device=self.device)[None] >= padding[:, None]).long()
        self._cache = DynamicCache(config=self._text.config)
        positions = (rotary_positions(start, longest, grid) - padding[None, :, None]).clamp(min=0)
        self._position = positions[0, :, -1] + 1
        with torch.inference_mode(), self._autocast():
            seen = vision_tokens(model.model.visual, to_patches(pictures))
            embedded = self._text.embed_tokens(ids)
            self._forward(with_picture(embedded, start, seen), positions)

    def repeat(self, count: int) -> None:
        """Go on with `count` answers to each prompt, side by side."""
        self._cache.batch_repeat_interleave(count)
        self._keep, self._position, self.logits = (
            t.repeat_interleave(count, 0) for t in (self._keep, self._position, self.logits)
        )

    def read(self, tokens: torch.Tensor, live: torch.Tensor | None = None) -> None:
        """Read the next tokens of every answer.

        Args:
            tokens: (batch, count) long.
            live: (batch,) bool; the other answers stay as they are, whatever stands in their rows. None: all are.
        """
        count = tokens.shape[1]
        live = torch.ones(len(tokens), dtype=torch.bool, device=self.device) if live is None else live
        self._keep = torch.cat([self._keep, live[:, None].long().expand(-1, count)], 1)
        positions = self._position[:, None] + torch.arange(count, device=self.device)
        self._position = self._position + count * live
        with torch.inference_mode(), self._autocast():
            self._forward(self._text.embed_tokens(tokens), positions[None].expand(3, -1, -1))

    def _forward(self, embedded: torch.Tensor, positions: torch.Tensor) -> None:
        states = self._text(
            inputs_embeds=embedded,
            attention_mask=self._keep,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        self.logits = self._model.lm_head(states).float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")
