"""Checkpoints that are whole or not there: written aside, sealed, renamed; resumed from their own weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from medreasoner.contract.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import Trainer
else:  # a mixin in front of a transformers Trainer, which takes seconds to import
    Trainer = object

SEAL = "complete.json"
_PART = ".part"


def seal(folder: Path) -> None:
    """Write down every file of a folder and its size in bytes, as the last file of it."""
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    (folder / SEAL).write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def is_whole(folder: Path) -> bool:
    """Say whether a folder has its seal and every file in it has the size that the seal names."""
    try:
        sizes = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def checkpoints_of(run: Path) -> list[Path]:
    """List a run's checkpoint folders, oldest first, whole or not."""
    found = [p for p in run.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return after which update a checkpoint folder was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def last_whole(run: Path) -> Path | None:
    """Return a run's newest whole checkpoint, or None; says which it passed over."""
    for folder in reversed(checkpoints_of(run)):
        if is_whole(folder):
            return folder
        print(f"{folder.name} is not whole and is passed over", flush=True)
    return None


class SafeCheckpoints(Trainer):
    """What both stages' trainers add to transformers': saving as a whole, and resuming from the saved weights.

    transformers 5 saves Qwen2.5-VL under the names of earlier releases and, when it resumes, loads those names into
    the model without looking whether any fits: training goes on from the STARTING weights. Here the checkpoint is
    loaded by `from_pretrained`, which knows both spellings, and every weight must fit.
    """

    keep: int = 2
    _aside = False

    def _get_output_dir(self, trial: Any) -> str:
        folder = Path(super()._get_output_dir(trial))
        return str(folder / _PART if self._aside else folder)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no README: the merged folder gets ours."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Leave ZeRO-3's weights to the shards that are saved with the optimizer; transformers writes all twice."""
        plugin = self.accelerator.state.deepspeed_plugin
        if plugin is None or plugin.zero_stage != 3:
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            from transformers.trainer_pt_utils import remove_dummy_checkpoint
            from transformers.utils import SAFE_WEIGHTS_NAME

            self._save(output_dir, state_dict={})  # configuration and processor
            remove_dummy_checkpoint(True, output_dir, [SAFE_WEIGHTS_NAME])

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run, name = Path(str(self.args.output_dir)), f"checkpoint-{self.state.global_step}"
        part, main = run / _PART / name, self.accelerator.is_main_process
        if main:
            shutil.rmtree(run / _PART, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._aside = True
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if main:
                seal(part)
                shutil.rmtree(run / name, ignore_errors=True)
                part.rename(run / name)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
            shutil.rmtree(run / _PART, ignore_errors=True)
            kept = last_whole(run)
            then = f"from {kept.name}" if kept else "from the start"
            raise CheckpointError(
                f"the checkpoint of update {self.state.global_step} could not be written: {error}",
                f"make room on the disk and start the same command again; it goes on {then}",
            ) from error
        finally:
            self._aside = False
        if main:
            shutil.rmtree(run / _PART, ignore_errors=True)
            for old in checkpoints_of(run)[: -self.keep]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if (folder / "adapter_config.json").is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        from transformers import Qwen2_5_VLForConditionalGeneration

        target = self.accelerator.unwrap_model(self.model if model is None else model)
        saved = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=target.dtype)
        target.load_state_dict(saved.state_dict(), strict=True)
