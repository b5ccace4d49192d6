"""The parts of benchmarks.grpo_step: weights, updates, a checkpoint gone on with, a checkpoint merged.

python -m benchmarks.grpo_parts PART FOLDER
torchrun --nproc-per-node 2 -m benchmarks.grpo_parts ours FOLDER

FOLDER has the step.json that benchmarks.grpo_step writes; figures go to FOLDER/PART.json.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks.grpo_clock import BEGUN, GIB, Clock, peak
from benchmarks.grpo_step import STEP_FILE, Step
from medreasoner.contract.answer import Box, Point
from medreasoner.evaluation.questions import Entry
from medreasoner.folders import embedded_folder
from medreasoner.reasoner.card import ReasonerCard
from rl_training.checkpoints import last_whole
from rl_training.config import GrpoConfig, Lora, Vllm
from rl_training.dataset import Example
from rl_training.grpo import make_arguments, make_trainer
from rl_training.merge import merge
from rl_training.plan import memory, prompt_tokens
from rl_training.rewards import REWARDS
from rl_training.rows import Canvas, Row
from rl_training.running import write_run
from rl_training.shapes import configuration, shape_in
from rl_training.stage import Start, attention_of, devices, load_model
from rl_training.starting import plain_folder
from rl_training.tiny import make_tiny, tokenizer
from rl_training.trunk import IMAGE_TOKENS, processor

CANVAS = {"tiny": 56, "embedded": 336, "3b": 840, "7b": 840}
QUESTION = "Which bright round structure do the vessels come from?"


def even(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Share of even tokens: random weights earn it, so that there is something to learn; in [0, 1]."""
    return [sum(token % 2 == 0 for token in ids) / max(1, len(ids)) for ids in completion_ids]


def configured(step: Step) -> GrpoConfig:
    """Return our configuration of a step, with a question of its own for each process."""
    REWARDS[even.__name__] = even
    return GrpoConfig(
        reasoner=step.shape,
        rewards={"format_reward": 1, "box_iou": 1, "point_dice": 1, even.__name__: 1},
        learning_rate=1e-3 if step.lora else 1e-4,  # large enough to be seen in bf16 after an update
        group=step.group,
        questions_per_generation=devices(),
        questions_per_update=devices(),
        micro_batch=step.micro,
        max_updates=step.updates,
        max_completion=step.completion,
        save_every=step.updates,
        recompute=step.recompute,
        lora=Lora(rank=step.lora, alpha=2 * step.lora) if step.lora else None,
        deepspeed=step.deepspeed,  # type: ignore[arg-type]
        vllm=Vllm() if step.vllm else None,
    )


def start(step: Step, where: Path) -> dict[str, Any]:
    """Write the weights that all other parts begin with."""
    folder = where / "start"
    if step.shape == "tiny":
        make_tiny(folder)
    elif step.shape == "embedded":
        plain_folder(embedded_folder(), where)
    else:
        words, told = tokenizer(), configuration(step.shape).to_dict()
        if step.layers:
            told["text_config"] |= {"num_hidden_layers": step.layers, "layer_types": None}
        marks = (int(words.vocab[token]) for token in IMAGE_TOKENS)
        names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
        config = Qwen2_5_VLConfig.from_dict({**told, **dict(zip(names, marks, strict=True))})
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
        print(f"made after {time.monotonic() - BEGUN:.0f} s", flush=True)
        model.save_pretrained(folder)
        processor(words, CANVAS[step.shape]).save_pretrained(folder)
    shape = shape_in(folder)
    return {"parameters_billion": round(shape.parameters / 1e9, 3), "layers": shape.layers, "gib": size(folder)}


def size(folder: Path) -> float:
    """Return the GiB of a folder's files."""
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / GIB, 2)


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


