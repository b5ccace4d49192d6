"""Supervised cold start of the embedded reasoner, inside a time limit; saves, resumes, prints a short table.

python -m rl_training.pack DATA PACKED
python -m rl_training.trunk SmolLM2-135M-Instruct.Q4_1.gguf BASE
python -m rl_training.sft rl_training/configs/embedded_sft.yaml --data DATA --packed PACKED --base BASE --out RUN
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from medreasoner.console import errors_for_people
from medreasoner.contract.errors import CheckpointError
from medreasoner.evaluation.cases import read_samples
from medreasoner.reasoner.adapter import CONFIG as ADAPTER
from medreasoner.reasoner.card import FILE as CARD
from medreasoner.reasoner.quantised import load_quantised, rounded, save_quantised
from rl_training.batch import Batch
from rl_training.config import SftConfig
from rl_training.feed import Feed
from rl_training.learner import Learner
from rl_training.pack import load_masks, open_pictures
from rl_training.questions import training_absent, training_entries
from rl_training.warp import Freedom, warp_batch


def load_model(folder: Path, device: torch.device, adapter: bool = True) -> Any:
    """Load a folder of quantised weights; a folder without a vision tower gets a freshly drawn one.

    Without `adapter` the one that lies beside the weights is left out: the embedded reasoner's supervised stage.

    Raises:
        CheckpointError: files are missing or damaged, or the weights are of another model than its config.json.
    """
    torch.manual_seed(0)
    model: Any = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder))
    state = load_quantised(folder, adapter)
    missing, unexpected = model.load_state_dict(state, strict=False)
    wrong = [k for k in missing if "visual" not in k and k != "lm_head.weight"] + list(unexpected)
    if wrong:
        raise CheckpointError(
            f"the weights in {folder} do not fit its config.json: {wrong[:5]}", "fetch or make the folder again"
        )
    model.tie_weights()
    return model.to(device)


class Run:
    """Everything that a checkpoint holds, and one step of training."""

    def __init__(self, learner: Learner, config: SftConfig, device: torch.device) -> None:
        self.learner, self.config, self.device = learner, config, device
        self.step, self.elapsed = 0, 0.0
        vision: list[nn.Parameter] = []
        text: list[nn.Parameter] = []
        for name, parameter in learner.named_parameters():
            (vision if "visual" in name or "mask_heads" in name else text).append(parameter)
        groups = [{"params": text, "peak": config.text_rate}, {"params": vision, "peak": config.vision_rate}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=1.0, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=device.type == "cuda"
        )
        self.live: list[torch.Tensor] = list(learner.parameters())
        self.average = [p.detach().clone() for p in self.live]
        self.generator = torch.Generator(device=device).manual_seed(config.seed)
        learner.compiled = device.type == "cuda"

    def train_step(self, batch: Batch, pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Warp, fill in, forward, backward, update, average; returns the loss parts."""
        freedom = Freedom(batch.warp, batch.across, batch.down)
        moved, moved_masks = warp_batch(pictures, masks * batch.there[:, None, None], freedom, self.generator)
        ids, numbers = self.learner.place(batch, moved_masks)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            total, parts = self.learner(
                moved, moved_masks, ids, batch.weight, batch.image_start, batch.numbers, numbers, batch.there
            )
        self.update(total)
        return torch.as_tensor(parts)

    def update(self, total: torch.Tensor) -> None:
        """Go down the gradient of a loss, at the schedule's rate, and average."""
        config = self.config
        progress = min(1.0, self.elapsed / config.seconds)
        rate = min(1.0, (self.step + 1) / config.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.live, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.live, 1 - decay)

    def save(self, path: Path) -> None:
        """Write the whole state to a temporary file and rename it."""
        state = {
            "learner": self.learner.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        temporary = path.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(path)

    def resume(self, path: Path) -> None:
        """Load what `save` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        for mine, saved in zip(self.average, state["average"], strict=True):
            mine.copy_(saved)
        self.generator.set_state(state["generator"].cpu())
        self.step, self.elapsed = state["step"], state["elapsed"]

    def averaged_weights(self) -> dict[str, torch.Tensor]:
        """Return the averaged model weights, without the mask heads."""
        names = [name for name, _ in self.learner.named_parameters()]
        pairs = zip(names, self.average, strict=True)
        return {n.removeprefix("model."): p for n, p in pairs if n.startswith("model.") and "mask_heads" not in n}


def train(run: Run, feed: Feed, pictures: torch.Tensor, masks: torch.Tensor, limit: float, log: Path) -> None:
    """Train until the schedule or this run's time limit (seconds) ends; log the loss parts every 100 steps."""
    start, before = time.perf_counter(), run.elapsed
    picture_rows = torch.tensor([s["picture_row"] for s in feed.samples])
    recent: list[torch.Tensor] = []
    run.learner.train()
    for batch in feed.stream(seed=run.config.seed + run.step, workers=6 if run.device.type == "cuda" else 0):
        rows = picture_rows[batch.sample]
        shown = pictures[rows.to(pictures.device)].to(run.device).permute(0, 3, 1, 2).float() / 255
        target = masks[batch.sample.to(masks.device)].to(run.device).float()
        recent.append(run.train_step(batch.to(run.device), shown, target))
        run.elapsed = before + time.perf_counter() - start
        if run.step % 100 == 0:
            parts = torch.stack(recent[-100:]).mean(0).tolist()
            names = ("text", "numbers", "overlap", "masks")
            line = {
                "step": run.step,
                "elapsed_s": round(run.elapsed),
                **dict(zip(names, (round(p, 4) for p in parts), strict=True)),
            }
            print(json.dumps(line), flush=True)
            with log.open("a") as out:
                out.write(json.dumps(line) + "\n")
            recent.clear()
        if run.elapsed >= run.config.seconds or time.perf_counter() - start >= limit:
            return


def write_weights(run: Run, base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Write a folder that is whole without its card, and return its weights as they are read back from int8 rows."""
    weights = rounded(run.averaged_weights())
    save_quantised(weights, folder)
    for file in base.iterdir():  # tokenizer, configuration and processor
        if file.suffix in (".json", ".jinja") and file.name not in (CARD, ADAPTER):
            shutil.copy(file, folder)
    return weights


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="umrg-mini's samples and questions")
    parser.add_argument("--packed", type=Path, required=True, help="what rl_training.pack wrote")
    parser.add_argument("--base", type=Path, required=True, help="what rl_training.trunk wrote, or a trained folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=1e9, help="seconds of this run; the schedule goes on at resume")
    parser.add_argument("--evaluate", choices=["", "val", "test"], default="", help="evaluate on this split at the end")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return parser.parse_args()


@errors_for_people()
def main() -> None:
    args = parsed()
    config = SftConfig.from_yaml(args.config)
    print(config, flush=True)
    if args.dry_run:
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    random.seed(config.seed)
    samples = read_samples(args.data)
    pictures = open_pictures(args.packed, samples)
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    feed = Feed(samples, training_entries(args.data), training_absent(args.data), tokenizer, config)
    learner = Learner(load_model(args.base, device), tokenizer, config).to(device)
    run = Run(learner, config, device)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "state.pt"
    if checkpoint.exists():
        run.resume(checkpoint)
    questions = sum(len(asked) for entry in feed.entries.values() for asked in entry.by_style.values())
    print(f"{len(feed.rows)} targets, {questions} questions")
    shown, truth = torch.from_numpy(pictures).to(device), torch.from_numpy(load_masks(args.packed)).to(device)
    train(run, feed, shown, truth, args.limit, args.out / "log.jsonl")
    run.save(checkpoint)
    weights = write_weights(run, args.base, args.out / "weights")
    if args.evaluate:
        from rl_training.evaluate import evaluate_split, print_table

        learner.model.load_state_dict(weights, strict=False)
        cases = evaluate_split(learner.model, tokenizer, samples, shown, truth, args.data, args.evaluate, config.canvas)
        (args.out / f"{args.evaluate}.json").write_text(json.dumps(cases))
        print_table(cases)


if __name__ == "__main__":
    main()
