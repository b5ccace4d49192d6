"""Tune the prompt encoder and the mask decoder; the image encoder stays as it is.

Loss of a mask: binary cross-entropy plus soft Dice, as MedSAM's (Ma et al., 2024), plus the squared error of the
decoder's estimate of its IoU, as SAM's (Kirillov et al., 2023, appendix A).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.expert.box_decoder import decode_prompts
from medreasoner.expert.litemedsam import Look
from rl_training.expert.config import ExpertConfig
from rl_training.expert.embeddings import Embeddings
from rl_training.expert.prompts import draw_prompt
from rl_training.expert.targets import Target, drawing_weights
from rl_training.expert.window import Window

_FIXED = ("image_encoder.", "prompt_encoder.mask_downscaling.")  # the latter is for masks as prompts: nobody gives any
PARTS = ("loss", "cross_entropy", "dice", "quality")
Decoder = Callable[..., tuple[Tensor, Tensor]]
Asked = tuple[Look, Sequence[Target]]  # a picture, and what to ask for on it


class Tuning:
    """Everything that a checkpoint holds, and one step of training."""

    def __init__(self, network: nn.Module, config: ExpertConfig) -> None:
        """Take a LiteMedSAM network, whose image encoder is not used."""
        self.network, self.config = network, config
        self.step, self.elapsed = 0, 0.0
        named = [(n, p) for n, p in network.named_parameters() if not n.startswith(_FIXED)]
        self.names = [n for n, _ in named]
        self.live: list[Tensor] = [p for _, p in named]
        network.requires_grad_(False)
        for parameter in self.live:
            parameter.requires_grad_(True)
        self.average = [p.detach().clone() for p in self.live]
        self.optimizer = torch.optim.AdamW(self.live, lr=config.rate, weight_decay=config.weight_decay)

    def train_step(self, asked: Sequence[Asked], rng: np.random.Generator, rate: float) -> Tensor:
        """Learn from pictures, each with the targets to ask for; returns the mean loss and its parts, (4,)."""
        decoder = self.in_short_floats()
        parts = torch.stack([self._losses(decoder, look, targets, rng) for look, targets in asked]).mean(0)
        torch.autograd.backward(parts[0])
        nn.utils.clip_grad_norm_(self.live, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.config.rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.live, 1 - decay)
        return parts.detach()

    def _losses(self, decoder: Decoder, look: Look, targets: Sequence[Target], rng: np.random.Generator) -> Tensor:
        drawn = [draw_prompt(target, self.config, rng) for target in targets]
        boxes = torch.from_numpy(np.stack([box for box, _ in drawn]))
        points = torch.from_numpy(np.stack([pair for _, pair in drawn]))
        alone, whole = rng.random() < self.config.box_only, rng.random() < self.config.whole_pictures
        window = Window.of(look) if whole else Window.around([*boxes.numpy(), *(t.box for t in targets)], look)
        logits, quality = self.decode(decoder, look, boxes, None if alone else points, window)
        truth = torch.stack([t.on_canvas()[window.pixels] for t in targets])
        return mask_losses(logits[:, : truth.shape[1], : truth.shape[2]], quality, truth, self.config)

    def in_short_floats(self) -> Decoder:
        """Return the mask decoder, weights and all, in bfloat16 if the configuration says so.

        Gradients reach the float32 weights. Autocast would go back to float32 at each of the decoder's many
        normalisations. The prompt encoder stays as it is, for positions have more digits than bfloat16.
        """
        module = self.network.get_submodule("mask_decoder")
        kind = torch.bfloat16 if self.config.brain_floats else torch.float32
        weights = {name: parameter.to(kind) for name, parameter in module.named_parameters()}

        def decode(window: Window, multimask_output: bool, **inputs: Tensor) -> tuple[Tensor, Tensor]:
            seen = {n: (t[window.tokens] if t.ndim == 4 else t).to(kind) for n, t in inputs.items()}
            found: tuple[Tensor, Tensor] = functional_call(
                module, weights, (), {**seen, "multimask_output": multimask_output}
            )
            return found

        return decode

    def decode(
        self, decoder: Decoder, look: Look, boxes: Tensor, points: Tensor | None, window: Window
    ) -> tuple[Tensor, Tensor]:
        """Return (prompts, rows, columns) logits of the window's pixels and (prompts,) estimates of the IoU."""
        encoder = self.network.get_submodule("prompt_encoder")
        mixed = SimpleNamespace(prompt_encoder=encoder, mask_decoder=partial(decoder, window))
        logits, quality = decode_prompts(mixed, look.features, boxes, points)
        return logits[:, 0].float(), quality[:, 0].float()

    def tuned(self) -> dict[str, Tensor]:
        """Return the averaged weights beside the fixed ones of both parts, by the network's names."""
        state = self.network.state_dict()
        averaged = dict(zip(self.names, self.average, strict=True))
        return {n: averaged.get(n, tensor) for n, tensor in state.items() if not n.startswith("image_encoder.")}

    def save(self, path: Path) -> None:
        """Write the whole state to a temporary file, then rename it: a full disk leaves the last good one alone.

        Raises:
            MedReasonerError: it could not be written.
        """
        state = {
            "live": self.live,
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        temporary = path.with_suffix(".part")
        try:
            torch.save(state, temporary)
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where the disk is full
            temporary.unlink(missing_ok=True)
            raise MedReasonerError(
                f"{path} could not be written: {error}", "free some space and start again"
            ) from error

    def resume(self, path: Path) -> None:
        """Load what `save` wrote.

        Raises:
            CheckpointError: the file is damaged, or of another network.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(state["optimizer"])
            with torch.no_grad():
                for mine, saved in zip([*self.live, *self.average], [*state["live"], *state["average"]], strict=True):
                    mine.copy_(saved)
            self.step, self.elapsed = state["step"], state["elapsed"]
        except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, UnpicklingError) as error:
            raise CheckpointError(f"{path} is not a state of this training", "remove it to begin anew") from error


def mask_losses(logits: Tensor, quality: Tensor, truth: Tensor, config: ExpertConfig) -> Tensor:
    """Return total, cross-entropy, 1 - soft Dice, and squared error of the estimated IoU, means over the prompts.

    Args:
        logits: (prompts, rows, columns).
        quality: (prompts,), the decoder's estimate of each mask's IoU.
        truth: (prompts, rows, columns) in [0, 1].
        config: weights of the parts.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, truth)
    likely = logits.sigmoid()
    both, either = (likely * truth).sum((1, 2)), likely.sum((1, 2)) + truth.sum((1, 2))
    dice = (1 - (2 * both + 1) / (either + 1)).mean()
    with torch.no_grad():
        found, there = logits > 0, truth > 0.5
        union = (found | there).sum((1, 2)).clamp(min=1)
        iou = (found & there).sum((1, 2)) / union
    error = F.mse_loss(quality, iou)
    total = entropy + config.dice_weight * dice + config.quality_weight * error
    return torch.stack([total, entropy, dice, error])