def train(
    config: GrpoConfig, step: Step, where: Path, run: Path, newest: Path | None = None, save: bool = True
) -> dict[str, Any]:
    """Train with one configuration; returns tokens a second and GiB, and what was planned for them."""
    folder, card = where / "start", ReasonerCard("timed", CANVAS[step.shape], "direct", dialect="strict")
    shape = shape_in(folder)  # before the arguments: under ZeRO-3 they change how any model is made
    arguments = make_arguments(config, run)
    arguments.report_to = []
    if not save:
        arguments.save_strategy = "no"
    shown = Canvas(rows(card.canvas, config.questions_per_generation * 2), card)
    begin = Start(folder, card, load_model(config, folder), AutoProcessor.from_pretrained(folder), shown, None)
    trainer, clock = make_trainer(config, begin, arguments), Clock()
    trainer.add_callback(clock)
    if trainer.accelerator.is_main_process:
        write_facts(config, begin, where, run)
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    lengths = [entry[name] for entry in trainer.state.log_history if (name := "completions/mean_length") in entry]
    return {
        "updates": trainer.state.global_step,
        "tokens_per_second": round(clock.tokens / clock.seconds, 1),
        "seconds_per_update": round(clock.seconds / clock.updates, 3),
        "completion_tokens": round(sum(lengths) / len(lengths), 1),
        **peak(),
        "planned_gib": round(memory(config, shape, prompt_tokens(shape, card), devices()).total, 2),
        "attention": attention_of(config),
        "ready_after_seconds": round(clock.ready, 1),
        "saved_in_seconds": round(clock.saving, 1),
        "begins_with": clock.begins_with,
        "saved": clock.saved,
    }


def write_facts(config: GrpoConfig, begin: Start, where: Path, run: Path) -> None:
    """Write down what `rl_training.merge` reads of a run."""
    data = where / "data"
    for folder in (data, run):
        folder.mkdir(exist_ok=True)
    (data / "samples.jsonl").write_text("\n".join(row.example.where for row in begin.train.rows), encoding="utf-8")
    write_run("grpo", config, begin, data, run)


def ours(step: Step, where: Path) -> dict[str, Any]:
    """Train with our configuration and save."""
    figures = train(configured(step), step, where, where / "run")
    return {**figures, "checkpoint_gib": size(saved(where))}


def trl_defaults(step: Step, where: Path) -> dict[str, Any]:
    """Train as TRL 1.16 would if it were told nothing of this."""
    config = replace(configured(step), kl_weight=0.0, micro_batch=1, recompute=True, vllm=None)
    return train(config, step, where, where / "defaults", save=False)


def resumed(step: Step, where: Path) -> dict[str, Any]:
    """Take one more update from the saved one."""
    config = replace(configured(step), max_updates=step.updates + 1)
    figures = train(config, step, where, where / "run", saved(where), save=False)
    before = json.loads((where / "ours.json").read_text(encoding="utf-8"))
    told = {name: figures[name] for name in ("updates", "peak_gib", "ready_after_seconds")}
    return {**told, "begins_as_saved": figures["begins_with"] == before["saved"]}


def saved(where: Path) -> Path:
    """Return the checkpoint that `ours` left."""
    newest = last_whole(where / "run")
    if newest is None:
        sys.exit("nothing whole was saved")
    return newest


def merged(step: Step, where: Path) -> dict[str, Any]:  # noqa: ARG001
    """Merge the saved update, and count the weights that are not those of the start."""
    began, folder = time.monotonic(), where / "merged"
    merge(where / "run", folder)
    took = time.monotonic() - began
    before, after = (tensors(f) for f in (where / "start", folder))
    if before.keys() != after.keys():
        sys.exit(f"not the same weights: {sorted(before.keys() ^ after.keys())[:5]}")
    changed = finite = 0
    for name, file in after.items():
        with safe_open(file, "pt") as new, safe_open(before[name], "pt") as old:
            weight = new.get_tensor(name)
            changed += not torch.equal(weight, old.get_tensor(name).to(weight.dtype))
            finite += bool(torch.isfinite(weight).all())
    told = {"weights": len(after), "changed": changed, "finite": finite}
    return {"seconds": round(took, 1), "gib": size(folder), **told}


def tensors(folder: Path) -> dict[str, Path]:
    """Return the file of each weight in a folder."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found


PARTS = {part.__name__: part for part in (start, ours, trl_defaults, resumed, merged)}


def main() -> None:
    name, where = sys.argv[1], Path(sys.argv[2])
    step = Step(**json.loads((where / STEP_FILE).read_text(encoding="utf-8")))
    if step.deepspeed and not torch.cuda.is_available():
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiling it takes over a minute
    figures = PARTS[name](step, where)
    if int(os.environ.get("RANK", "0")) == 0:
        (where / f"{name}.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
