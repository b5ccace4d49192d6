"""How many tokens a second, and how much memory, does an update of GRPO take on this machine?

python -m benchmarks.grpo_step [--shape tiny | embedded | 3b | 7b] [--lora RANK] [--updates 3] [--completion 64]
torchrun --nproc-per-node 2 -m benchmarks.grpo_step --shape 7b --deepspeed zero3

The last line is JSON. "tiny" has random weights, "embedded" the ones that ship, "3b" and "7b" random weights of
Qwen2.5-VL's published sizes. Pictures and questions are made up, completions are cut at `--completion` tokens. Two ways
are timed in one run on the same completions' length: our configuration, and TRL 1.16's own defaults (no reference, one
completion at a time through the backward pass, activations recomputed). The first update warms up and is left out.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, TrainerCallback

from benchmarks.figures import print_figures
from medreasoner.contract.answer import Box, Point
from medreasoner.evaluation.questions import Entry
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.catalogue import embedded_folder
from rl_training.config import GrpoConfig, Lora, Vllm
from rl_training.dataset import Example
from rl_training.grpo import make_arguments, make_trainer
from rl_training.rows import Canvas, Row
from rl_training.shapes import configuration
from rl_training.stage import Start, attention_of, devices, load_model
from rl_training.starting import plain_folder
from rl_training.tiny import make_tiny, tokenizer
from rl_training.trunk import IMAGE_TOKENS, processor

QUESTION = "Which bright round structure do the vessels come from?"


class Clock(TrainerCallback):
    """Seconds and tokens of every update but the first."""

    def __init__(self) -> None:
        self.seconds, self.tokens, self._begun, self._seen = 0.0, 0, 0.0, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._begun, self._seen = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step > 1:
            self.seconds += time.perf_counter() - self._begun
            self.tokens += int(state.num_input_tokens_seen - self._seen)


def folder_of(shape: str, where: Path) -> tuple[Path, int]:
    """Return a folder to start from and its canvas."""
    if shape == "tiny":
        return make_tiny(where / "tiny"), 56
    if shape == "embedded":
        return plain_folder(embedded_folder(), where), 336
    words, config, folder = tokenizer(), configuration(shape), where / shape
    start, end, image, video = (int(words.vocab[token]) for token in IMAGE_TOKENS)
    config.vision_start_token_id, config.vision_end_token_id = start, end
    config.image_token_id, config.video_token_id = image, video
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        processor(words, 840).save_pretrained(folder)
    return folder, 840


def rows(canvas: int, count: int) -> list[Row]:
    """Make noisy pictures with a question each."""
    made = []
    for number in range(count):
        stream = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (canvas, canvas, 3), np.uint8)
        Image.fromarray(noise).save(stream, "PNG")
        place = Box(1, 1, canvas // 2, canvas // 2), (Point(4, 4), Point(9, 9))
        example = Example(
            str(number), f"row {number}", stream.getvalue(), Entry("disc", "", {}), box=place[0], points=place[1]
        )
        made.append(Row(example, QUESTION))
    return made


def timed(config: GrpoConfig, folder: Path, canvas: int, where: Path) -> dict[str, Any]:
    """Run one configuration; returns tokens a second and GiB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    arguments = make_arguments(config, where)
    arguments.save_strategy, arguments.report_to = "no", []
    card = ReasonerCard("timed", canvas, "direct", dialect="strict")
    shown = Canvas(rows(canvas, config.questions_per_generation * 2), card)
    start = Start(folder, card, load_model(config, folder), AutoProcessor.from_pretrained(folder), shown, None)
    trainer, clock = make_trainer(config, start, arguments), Clock()
    trainer.add_callback(clock)
    trainer.train()
    lengths = [
        entry["completions/mean_length"] for entry in trainer.state.log_history if "completions/mean_length" in entry
    ]
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    del trainer, start
    gc.collect()
    return {
        "tokens_per_second": round(clock.tokens / clock.seconds, 1),
        "seconds_per_update": round(clock.seconds / (config.max_updates - 1), 3),
        "completion_tokens": round(sum(lengths) / len(lengths), 1),
        "peak_gib": round(peak, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["tiny", "embedded", "3b", "7b"], default="tiny")
    parser.add_argument("--lora", type=int, default=0, help="rank; 0: every weight is trained")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--micro", type=int, default=4, help="completions through the backward pass together, in ours")
    parser.add_argument("--completion", type=int, default=64, help="tokens")
    parser.add_argument("--deepspeed", choices=["", "zero2", "zero3"], default="")
    parser.add_argument("--vllm", action="store_true", help="ours with a colocated vLLM")
    given = parser.parse_args()
    ours = GrpoConfig(
        reasoner=given.shape,
        rewards={"format_reward": 1, "box_iou": 1, "point_dice": 1},
        group=given.group,
        questions_per_generation=devices(),
        questions_per_update=devices(),
        micro_batch=given.micro,
        max_updates=given.updates,
        max_completion=given.completion,
        recompute=given.shape in ("3b", "7b"),
        lora=Lora(rank=given.lora, alpha=2 * given.lora) if given.lora else None,
        deepspeed=given.deepspeed,
        vllm=Vllm() if given.vllm else None,
    )
    plain = replace(ours, kl_weight=0.0, micro_batch=1, recompute=True, vllm=None)
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        folder, canvas = folder_of(given.shape, where)
        results = {
            name: timed(config, folder, canvas, where) for name, config in (("ours", ours), ("trl_defaults", plain))
        }
    if int(os.environ.get("RANK", "0")) == 0:
        peak_is = "allocated on the first GPU" if torch.cuda.is_available() else "of the process so far"
        print_figures({"attention": attention_of(ours), "processes": devices(), **results, "peak_is": peak_is})


if __name__ == "__main__":
    main()
