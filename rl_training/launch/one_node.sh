#!/usr/bin/env bash
# A stage on the GPUs of this machine, by torchrun.
#   rl_training/launch/one_node.sh finetune rl_training/configs/qwen2_5_vl_3b_lora.yaml PREPARED RUN [more options]
# GPUS=2 takes two of them; without it, all that nvidia-smi lists. A run that was stopped goes on where it saved last.
set -euo pipefail

if (($# < 4)); then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
stage=$1 config=$2 data=$3 run=$4
shift 4
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
# One thread a process: eight processes that take all cores each would wait for one another.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec torchrun --standalone --nproc-per-node "$gpus" \
    -m "rl_training.$stage" "$config" --data "$data" --output "$run" "$@"
