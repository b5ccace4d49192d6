"""Run one stage in a torchrun process on the CPU, without the shared-memory operation that DeepSpeed would compile.

DeepSpeed then talks through gloo, as it does wherever the operation cannot be built; compiling takes over a minute.
"""

from __future__ import annotations

import sys

import deepspeed.ops

from rl_training import finetune, grpo
from rl_training.rewards import REWARDS
from tests.rl.stages import letters

if __name__ == "__main__":
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    REWARDS["letters"] = letters
    first = 2 if sys.argv[1] == "-m" else 1  # a local run names the stage's module
    stage = sys.argv[first].removeprefix("rl_training.")
    {"finetune": finetune, "grpo": grpo}[stage].main(sys.argv[first + 1 :])
