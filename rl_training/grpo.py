"""Reinforcement learning (GRPO) for any Qwen2.5-VL folder, on TRL's GRPOTrainer with this project's rewards.

python -m rl_training.grpo rl_training/configs/smoke.yaml --data PREPARED --output RUN
torchrun --nproc-per-node 8 -m rl_training.grpo rl_training/configs/lingshu_7b_soft.yaml --data PREPARED --output RUN

Each reward is a function of its own, which TRL logs and weighs; `iou`, of weight 0, is logged beside them. Validation
answers are greedy, on the validation split.
"""

from __future__ import annotations

import copy
import inspect
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig as TrlArguments
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from medreasoner.contract.errors import MedReasonerError
from rl_training.checkpoints import SafeCheckpoints
from rl_training.config import GrpoConfig
from rl_training.rewards import REWARDS, iou, masks_from
from rl_training.rewards.combining import Reward
from rl_training.rows import Canvas
from rl_training.running import command
from rl_training.stage import Start, adapters, common_arguments, devices, with_given_adapter
from rl_training.watching import Progress, TimeLimit


class EpochOrder(RepeatSampler):
    """TRL's order of questions, but following from the seed and the epoch's number alone.

    TRL's own generator starts over when a run is resumed, which would repeat the first epoch's order in a later one.
    """

    def set_epoch(self, epoch: int) -> None:
        """Prepare an epoch's order; transformers calls it before each."""
        self.generator.manual_seed((self.seed or 0) + epoch)


class Policy(SafeCheckpoints, GRPOTrainer):
    """TRL's trainer with whole checkpoints and greedy answers in validation."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validate with the likeliest answers: sampled ones would measure the temperature too."""
        engine = self.vllm_generation if self.use_vllm else None
        sampling: Any = getattr(self, "generation_config", None)  # transformers' alone
        if engine is not None:
            engine.temperature = 0.0
        else:
            self.generation_config = copy.copy(sampling)
            self.generation_config.update(do_sample=False, temperature=1.0, top_p=1.0, top_k=None)
        try:
            with torch.random.fork_rng():  # else a run with validation would take other steps than one without
                return super().evaluate(*args, **kwargs)
        finally:
            if engine is not None:
                engine.temperature = self.temperature
            else:
                self.generation_config = sampling

    def _get_train_sampler(self, dataset: Any = None) -> EpochOrder:
        made: Any = super()._get_train_sampler(dataset)
        return EpochOrder(
            made.data_source, made.mini_repeat_count, made.batch_size, made.repeat_count, made.shuffle, made.seed
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, without the deviations inside a group where validation's group is one answer."""
        for name in [n for n in self._metrics["eval"] if n.endswith("std")]:
            del self._metrics["eval"][name]
        super().log(logs, start_time)


def reward_functions(config: GrpoConfig) -> list[Any]:
    """Return the configured rewards, each with its settings and its own name; `iou` is the last."""
    settings: dict[str, Any] = {"free_tokens": config.free_tokens, "limit_tokens": config.limit_tokens}
    if "mask_dice" in config.rewards:
        from medreasoner.expert import load_expert

        settings["expert"] = masks_from(load_expert(config.expert))
    return [*(_with_settings(REWARDS[name], settings) for name in config.rewards), iou]


def _with_settings(reward: Reward, settings: dict[str, Any]) -> Reward:
    known = {key: value for key, value in settings.items() if key in inspect.signature(reward).parameters}
    bound = partial(reward, **known)
    bound.__name__ = reward.__name__  # type: ignore[attr-defined]
    return bound


def lazy_dataset(canvas: Canvas) -> Dataset:
    """Return a dataset whose rows are opened when the trainer asks for them."""

    def opened(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        rows = [canvas.columns(index) for index in batch["row"]]
        return {name: [row[name] for row in rows] for name in rows[0]}

    return Dataset.from_dict({"row": list(range(len(canvas)))}).with_transform(opened)


def check_prompts(canvas: Canvas, processor: Any, merge: int, most: int) -> None:
    """Count every prompt's tokens; raises `MedReasonerError` naming the row of one that is too long."""
    image = (canvas.card.canvas // (processor.image_processor.patch_size * merge)) ** 2
    for index, row in enumerate(canvas.rows):
        text = processor.apply_chat_template(canvas.turn(index), add_generation_prompt=True, tokenize=False)
        tokens = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) - 1 + image
        if tokens > most:
            raise MedReasonerError(
                f"{row.example.where}: its prompt has {tokens} tokens, {image} of them the picture's",
                f"raise max_prompt above {most}, or shorten the question",
            )


def check_masks(canvas: Canvas) -> None:
    """Raise `MedReasonerError` naming a row whose target has no mask to compare with."""
    for row in canvas.rows:
        if row.example.mask is None and not row.example.absent:
            raise MedReasonerError(
                f"{row.example.where}: has no mask, which the reward mask_dice compares with",
                "train without mask_dice, or give every target a mask",
            )


def make_arguments(config: GrpoConfig, run: Path) -> TrlArguments:
    """Translate the configuration into TRL's."""
    world, vllm = devices(), config.vllm
    accumulation = config.accumulation(world)
    engine: dict[str, Any] = {"use_vllm": False}
    if vllm is not None:
        engine = {"use_vllm": True, "vllm_mode": vllm.mode}
        if vllm.mode == "server":
            engine |= {"vllm_server_host": vllm.host, "vllm_server_port": vllm.port}
        else:
            engine |= {
                "vllm_gpu_memory_utilization": vllm.memory_share,
                "vllm_tensor_parallel_size": vllm.tensor_parallel,
                "vllm_max_model_length": config.max_prompt + config.max_completion,
                "vllm_enable_sleep_mode": True,
            }
    return TrlArguments(
        **common_arguments(config, run),
        **engine,
        steps_per_generation=accumulation * config.updates_per_generation,
        num_generations=config.group,
        num_generations_eval=1,
        max_completion_length=config.max_completion,
        temperature=config.temperature,
        beta=config.kl_weight,
        epsilon=config.clip,
        epsilon_high=config.clip_high,
        loss_type=config.loss,
        scale_rewards="group",
        reward_weights=[*config.rewards.values(), 0.0],
        log_completions=False,
    )


def make_trainer(config: GrpoConfig, start: Start, arguments: TrlArguments) -> Policy:
    """Put model, data and rewards together."""
    merge = start.model.config.vision_config.spatial_merge_size
    for canvas in (start.train, start.validation):  # the first validation may be hours away
        if canvas is not None:
            if "mask_dice" in config.rewards:
                check_masks(canvas)
            check_prompts(canvas, start.processor, merge, config.max_prompt)
    return Policy(
        model=with_given_adapter(config, start.model),
        reward_funcs=reward_functions(config),
        args=arguments,
        train_dataset=lazy_dataset(start.train),
        eval_dataset=None if start.validation is None else lazy_dataset(start.validation),
        processing_class=start.processor,
        peft_config=adapters(config),
        callbacks=[TimeLimit(config.minutes, config.updates_per_generation), Progress()],
    )


def main(argv: list[str] | None = None) -> None:
    command("grpo", GrpoConfig, make_arguments, make_trainer, __doc__, argv)


if __name__ == "__main__":
    main()
