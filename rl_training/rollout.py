"""Sample groups of answers from a Qwen2.5-VL with pictures of one size, quickly.

A question and its picture are read once for the whole group, into a cache of fixed size; on a GPU the step that writes
one token is recorded as a CUDA graph and replayed, which is what makes a small model's rollouts cheap: transformers'
`generate` spends ten times as long on launching its kernels as the GPU does on running them.
tests/rl/test_rollout.py holds the logits to the original's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from rl_training.forward import rotary_positions, rotate, to_patches, vision_tokens, with_picture

_LOOK_EVERY = 8  # tokens between two looks at whether all answers are written


@dataclass(frozen=True)
class Samples:
    """Answers to every question, group after group.

    Attributes:
        tokens: (questions * group, answer) long, padded behind the stop token.
        lengths: (questions * group,) long, tokens with the stop token, or all of them where it did not come.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor


class Sampler:
    """Writes `questions * group` answers at a time."""

    def __init__(self, model: Any, rows: int, prompt: int, answer: int, stop: int, pad: int) -> None:
        """Take a model, whose weights may change between two calls, and set its cache aside.

        Args:
            model: Qwen2_5_VLForConditionalGeneration, each vision block with full attention.
            rows: questions times group.
            prompt: tokens of the longest prompt, image tokens included.
            answer: tokens of the longest answer.
            stop: token that ends an answer.
            pad: token behind it.
        """
        self._model, self._rows, self._prompt, self._answer = model, rows, prompt, answer
        self._stop, self._pad = stop, pad
        text, device = model.config.text_config, model.device
        heads, kept = text.num_attention_heads, text.num_key_value_heads
        width, slots = text.hidden_size // heads, prompt + answer
        kind = model.model.language_model.embed_tokens.weight.dtype
        self._cache = torch.zeros(text.num_hidden_layers, 2, rows, kept, slots, width, dtype=kind, device=device)
        self._token = torch.zeros(rows, dtype=torch.long, device=device)
        self._position = torch.zeros(rows, dtype=torch.long, device=device)
        self._slot = torch.zeros(1, dtype=torch.long, device=device)
        self._seen = torch.zeros(rows, slots, dtype=torch.bool, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits = torch.empty(0)

    @torch.no_grad()
    def sample(
        self, ids: torch.Tensor, lengths: torch.Tensor, image_start: torch.Tensor, pictures: torch.Tensor,
        temperature: float = 1.0,
    ) -> Samples:  # fmt: skip
        """Answer each question `rows / questions` times.

        Args:
            ids: (questions, prompt) long, right-padded, with the image tokens inside.
            lengths: (questions,) long, tokens of each prompt.
            image_start: (questions,) long, index of the first image token.
            pictures: (questions, 3, side, side) float in [0, 1].
            temperature: divides the logits; 0 takes the likeliest token.
        """
        logits = self._read(ids, lengths, image_start, pictures)
        grid = pictures.shape[-1] // 28
        position = (lengths - grid * grid + grid).repeat_interleave(self._rows // len(ids))
        tokens = torch.full((self._rows, self._answer), self._pad, device=ids.device)
        done = torch.zeros(self._rows, dtype=torch.bool, device=ids.device)
        for at in range(self._answer):
            token = _drawn(logits, temperature).masked_fill(done, self._pad)
            tokens[:, at] = token
            done |= token == self._stop
            if at + 1 == self._answer or (at % _LOOK_EVERY == 0 and bool(done.all())):
                break
            logits = self._write(token, position + at, self._prompt + at)
        stops = tokens == self._stop
        ended = torch.where(stops.any(1), stops.int().argmax(1) + 1, self._answer)
        return Samples(tokens, ended)

    def _read(
        self, ids: torch.Tensor, lengths: torch.Tensor, image_start: torch.Tensor, pictures: torch.Tensor
    ) -> torch.Tensor:
        """Fill the cache with the prompts; return the logits behind them, (rows, vocabulary)."""
        text, (count, longest) = self._model.model.language_model, ids.shape
        grid = pictures.shape[-1] // 28
        seen = vision_tokens(self._model.model.visual, to_patches(pictures).to(self._cache.dtype))
        cache = DynamicCache(config=text.config)
        states = text(
            inputs_embeds=with_picture(text.embed_tokens(ids), image_start, seen),
            position_ids=rotary_positions(image_start, longest, grid),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        group = self._rows // count
        layers: Any = cache.layers
        for index, layer in enumerate(layers):
            for half, kept in enumerate((layer.keys, layer.values)):
                self._cache[index, half, :, :, :longest] = kept.repeat_interleave(group, 0)
        self._seen.zero_()
        self._seen[:, :longest] = (torch.arange(longest, device=ids.device) < lengths[:, None]).repeat_interleave(
            group, 0
        )
        last = states.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        logits: torch.Tensor = self._model.lm_head(last)
        return logits.repeat_interleave(group, 0)

    def _write(self, token: torch.Tensor, position: torch.Tensor, slot: int) -> torch.Tensor:
        """Read one more token of every row into a slot of the cache; return the logits behind it."""
        self._token.copy_(token)
        self._position.copy_(position)
        self._slot.fill_(slot)
        self._seen[:, slot] = True
        if token.device.type != "cuda":
            return self._step()
        if self._graph is None:
            self._record()
        assert self._graph is not None
        self._graph.replay()
        return self._logits

    def _record(self) -> None:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # so that libraries have made what they make at first use
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self._step()

    def _step(self) -> torch.Tensor:
        text = self._model.model.language_model
        x = text.embed_tokens(self._token)[:, None]
        cos, sin = text.rotary_emb(x, self._position[None, :, None].expand(3, -1, -1))
        turn = tuple(part[0] if part.ndim == 4 else part for part in (cos, sin))  # all three positions are one here
        for layer, kept in zip(text.layers, self._cache, strict=True):
            x = x + self._attend(layer.self_attn, layer.input_layernorm(x), turn, kept)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        logits: torch.Tensor = self._model.lm_head(text.norm(x))[:, 0]
        return logits

    def _attend(
        self, attention: Any, x: torch.Tensor, turn: tuple[torch.Tensor, ...], kept: torch.Tensor
    ) -> torch.Tensor:
        rows, (_, _, heads, _, width) = len(x), kept.shape
        cos, sin = (part[:, None] for part in turn)
        query = rotate(attention.q_proj(x).view(rows, heads, -1, width), cos, sin)
        key = rotate(attention.k_proj(x).view(rows, heads, 1, width), cos, sin)
        keys, values = kept
        keys.index_copy_(2, self._slot, key)
        values.index_copy_(2, self._slot, attention.v_proj(x).view(rows, heads, 1, width))
        scores = (query @ keys.transpose(2, 3)).float() * width**-0.5
        share = scores.masked_fill(~self._seen[:, None, None], -float("inf")).softmax(-1)
        mixed = share.to(values.dtype) @ values
        return attention.o_proj(mixed.reshape(rows, 1, -1))  # type: ignore[no-any-return]


def _drawn(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    if not temperature:
        return logits.argmax(1)
    return torch.multinomial((logits.float() / temperature).softmax(1), 1)[:, 0]
