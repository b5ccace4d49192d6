"""Supervised stage for any Qwen2.5-VL folder, on transformers' Trainer.

python -m rl_training.finetune rl_training/configs/smoke_sft.yaml --data PREPARED --output RUN
torchrun --nproc-per-node 8 -m rl_training.finetune rl_training/configs/lingshu_7b_sft.yaml --data PREPARED --output RUN

The embedded reasoner's own supervised stage, with its mask heads and soft numbers, is rl_training/sft.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from medreasoner.contract.errors import MedReasonerError
from rl_training.checkpoints import SafeCheckpoints
from rl_training.config import FinetuneConfig
from rl_training.reasoning import unknown
from rl_training.rows import Canvas
from rl_training.running import command
from rl_training.stage import Start, adapters, common_arguments, with_given_adapter
from rl_training.watching import Progress, TimeLimit

IGNORED = -100  # of cross-entropy


class Teacher(SafeCheckpoints, Trainer):
    """transformers' trainer with whole checkpoints."""


class Lessons(Dataset[tuple[Canvas, int]]):
    """The rows' numbers, with the canvas they count on; pictures are opened where the batch is made."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas

    def __len__(self) -> int:
        return len(self.canvas)

    def __getitem__(self, index: int) -> tuple[Canvas, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.canvas, index


class Batches:
    """Make the tensors of a batch: prompt and answer side by side, loss on the answer only."""

    def __init__(self, processor: Any, model_config: Any, max_tokens: int, only_known: bool = False) -> None:
        """Take the processor, the model's configuration, and two knobs of `FinetuneConfig`."""
        self._processor, self._most, self._only_known = processor, max_tokens, only_known
        self._image_token = model_config.image_token_id
        self._merge = model_config.vision_config.spatial_merge_size

    def __call__(self, lessons: list[tuple[Canvas, int]]) -> dict[str, torch.Tensor]:
        """Return a batch; raises `MedReasonerError` naming the row of an example that is too long."""
        shown = [canvas.shown(row).picture.pixels.copy() for canvas, row in lessons]
        pixels = self._processor.image_processor(images=shown, return_tensors="pt")
        pairs = [self._tokens(*one, grid) for one, grid in zip(lessons, pixels["image_grid_thw"], strict=True)]
        longest = max(len(prompt) + len(answer) for prompt, answer, _ in pairs)
        ids = torch.full((len(lessons), longest), self._processor.tokenizer.pad_token_id)
        labels, keep = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for at, (prompt, answer, taught) in enumerate(pairs):
            end = len(prompt) + len(answer)
            ids[at, :end] = torch.tensor(prompt + answer)
            labels[at, len(prompt) : end] = torch.tensor(taught)
            keep[at, :end] = 1
        kinds = (ids == self._image_token).int()  # 1 marks image tokens for the rotary positions
        return {"input_ids": ids, "attention_mask": keep, "labels": labels, "mm_token_type_ids": kinds, **pixels}

    def _tokens(self, canvas: Canvas, row: int, grid: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens of the prompt and of the answer, and the answer's labels."""
        written = self._processor.apply_chat_template(canvas.turn(row), add_generation_prompt=True, tokenize=False)
        text = written.replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // self._merge**2))
        tokenizer = self._processor.tokenizer
        prompt: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        said, example = canvas.answer(row) + "<|im_end|>", canvas.rows[row].example
        read = tokenizer(said, add_special_tokens=False, return_offsets_mapping=True)
        answer: list[int] = read["input_ids"]
        if len(prompt) + len(answer) > self._most:
            raise MedReasonerError(
                f"{example.where}: prompt and answer have {len(prompt) + len(answer)} tokens",
                f"raise max_tokens above {self._most}, or shorten the question",
            )
        spans = unknown(said, example.kind, example.questions.appearance) if self._only_known else []
        taught = [
            IGNORED if any(first < end and start < last for start, end in spans) else token
            for token, (first, last) in zip(answer, read["offset_mapping"], strict=True)
        ]
        return prompt, answer, taught


def make_arguments(config: FinetuneConfig, run: Path) -> TrainingArguments:
    """Translate the configuration into transformers'."""
    return TrainingArguments(**common_arguments(config, run))


def make_trainer(config: FinetuneConfig, start: Start, arguments: TrainingArguments) -> Teacher:
    """Put model and data together."""
    model = with_given_adapter(config, start.model)
    lora = adapters(config)
    if lora is not None:
        torch.manual_seed(config.seed)
        model = get_peft_model(model, lora)
    if config.recompute and isinstance(model, PeftModel):
        model.enable_input_require_grads()
    return Teacher(
        model=model,
        args=arguments,
        data_collator=Batches(start.processor, start.model.config, config.max_tokens, config.only_known),
        train_dataset=Lessons(start.train),
        eval_dataset=None if start.validation is None else Lessons(start.validation),
        processing_class=start.processor,
        callbacks=[TimeLimit(config.minutes), Progress()],
    )


def main(argv: list[str] | None = None) -> None:
    command("finetune", FinetuneConfig, make_arguments, make_trainer, __doc__, argv)


if __name__ == "__main__":
    main()
