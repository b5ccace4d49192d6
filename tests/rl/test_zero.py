"""Two processes on the CPU (gloo): shards are saved, merged into one folder, and equal to what one process learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medreasoner.reasoner.local import LocalReasoner
from rl_training.merge import merge
from rl_training.tiny import make_tiny
from tests.collection import make_collection
from tests.rl.stages import FINETUNE, GRPO, run_finetune, weights

HERE = Path(__file__).parent
SECONDS = 500  # alone they take 30; a machine that others load has needed ten times that
SHARDS = {
    "zero2": ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
    "zero3": ["zero_pp_rank_1_mp_rank_00_model_states.pt", "zero_pp_rank_1_mp_rank_00_optim_states.pt"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    here = tmp_path_factory.mktemp("zero")
    return make_collection(here / "data"), make_tiny(here / "tiny")


def two_processes(stage: str, run: Path, made: tuple[Path, Path], **changes: Any) -> None:
    """Run a stage as torchrun does on a node of two GPUs; ends both processes if they take too long."""
    base = {"finetune": FINETUNE, "grpo": GRPO}[stage]
    config = {**base, "micro_batch": 1, "precision": "fp32", "recompute": False, "absent_share": 0.0, **changes}
    path = run.with_name(run.name + ".yaml")
    path.write_text(yaml.safe_dump({"reasoner": str(made[1]), **config}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    given = [str(HERE / "gloo_worker.py"), stage, str(path), "--data", str(made[0]), "--output", str(run)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*launch, *given], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its workers
            said, _ = process.communicate(timeout=30)
            pytest.fail(f"no end after {SECONDS} s:\n{said.decode()[-3000:]}")
    assert process.returncode == 0, said.decode()[-4000:]


def apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Mean absolute difference of all weights. Adam turns a rounding error in a gradient near 0 into a whole step."""
    assert first.keys() == second.keys()
    differences = [(first[name].float() - second[name].float()).abs() for name in first]
    return float(sum(d.sum() for d in differences) / sum(d.numel() for d in differences))


@pytest.mark.parametrize("stage", ["zero2", pytest.param("zero3", marks=pytest.mark.nightly)])
def test_two_processes_learn_what_one_learns(made: tuple[Path, Path], tmp_path: Path, stage: str) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    two_processes("finetune", run, made, deepspeed=stage, max_updates=2)
    folder = run / "checkpoint-2" / "global_step2"
    assert {p.name for p in folder.iterdir()} >= set(SHARDS[stage])
    assert json.loads((run / "run.json").read_text())["devices"] == 2
    merge(run, tmp_path / "merged", dtype="float32")
    run_finetune(alone, *made, max_updates=2, micro_batch=1)
    merged, single, start = (weights(f) for f in (tmp_path / "merged", alone / "checkpoint-2", made[1]))
    assert apart(merged, single) < 0.01 * apart(single, start)
    assert LocalReasoner(tmp_path / "merged", "cpu").name == "medreasoner"


@pytest.mark.nightly
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_reinforcement_goes_on_from_shards(made: tuple[Path, Path], tmp_path: Path, stage: str) -> None:
    run = tmp_path / "run"
    two_processes("grpo", run, made, deepspeed=stage, max_updates=2)
    merge(run, tmp_path / "first", dtype="float32")
    two_processes("grpo", run, made, deepspeed=stage, max_updates=4)
    merge(run, tmp_path / "second", dtype="float32")
    start, first, second = (weights(f) for f in (made[1], tmp_path / "first", tmp_path / "second"))
    assert apart(start, first) > 1e-4
    assert apart(first, second) > 1e-4
    history = json.loads((run / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "reward_std" in entry] == [1, 3]
    assert all("rewards/letters/mean" in entry for entry in history if "reward_std" in entry)