def rate_at(step: int, progress: float, warmup: int) -> float:
    """Return the share of the peak rate: a linear warm-up, then half a cosine from 1 to 0.02 over the progress."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train(
    tuning: Tuning,
    targets: Sequence[Target],
    embeddings: Embeddings,
    seconds: float,
    schedule_seconds: float,
    done: Callable[[int, Tensor], None],
) -> None:
    """Train until the schedule or this run's time ends.

    What a step sees depends on the seed and the step's number alone, so a resumed run goes on as if never cut off.

    Args:
        tuning: goes on from its step.
        targets: on pictures that `embeddings` has.
        embeddings: the pictures' features.
        seconds: of this run.
        schedule_seconds: of all runs together; the rate falls with the steps or with this time, whichever is quicker.
        done: called after each step with its number and the parts of its loss.
    """
    if not targets:
        raise MedReasonerError("there is nothing to train on", "look at some pictures of the training split first")
    config = tuning.config
    by_image: dict[str, list[int]] = defaultdict(list)
    for number, target in enumerate(targets):
        by_image[target.image].append(number)
    weights = drawing_weights(targets, config.balance, config.dispersed)
    start, before = time.monotonic(), tuning.elapsed
    while tuning.step < config.steps:
        rng = np.random.default_rng([config.seed, tuning.step])
        asked = []
        for first in rng.choice(len(targets), config.pictures_a_step, p=weights):
            others = by_image[targets[first].image]
            share = weights[others] / weights[others].sum()
            more = rng.choice(others, config.prompts_a_picture - 1, p=share)
            asked.append((embeddings[targets[first].image], [targets[i] for i in (first, *more)]))
        progress = max(tuning.step / config.steps, tuning.elapsed / schedule_seconds)
        parts = tuning.train_step(asked, rng, rate_at(tuning.step, progress, config.warmup))
        tuning.elapsed = before + time.monotonic() - start
        done(tuning.step, parts)
        if tuning.elapsed >= schedule_seconds or time.monotonic() - start >= seconds:
            return
