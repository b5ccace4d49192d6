"""The launch examples, run with stand-ins for Slurm: torchrun and the training command are the real ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from rl_training.dataset.practice import make_folder
from rl_training.dataset.prepared import new_folder
from rl_training.dataset.splitting import SHARES
from rl_training.prepare import open_reader, prepare

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "rl_training" / "launch"
SMOKE = "rl_training/configs/smoke_sft.yaml"

# srun starts its command once a node, in parallel, and tells each task its node's number.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
tasks=()
for ((node = 0; node < SLURM_NNODES; node++)); do SLURM_NODEID=$node "$@" & tasks+=($!); done
for task in "${tasks[@]}"; do wait "$task" || exit 1; done
"""
SCONTROL = """#!/usr/bin/env bash
case $1 in
    show) printf '127.0.0.1\\nother-node\\n' ;;
    requeue) echo "requeued $2" ;;
esac
"""
RECORD = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
"""
SLEEP = "#!/usr/bin/env bash\nexec sleep 60\n"


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a Slurm job of two nodes with one GPU each, on this machine."""
    (tmp_path / "stand-ins").mkdir()
    stand_in(tmp_path, "srun", SRUN)
    stand_in(tmp_path, "scontrol", SCONTROL)
    stand_in(tmp_path, "nvidia-smi", "#!/usr/bin/env bash\nprintf 'GPU 0\\nGPU 1\\nGPU 2\\n'\n")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'stand-ins'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MEDREASONER_VENV": str(tmp_path / "venv"),
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "PORT": str(port),
        "RECORD": str(tmp_path / "record"),
    }


def stand_in(folder: Path, name: str, text: str) -> None:
    path = folder / "stand-ins" / name
    path.write_text(text)
    path.chmod(0o755)


def run(script: str, cluster: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(LAUNCH / script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=cluster, capture_output=True, text=True, check=False, timeout=300)


def recorded(cluster: dict[str, str]) -> list[list[str]]:
    return [json.loads(line) for line in Path(cluster["RECORD"]).read_text().splitlines()]


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.iterdir()))
def test_scripts_are_bash_and_say_how_to_call_them(script: str, cluster: dict[str, str]) -> None:
    assert subprocess.run(["bash", "-n", LAUNCH / script], check=False).returncode == 0
    told = run(script, cluster, "grpo")
    assert told.returncode == 2
    assert "PREPARED RUN" in told.stderr and "#SBATCH" not in told.stderr and "set -" not in told.stderr


@pytest.mark.nightly
def test_two_nodes_find_each_other_and_plan_one_run(cluster: dict[str, str], tmp_path: Path) -> None:
    hospital = make_folder(tmp_path / "hospital")
    with new_folder(tmp_path / "prepared") as folder:
        prepare(open_reader(hospital), hospital, folder, SHARES)
    options = ("--reasoner", "embedded", "--dry-run")
    done = run("slurm_torchrun.sbatch", cluster, "finetune", SMOKE, tmp_path / "prepared", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 examples: 1 x 1 x 2 GPUs" in done.stdout, "both nodes share an update"
    assert done.stdout.count("starting folder") == 1, "the first process alone prints the plan"
    assert not (tmp_path / "run").exists()


def test_a_job_puts_itself_back_before_its_time_is_over(cluster: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, "torchrun", SLEEP)
    stand_in(tmp_path, "srun", '#!/usr/bin/env bash\nshift\nexec "$@"\n')
    command = ["bash", str(LAUNCH / "slurm_torchrun.sbatch"), "grpo", SMOKE, "prepared", "run"]
    job = subprocess.Popen(command, cwd=ROOT, env=cluster, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(2)
        job.terminate()  # as #SBATCH --signal=B:TERM does, to the script alone
        job.wait(20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, 9)  # the sleeping stand-in
    assert job.stdout is not None and job.stdout.read() == "requeued 7\n"


def test_one_node_takes_all_gpus_or_as_many_as_told(cluster: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, "torchrun", RECORD)
    arguments = ("grpo", SMOKE, "prepared", "run", "--minutes", "5")
    assert run("one_node.sh", cluster, *arguments).returncode == 0
    assert run("one_node.sh", {**cluster, "GPUS": "2"}, *arguments).returncode == 0
    stage = ["-m", "rl_training.grpo", SMOKE, "--data", "prepared", "--output", "run", "--minutes", "5"]
    assert recorded(cluster) == [["--standalone", "--nproc-per-node", gpus, *stage] for gpus in ("3", "2")]


def test_torchrun_gets_what_its_own_parser_accepts(cluster: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, "torchrun", RECORD)
    assert run("slurm_torchrun.sbatch", cluster, "finetune", SMOKE, "prepared", "run", "--dry-run").returncode == 0
    nodes = [get_args_parser().parse_args(arguments) for arguments in recorded(cluster)]
    assert len(nodes) == 2
    for node in nodes:
        assert (node.nnodes, node.nproc_per_node, node.rdzv_backend, node.rdzv_id) == ("2", "1", "c10d", "7")
        assert node.rdzv_endpoint == f"127.0.0.1:{cluster['PORT']}"
        assert (node.module, node.training_script) == (True, "rl_training.finetune")
        assert node.training_script_args == [SMOKE, "--data", "prepared", "--output", "run", "--dry-run"]


def test_accelerate_gets_what_its_own_parser_accepts(cluster: dict[str, str], tmp_path: Path) -> None:
    stand_in(tmp_path, "accelerate", RECORD)
    assert run("slurm_accelerate.sbatch", cluster, "grpo", SMOKE, "prepared", "run").returncode == 0
    nodes = [launch_command_parser().parse_args(arguments[1:]) for arguments in recorded(cluster)]
    assert [arguments[0] for arguments in recorded(cluster)] == ["launch", "launch"]
    assert sorted(node.machine_rank for node in nodes) == [0, 1]
    for node in nodes:
        assert (node.num_machines, node.num_processes, node.main_process_ip) == (2, 2, "127.0.0.1")
        assert node.main_process_port == int(cluster["PORT"])
        assert (node.module, node.training_script) == (True, "rl_training.grpo")
        assert node.training_script_args == [SMOKE, "--data", "prepared", "--output", "run"]
        assert (ROOT / node.config_file).is_file()
