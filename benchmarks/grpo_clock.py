"""What is measured of a training in benchmarks.grpo_parts: its seconds, its tokens, its memory, its weights."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch
from transformers import TrainerCallback

BEGUN = time.monotonic()  # of this process, or nearly
GIB = 2**30


class Clock(TrainerCallback):
    """Seconds and tokens of every update but the first, of saving, and what the trained weights add up to."""

    def __init__(self) -> None:
        self.updates, self.seconds, self.tokens, self._begun, self._seen = 0, 0.0, 0, 0.0, 0
        self.ready = self.saving = self.begins_with = self.saved = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        self.ready, self.begins_with = time.monotonic() - BEGUN, total(model)
        print(f"ready after {self.ready:.0f} s", flush=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._begun, self._seen = time.perf_counter(), state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took, self._begun = time.perf_counter() - self._begun, time.perf_counter()
        print(f"update {state.global_step}: {took:.1f} s", flush=True)
        if state.global_step > 1:
            self.updates += 1
            self.seconds += took
            self.tokens += int(state.num_input_tokens_seen - self._seen)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        self.saving, self.saved = time.perf_counter() - self._begun, total(model)
        print(f"saved in {self.saving:.0f} s", flush=True)


def total(model: Any) -> float:
    """Add up the sizes of all trained weights that this process holds; under ZeRO-3 its share of each."""
    held = [getattr(weight, "ds_tensor", weight) for weight in model.parameters() if weight.requires_grad]
    return float(sum(weight.detach().abs().sum(dtype=torch.float64).cpu() for weight in held))


def peak() -> dict[str, Any]:
    """Return the most memory that this process held, in GiB."""
    if torch.cuda.is_available():
        return {
            "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
        }
    return {"peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2)}
