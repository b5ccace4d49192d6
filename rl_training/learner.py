"""The supervised loss of the embedded reasoner: text, soft numbers, overlap of the expected box, mask heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rl_training.batch import Batch
from rl_training.config import SftConfig
from rl_training.forward import rotary_positions, text_states, to_patches, vision_tokens, with_picture
from rl_training.losses import expected_number, giou, mask_loss, soft_number_loss
from rl_training.reasoning import COLUMNS, ROWS, SIZE_LIMITS, SIZES
from rl_training.warp import boxes_and_points

ANSWER = 144  # tokens of the window behind the prompt in which answers lie
TAIL = 7  # tokens between the last image token and the answer
CELL = 4  # canvas pixels to one mask head cell


class Learner(nn.Module):
    """The model with its training-only mask heads, and the losses of one batch."""

    number_ids: torch.Tensor

    def __init__(self, model: Any, tokenizer: Any, config: SftConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.compiled = False
        width, cells = model.config.text_config.hidden_size, 28 // CELL
        self.mask_heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, cells * cells)) for _ in config.mask_layers
        )
        ids = tokenizer.convert_tokens_to_ids
        self.register_buffer("number_ids", torch.tensor([ids(str(n)) for n in range(config.canvas + 1)]), False)
        words = [[tokenizer(f" {w}")["input_ids"][0] for w in group] for group in (SIZES, ROWS, COLUMNS)]
        self.word_ids = [torch.tensor(group) for group in words]

    def place(self, batch: Batch, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write boxes, points and place words of the warped masks into the token rows.

        Returns:
            ids (batch, length) and the numbers (batch, 8) that stand in them.
        """
        boxes, points = boxes_and_points(masks > 0.5)
        numbers = torch.cat([boxes, points.flatten(1)], 1).clamp(0, self.config.canvas)
        canvas = self.config.canvas
        size = (boxes[:, 2:] - boxes[:, :2]).prod(1) / canvas**2
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / canvas * 3
        index = [
            sum((size >= limit).long() for limit in SIZE_LIMITS),
            centre[:, 1].long().clamp(0, 2),
            centre[:, 0].long().clamp(0, 2),
        ]
        words = torch.stack(
            [group.to(boxes.device)[torch.as_tensor(i)] for group, i in zip(self.word_ids, index, strict=True)], 1
        )
        ids = batch.ids.clone()
        there = batch.there[:, None]
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        for at, values in ((batch.numbers, self.number_ids[numbers]), (batch.words, words)):
            safe = at.clamp(min=0)
            ids[rows, safe] = torch.where(there, values, ids[rows, safe])
        return ids, numbers

    def forward(
        self,
        pictures: torch.Tensor,
        masks: torch.Tensor,
        ids: torch.Tensor,
        weight: torch.Tensor,
        image_start: torch.Tensor,
        number_at: torch.Tensor,
        numbers: torch.Tensor,
        there: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the total loss, and its parts (text, numbers, overlap, masks) as one detached row (4,).

        Args:
            pictures: (batch, 3, side, side) float in [0, 1].
            masks: (batch, side, side) float of zeros and ones.
            ids: (batch, length) long, from `place`; so are the numbers.
            weight: (batch, length) float, see `Batch`; so are image_start, number_at (there called numbers) and there.
            image_start: (batch,) long.
            number_at: (batch, 8) long.
            numbers: (batch, 8) long, canvas pixels.
            there: (batch,) bool.
        """
        config, core = self.config, self.model.model
        grid = config.canvas // 28
        seen = vision_tokens(core.visual, to_patches(pictures), self.compiled)
        embedded = with_picture(core.language_model.embed_tokens(ids), image_start, seen)
        positions = rotary_positions(image_start, ids.shape[1], grid)
        states, tapped = text_states(core.language_model, embedded, positions, config.mask_layers, self.compiled)

        text_loss = self._text_loss(states, ids, weight, image_start)
        number_loss, overlap_loss = self._number_losses(states, number_at, numbers, there)
        masks_loss = self._masks_loss(tapped, masks * there[:, None, None], image_start)
        total = (
            config.text_weight * text_loss + config.number_weight * number_loss + config.overlap_weight * overlap_loss
        )
        total = total + config.mask_weight * masks_loss
        return total, torch.stack([text_loss, number_loss, overlap_loss, masks_loss]).detach()

    def _text_loss(
        self, states: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor, image_start: torch.Tensor
    ) -> torch.Tensor:
        """Weighted mean cross-entropy, nats a token, of the answers' words; only the window of answers is read out."""
        grid = self.config.canvas // 28
        window = image_start[:, None] + grid * grid + TAIL - 1 + torch.arange(ANSWER, device=ids.device)
        window = window.clamp(max=ids.shape[1] - 2)
        logits = self.model.lm_head(_at(states, window))
        target, share = ids.gather(1, window + 1), weight.gather(1, window + 1)
        token_loss = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="none")
        return (token_loss * share.flatten()).sum() / share.sum()

    def _number_losses(
        self, states: torch.Tensor, number_at: torch.Tensor, numbers: torch.Tensor, there: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Soft loss of the eight coordinates, and 1 - GIoU of the expected box; means over targets that are there."""
        logits = self.model.lm_head(_at(states, (number_at - 1).clamp(min=0)))
        flat, there_8 = logits.flatten(0, 1), there.repeat_interleave(8).float()
        loss = soft_number_loss(flat, numbers.flatten(), self.number_ids, self.config.number_spread)
        loss = (loss * there_8).sum() / there_8.sum().clamp(min=1)
        expected = expected_number(flat, self.number_ids).reshape(-1, 8)
        overlap = 1 - giou(expected[:, :4], numbers[:, :4].float())
        return loss, (overlap * there.float()).sum() / there.float().sum().clamp(min=1)

    def _masks_loss(self, tapped: list[torch.Tensor], masks: torch.Tensor, image_start: torch.Tensor) -> torch.Tensor:
        """Sum of the mask heads' losses, each on the states of the image tokens after its layer."""
        coarse = F.avg_pool2d(masks[:, None], CELL)[:, 0]
        grid, cells = self.config.canvas // 28, 28 // CELL
        at = image_start[:, None] + torch.arange(grid * grid, device=masks.device)
        loss = torch.zeros((), device=masks.device)
        for head, hidden in zip(self.mask_heads, tapped, strict=True):
            drawn = head(_at(hidden, at).float()).reshape(-1, grid, grid, cells, cells).transpose(2, 3)
            loss = loss + mask_loss(drawn.reshape(-1, grid * cells, grid * cells).float(), coarse)
        return loss


def _at(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Take (batch, count, width) out of (batch, length, width) at positions (batch, count)."""
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))
