"""One step of the embedded reasoner's GRPO: draw questions, answer each many times, reward, learn.

Every step is on policy: the answers are drawn from the weights that they then change, so no ratio needs clipping.
Group relative advantages: Shao et al., 2024, https://arxiv.org/abs/2402.03300, equation 3 with outcome rewards; the
mean over all tokens of a step is DAPO's, https://arxiv.org/abs/2503.14476.
"""

from __future__ import annotations

import math
import random
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medreasoner.contract.answer import AbsentAnswer
from rl_training.batch import Batch
from rl_training.config import EmbeddedGrpoConfig
from rl_training.feed import Feed
from rl_training.learner import TAIL, Learner
from rl_training.mask_scores import MaskScores
from rl_training.policy import Asked, Policy
from rl_training.rewards import REWARDS, iou
from rl_training.rewards.reading import read
from rl_training.rollout import Sampler, Samples
from rl_training.warp import Freedom, boxes_and_points, warp_batch


class Run:
    """Everything that a checkpoint holds, and one step of training."""

    def __init__(self, model: Any, feed: Feed, config: EmbeddedGrpoConfig) -> None:
        """Take a model on its device, a feed made with `config.supervised()`, and the configuration."""
        self.config, self.device, self.feed, self.step = config, model.device, feed, 0
        self.tokenizer = feed.tokenizer
        self.policy = Policy(model, config)
        device = self.device
        self.learner = Learner(self.policy.model, self.tokenizer, config.supervised()).to(device)
        self.learner.compiled = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.policy.parameters, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
        self.opening = self.tokenizer("<think>", add_special_tokens=False)["input_ids"]
        self.stop = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        rows, pad = config.questions * config.group, self.tokenizer.pad_token_id
        self.sampler = Sampler(self.policy.actor, rows, config.prompt, config.answer, self.stop, pad)
        self.mask_scores = MaskScores(device) if "mask_dice" in config.rewards else None

    def train_step(self, pictures: torch.Tensor, masks: torch.Tensor) -> dict[str, float]:
        """Draw questions, answer, reward, learn; returns what is to be logged.

        Args:
            pictures: (all pictures, side, side, 3) uint8.
            masks: (all targets, side, side) uint8.
        """
        config = self.config
        torch.manual_seed(config.seed + 1_000_003 * (self.step + 1))  # a step depends on its number alone
        generator = torch.Generator(device=self.device).manual_seed(config.seed + 7_919 * (self.step + 1))
        batch = self.feed.batch(random.Random(f"{config.seed} {self.step}"))
        rows = torch.tensor([self.feed.samples[i]["picture_row"] for i in batch.sample.tolist()])
        shown = pictures[rows.to(pictures.device)].to(self.device).permute(0, 3, 1, 2).float() / 255
        truth = masks[batch.sample.to(masks.device)].to(self.device).float()
        batch = batch.to(self.device)
        freedom = Freedom(batch.warp, batch.across, batch.down)
        moved, moved_masks = warp_batch(
            shown, truth * batch.there[:, None, None], freedom, generator, config.warp_strength
        )
        logs: dict[str, float] = {}
        if config.rewards:
            logs |= self._reinforce(batch, moved, moved_masks)
        if config.supervised_weight:
            logs["supervised"] = self._teach(batch, moved, moved_masks)
        logs["grad_norm"] = float(nn.utils.clip_grad_norm_(self.policy.parameters, config.clip_gradient))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return logs

    def _rate(self) -> float:
        """Share of the peak rate: a linear warm-up, then half a cosine down to a tenth."""
        config = self.config
        progress = min(1.0, self.step / config.steps)
        warm = min(1.0, (self.step + 1) / max(1, config.warmup))
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))

    def asked(self, batch: Batch, pictures: torch.Tensor) -> Asked:
        """Take the prompts out of a supervised batch, each with the answer's opening behind it."""
        lengths = batch.image_start + (pictures.shape[-1] // 28) ** 2 + TAIL + len(self.opening)
        at = torch.arange(self.config.prompt, device=batch.ids.device)
        ids = batch.ids[:, : self.config.prompt].masked_fill(at >= lengths[:, None], self.tokenizer.pad_token_id)
        return Asked(ids, lengths, batch.image_start, pictures)

    def _reinforce(self, batch: Batch, pictures: torch.Tensor, masks: torch.Tensor) -> dict[str, float]:
        config = self.config
        asked = self.asked(batch, pictures)
        self.policy.refresh_actor()
        samples = self.sampler.sample(asked.ids, asked.lengths, asked.image_start, pictures)
        texts = ["<think>" + text for text in self.tokenizer.batch_decode(answers_before(self.stop, samples.tokens))]
        scores = self._scores(batch, pictures, masks, texts)
        total = torch.tensor([sum(config.rewards[n] * scores[n][i] for n in config.rewards) for i in range(len(texts))])
        advantage = group_advantages(total, config.group).to(self.device)
        divergence = self._learn(asked, samples, advantage)
        there = batch.there.repeat_interleave(config.group).tolist()
        ious = [value for value in scores["iou"] if value is not None]
        kinds = [read(text) for text in texts]
        absent = [isinstance(k, AbsentAnswer) for k, present in zip(kinds, there, strict=True) if present]
        logs = {f"rewards/{name}/mean": sum(values) / len(values) for name, values in scores.items() if name != "iou"}
        return logs | {
            "reward": float(total.mean()),
            "rewards/iou/mean": sum(ious) / max(1, len(ious)),
            "false_absent": sum(absent) / max(1, len(absent)),
            "unreadable": sum(kind is None for kind in kinds) / len(kinds),
            "kl": divergence,
            "completions/mean_length": float(samples.lengths.float().mean()),
            "groups_without_difference": float((advantage.reshape(-1, config.group) == 0).all(1).float().mean()),
        }

    def _learn(self, asked: Asked, samples: Samples, advantage: torch.Tensor) -> float:
        """Add up the gradients of GRPO's loss; return the mean divergence from the start, nats a token."""
        config = self.config
        written = torch.arange(config.answer, device=self.device) < samples.lengths[:, None]
        count, divergence = written.sum(), 0.0
        rows = config.micro_batch * config.group
        for part in range(config.questions // config.micro_batch):
            some = slice(part * rows, (part + 1) * rows)
            few = asked.part(part * config.micro_batch, (part + 1) * config.micro_batch)
            tokens, counted = samples.tokens[some], written[some]
            likely = self.policy.log_likelihoods(few, tokens)
            apart = low_variance_divergence(likely, self.policy.log_likelihoods(few, tokens, start=True))
            ratio = (likely - likely.detach()).exp()  # on policy it is 1, and its slope that of the likelihood
            loss = ((config.kl_weight * apart - advantage[some, None] * ratio) * counted).sum() / count
            loss.backward()  # type: ignore[no-untyped-call]
            divergence += float((apart.detach() * counted).sum() / count)
        return divergence

    def _scores(
        self, batch: Batch, pictures: torch.Tensor, masks: torch.Tensor, texts: list[str]
    ) -> dict[str, list[Any]]:
        """Score each answer by every configured reward, and by the plain IoU, which is logged alone."""
        boxes, pairs = (found.tolist() for found in boxes_and_points(masks > 0.5))
        there = batch.there.tolist()
        columns: dict[str, Any] = {"box": [], "points": []}
        for box, points, present in zip(boxes, pairs, there, strict=True):
            columns["box"] += [box if present else None] * self.config.group
            columns["points"] += [points if present else None] * self.config.group
        columns["side"] = [float(pictures.shape[-1])] * len(texts)
        scores = {n: REWARDS[n](texts, **columns) for n in self.config.rewards if n != "mask_dice"}
        if self.mask_scores is not None:
            scores["mask_dice"] = self.mask_scores.dice(pictures, masks, [read(text) for text in texts])
        return scores | {"iou": iou(texts, columns["box"], columns["points"])}

    def _teach(self, batch: Batch, pictures: torch.Tensor, masks: torch.Tensor) -> float:
        ids, numbers = self.learner.place(batch, masks)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            total, _ = self.learner(
                pictures, masks, ids, batch.weight, batch.image_start, batch.numbers, numbers, batch.there
            )
        (self.config.supervised_weight * total).backward()
        return float(total.detach())

    def save(self, path: Path) -> None:
        """Write the whole state to a temporary file and rename it."""
        state = {"adapters": self.policy.parameters, "optimizer": self.optimizer.state_dict(), "step": self.step}
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def resume(self, path: Path) -> None:
        """Load what `save` wrote."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        with torch.no_grad():
            for mine, saved in zip(self.policy.parameters, state["adapters"], strict=True):
                mine.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def group_advantages(rewards: torch.Tensor, group: int) -> torch.Tensor:
    """Return ``(reward - mean of its group) / (deviation of its group + 1e-4)``; 0 where all of a group are equal.

    Args:
        rewards: (questions * group,) float, group after group.
        group: answers to a question.
    """
    grouped = rewards.reshape(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    return (centred / (grouped.std(1, keepdim=True) + 1e-4)).flatten()


def low_variance_divergence(policy: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return ``r - ln r - 1`` with ``r = start / policy`` a token (k3 of http://joschu.net/blog/kl-approx.html)."""
    difference = start - policy
    return difference.exp() - difference - 1


def answers_before(stop: int, tokens: torch.Tensor) -> list[list[int]]:
    """Return the tokens of each row, (rows, answer), before its stop token; all of a row that was cut off."""
    return [list(takewhile(lambda token: token != stop, row)) for row in tokens.tolist()]
