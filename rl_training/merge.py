"""Make one checkpoint folder of a run: what `medreasoner ask --reasoner FOLDER` and vLLM load as it is.

python -m rl_training.merge RUN --output FOLDER [--checkpoint checkpoint-480] [--dtype bfloat16] [--int8-rows]

Adapters are merged into the folder the run started from, ZeRO's shards are gathered, a plain checkpoint is copied. The
folder holds safetensors, tokenizer, processor, chat template, the reasoner's card (instruction and schema version) and
training.json: configuration, data and last figures of the run, beside the data card of rl_training.prepare.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from medreasoner.console import errors_for_people, out
from medreasoner.contract.errors import CheckpointError
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.quantised import save_quantised
from rl_training.checkpoints import is_whole, last_whole
from rl_training.running import DATA_CARDS, RUN_FILE
from rl_training.starting import copy_processor

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
TRAINING_FILE = "training.json"
_SHARDS = "latest"  # DeepSpeed's file that names the folder of its shards


def merge(
    run: Path, output: Path, checkpoint: str | None = None, dtype: str = "bfloat16", int8_rows: bool = False
) -> Path:
    """Write the folder; it appears whole or not at all.

    Args:
        run: a folder that `rl_training.finetune` or `rl_training.grpo` wrote.
        output: a folder that does not exist yet.
        checkpoint: one of the run's; None takes the newest whole one.
        dtype: of the weights; without effect with `int8_rows`.
        int8_rows: store as the embedded reasoner is stored; a quarter of the size, but vLLM does not read it.

    Returns:
        the checkpoint that was merged.

    Raises:
        CheckpointError: no such run or whole checkpoint, weights that do not fit, or `output` is already there.
    """
    if output.exists():
        raise CheckpointError(f"{output} is already there", "name a new folder, or remove it first")
    about = _about(run)
    chosen = last_whole(run) if checkpoint is None else run / checkpoint
    if chosen is None or not is_whole(chosen):
        raise CheckpointError(f"{run} has no whole checkpoint{f' {checkpoint}' if checkpoint else ''}", "train first")
    start = Path(about["start"])
    model = merged_model(chosen, start)
    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    card = ReasonerCard.of(run)
    if int8_rows:
        save_quantised({n: w for n, w in model.state_dict().items() if n != "lm_head.weight"}, part)
        model.config.save_pretrained(part)
        card = replace(card, quantised="int8-rows")
    else:
        model.to(DTYPES[dtype]).save_pretrained(part)
    copy_processor(start, part)
    card.save(part)
    (part / TRAINING_FILE).write_text(json.dumps(_training(about, run, chosen), indent=2) + "\n", encoding="utf-8")
    for name in DATA_CARDS:
        if (run / name).is_file():
            shutil.copy(run / name, part / name)
    part.rename(output)
    return chosen


def merged_model(checkpoint: Path, start: Path) -> Any:
    """Return the whole model of a checkpoint, in the precision it was saved in.

    Raises:
        CheckpointError: a weight is missing, left over or of another shape.
    """
    if (checkpoint / "adapter_config.json").is_file():
        from peft import PeftModel

        return PeftModel.from_pretrained(_loaded(start), checkpoint).merge_and_unload()
    if not (checkpoint / _SHARDS).is_file():
        return _loaded(checkpoint)
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    model = _loaded(start).float()
    state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if unexpected or set(missing) - tied:
        raise CheckpointError(
            f"the shards in {checkpoint} do not fit {start}: {[*unexpected, *missing][:3]}",
            "merge with the starting folder of the same run",
        )
    model.tie_weights()
    return model


def _loaded(folder: Path) -> Any:
    try:
        return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype="auto", local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the weights in {folder} cannot be loaded: {error}", "restore that folder") from error


def _about(run: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{run} is not the folder of a run: {error}", f"give the folder with {RUN_FILE}"
        ) from error
    return about


def _training(about: dict[str, Any], run: Path, checkpoint: Path) -> dict[str, Any]:
    """Say how the folder came to be, without paths of this machine."""
    summary = run / "summary.json"
    metrics = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else None
    told = {key: value for key, value in about.items() if key != "start"}
    return {**told, "started_from": Path(about["start"]).name, "checkpoint": checkpoint.name, "metrics": metrics}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--checkpoint", help="a checkpoint's folder name; the newest whole one when left out")
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--int8-rows", action="store_true", help="store as the embedded reasoner is stored")
    given = parser.parse_args(argv)
    with errors_for_people():
        chosen = merge(given.run, given.output, given.checkpoint, given.dtype, given.int8_rows)
        out.print(f"{chosen.name} of {given.run} is now {given.output}", markup=False)


if __name__ == "__main__":
    main()
