"""How many tokens a second, and how much memory, does an update of GRPO take here, and can it be gone on with?

python -m benchmarks.grpo_step [--shape tiny | embedded | 3b | 7b] [--layers N] [--lora [RANK]] [--micro 4]
python -m benchmarks.grpo_step --shape 7b --lora
python -m benchmarks.grpo_step --shape 7b --layers 8 --deepspeed zero3 --processes 2

The last line is JSON. "tiny" has random weights, "embedded" the ones that ship, "3b" and "7b" random weights of
Qwen2.5-VL's published sizes, or of that width with fewer text layers. Pictures and questions are made up, completions
are cut at `--completion` tokens. Five parts (benchmarks/grpo_parts.py), each in processes of its own and with its own
time limit, so that one that fails costs no other:

start           the weights are written
ours            updates with our configuration, the last of them saved; the first warms up and is not timed
resumed         one more update from the saved one; the weights it begins with are compared with those that were saved
merged          the saved one as a folder; beside "resumed", for which no speed is told
trl_defaults    as ours, with TRL 1.16's own (no reference, one completion at a time, activations recomputed)
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import print_figures

TRAINING = ("ours", "trl_defaults", "resumed")
PARTS = ("start", *TRAINING, "merged")
STEP_FILE = "step.json"
_GRACE = 40  # seconds for torchrun to end its processes
_TOLD = 25  # lines of what a failed part said


@dataclass(frozen=True)
class Step:
    """What is measured: `layers` 0 means all, `lora` 0 that every weight is trained; the rest as in GrpoConfig."""

    shape: str = "tiny"
    layers: int = 0
    lora: int = 0
    deepspeed: str = ""
    processes: int = 1
    updates: int = 3
    group: int = 8
    micro: int = 4
    completion: int = 64
    recompute: bool = False
    vllm: bool = False


def run_part(name: str, step: Step, where: Path, logs: Path, seconds: float) -> dict[str, Any]:
    """Run one part in processes of its own; returns its figures, or how it failed."""
    begun, log = time.monotonic(), logs / f"{name}.log"
    print(f"{name} begins", flush=True)
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [*_launcher(name, step), "-m", "benchmarks.grpo_parts", name, str(where)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=_environment(step.processes),
            cwd=Path(__file__).parents[1],
            start_new_session=True,
        )
        try:
            ended = f"exit status {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            ended = f"no end after {seconds:.1f} s"
        finally:
            if process.poll() is None:
                _end(process)
    took, result = round(time.monotonic() - begun, 1), where / f"{name}.json"
    if process.returncode == 0 and result.is_file():
        figures: dict[str, Any] = {**json.loads(result.read_text(encoding="utf-8")), "part_seconds": took}
    else:
        said = log.read_text(encoding="utf-8", errors="replace").partition("ChildFailedError")[0].splitlines()
        wrong = [number for number, line in enumerate(said) if "Error" in line]
        told = said[max(0, wrong[-1] - _TOLD) : wrong[-1] + 1] if wrong else said[-_TOLD:]
        print("\n".join(told), flush=True)
        figures = {"failed": ended, "because": told[-1][:300] if told else "", "part_seconds": took}
    print(f"{name}: {json.dumps(figures)}", flush=True)
    return figures


def _launcher(name: str, step: Step) -> list[str]:
    """Return how to start a part: alone, or as torchrun does."""
    if name not in TRAINING or not (step.processes > 1 or step.deepspeed):
        return [sys.executable]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={step.processes}"]
    return [*torchrun, "--master-addr=127.0.0.1", f"--master-port={port}"]


def _environment(processes: int) -> dict[str, str]:
    """Show as many GPUs as there are processes: a single one that sees several would spread the model over them."""
    shown = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    shown = shown or [str(gpu) for gpu in range(torch.cuda.device_count())]
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(shown[:processes]), "HF_HUB_OFFLINE": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # torchrun then ends its own, which are in sessions of theirs
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measure(step: Step, where: Path, logs: Path, seconds: float, total: float) -> dict[str, Any]:
    """Run all parts that can be run, each for so many seconds at most and all for `total`; returns figures by name."""
    (where / STEP_FILE).write_text(json.dumps(asdict(step)), encoding="utf-8")
    end = time.monotonic() + total

    def run(name: str) -> dict[str, Any]:
        return run_part(name, step, where, logs, max(0.0, min(seconds, end - time.monotonic())))

    results: dict[str, Any] = {}
    for name in ("start", "ours"):
        results[name] = run(name)
        if "failed" in results["start"]:
            return results
    if "failed" not in results["ours"]:
        with ThreadPoolExecutor() as pool:
            results |= dict(zip(("resumed", "merged"), pool.map(run, ("resumed", "merged")), strict=True))
    return results | {"trl_defaults": run("trl_defaults")}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["tiny", "embedded", "3b", "7b"], default="tiny")
    parser.add_argument("--layers", type=int, default=0, help="text layers of 3b or 7b; 0: all")
    parser.add_argument("--lora", type=int, nargs="?", const=64, default=0, help="rank; 0: every weight is trained")
    parser.add_argument("--deepspeed", choices=["", "zero2", "zero3"], default="")
    parser.add_argument("--processes", type=int, default=1, help="GPUs; on a machine without, processes on the CPU")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--micro", type=int, default=4, help="completions through the backward pass together, in ours")
    parser.add_argument("--completion", type=int, default=64, help="tokens")
    parser.add_argument("--recompute", action="store_true", help="ours with activations recomputed, for memory")
    parser.add_argument("--vllm", action="store_true", help="ours with a colocated vLLM")
    parser.add_argument("--seconds", type=float, default=600, help="time limit of each part")
    parser.add_argument("--total", type=float, default=3600, help="seconds for all parts together")
    parser.add_argument("--logs", type=Path, help="keep here what the parts said")
    given = vars(parser.parse_args(argv))
    seconds, total, logs = given.pop("seconds"), given.pop("total"), given.pop("logs")
    with tempfile.TemporaryDirectory() as temporary:  # TMPDIR says where: 7b writes 34 GB with --lora
        where = Path(temporary)
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
        results = measure(Step(**given), where, logs or where, seconds, total)
    print_figures({**results, "processes": given["processes"]})
    if any("failed" in figures for figures in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
