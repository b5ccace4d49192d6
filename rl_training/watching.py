"""What watches a stage while it trains: its limits of time and patience, and the lines that tell how far it is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rl_training.stopping import asked_to_stop

PROGRESS = "progress.jsonl"


class TimeLimit(TrainerCallback):
    """Save and stop when asked to, or before a run's minutes are over, at the end of a whole generation."""

    def __init__(self, minutes: float, every: int = 1) -> None:
        self._end = time.monotonic() + 60 * minutes if minutes else None
        self._every, self._before, self._longest = every, time.monotonic(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop when another update (a generation's first is the longest) might not fit."""
        now = time.monotonic()
        self._longest, self._before = max(self._longest, now - self._before), now
        if state.global_step % self._every:
            return
        late = self._end is not None and now + self._longest * self._every > self._end
        over = torch.tensor(float(late or asked_to_stop()), device=args.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(over, torch.distributed.ReduceOp.MAX)  # all stop, or none
        if over:
            control.should_save = control.should_training_stop = True


class Progress(TrainerCallback):
    """Add a line to the run's progress.jsonl for whatever is logged: `step`, `of`, and the logged numbers."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Write the line; only the first of several processes does."""
        if state.is_world_process_zero:
            line = {"step": state.global_step, "of": state.max_steps, **(logs or {})}
            with (Path(args.output_dir) / PROGRESS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
