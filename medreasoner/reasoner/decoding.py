"""The decoding loop: one prefill, then guided choices for each answer, with drafts checked many tokens at a time."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

from medreasoner.reasoner.drafts import Drafts
from medreasoner.reasoner.guided import GuidedAnswer


class Decoder:
    """Reads one prompt on a Qwen2.5-VL model and writes answers to it, with a key-value cache."""

    def __init__(self, model: Any, drafts: Drafts) -> None:
        self._model, self._drafts = model, drafts
        self._cache = DynamicCache(config=model.config.text_config)
        self._next_position = 0

    def read(self, ids: torch.Tensor, image: torch.Tensor, grid: torch.Tensor) -> None:
        """Read a prompt, once for all answers to it.

        Args:
            ids: (1, length) prompt with the image tokens inside and the answer's opening at its end.
            image: (image tokens, width) embeddings.
            grid: (1, 3) patches of the image in time, height and width.
        """
        self._after_prompt = self._prefill(ids, image, grid)[-1]
        self._prompt_end = self._cache.get_seq_length(), self._next_position

    def write(self, answer: GuidedAnswer) -> tuple[list[int], float]:
        """Write an answer to the prompt; what was written after it before is forgotten.

        Args:
            answer: the one to write, with nothing but its opening in it.

        Returns:
            tokens of the answer with its opening, and the mean log-likelihood of the choices after the reasoning.
        """
        length, self._next_position = self._prompt_end
        if surplus := self._cache.get_seq_length() - length:
            self._cache.crop(-surplus)
        logits = self._after_prompt
        while True:
            new = answer.advance(logits)
            if answer.done:
                return answer.tokens, answer.log_likelihood / max(1, answer.choices)
            guess = self._drafts.after(answer.tokens) if answer.reasoning else []
            rows = self._forward(new + guess)
            logits = self._accept(answer, rows[len(new) - 1 :], guess)

    def _accept(self, answer: GuidedAnswer, rows: torch.Tensor, guess: list[int]) -> torch.Tensor:
        """Keep the guessed tokens that the model would have written too; return the logits after the last of them."""
        used = 0
        while used < len(guess) and answer.likeliest(rows[used]) == guess[used] and not answer.ends_with(guess[used]):
            answer.tokens.append(guess[used])
            used += 1
        surplus = len(guess) - used
        if surplus:
            self._cache.crop(-surplus)
            self._next_position -= surplus
        return rows[used]

    def _prefill(self, ids: torch.Tensor, image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        config = self._model.config
        places = ids == config.image_token_id
        kinds = places.int()  # 1 marks image tokens for get_rope_index
        positions, _ = self._model.model.get_rope_index(ids, kinds, image_grid_thw=grid)
        text = self._model.model.language_model
        embedded = text.embed_tokens(ids)
        embedded = embedded.masked_scatter(places[..., None].expand_as(embedded), image.to(embedded.dtype))
        self._next_position = int(positions.max()) + 1
        return self._logits(embedded, positions, last_only=True)

    def _forward(self, tokens: list[int]) -> torch.Tensor:
        """Read tokens and return the logits after each of them, (tokens, vocabulary)."""
        ids = torch.tensor([tokens], device=self._model.device)
        steps = torch.arange(len(tokens), device=ids.device) + self._next_position
        self._next_position += len(tokens)
        embedded = self._model.model.language_model.embed_tokens(ids)
        return self._logits(embedded, steps[None, None].expand(3, 1, -1), last_only=False)

    def _logits(self, embedded: torch.Tensor, positions: torch.Tensor, last_only: bool) -> torch.Tensor:
        states = self._model.model.language_model(
            inputs_embeds=embedded, position_ids=positions, past_key_values=self._cache, use_cache=True
        ).last_hidden_state
        kept = states[0, -1:] if last_only else states[0]
        return self._model.lm_head(kept).float()  # type: ignore[no-any-return]
