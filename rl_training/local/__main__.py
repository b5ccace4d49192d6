"""Train the next reasoner on the labels that people saved, and let it take over if it is not worse.

python -m rl_training.local STUDIES --output RUN              labels in the server's folder of studies
python -m rl_training.local STUDIES --output RUN --resume     go on with a run that was stopped or killed
python -m rl_training.local STUDIES --output RUN --dry-run    print the commands of the stages, and stop

Prepared and divided by patient, with a hold-out that stays the same; trained from the present champion; compared with
it on the hold-out; proposed to the registry. RUN/state.json says how far it is. SIGTERM stops a run after it has saved.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from medreasoner.console import errors_for_people, out
from medreasoner.contract.errors import MedReasonerError
from medreasoner.reasoner.champions import Champions, registry_folder
from rl_training.local.state import OVER, STOP, StateFile, Stopped, locked, status_of
from rl_training.stopping import STOPPED, heed_sigterm

if TYPE_CHECKING:
    from medreasoner.reasoner.lineage import Lineage

DEFAULT = Path(__file__).parent.parent / "configs" / "local.yaml"


def carry_out(given: argparse.Namespace) -> None:
    """Begin a run or go on with one; raises as `Run.carry_out`, with the reason in state.json too."""
    folder: Path = given.output.resolve()
    before = status_of(folder)
    if before and not given.resume:
        raise MedReasonerError(f"{folder} holds a run already", "go on with it by --resume, or name a new folder")
    if before in OVER:
        raise MedReasonerError(f"the run in {folder} is over: {before}", "name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    heed_sigterm()
    with locked(folder) as lock:
        state_file = StateFile(folder)
        try:
            lineage = _run(given, folder, state_file, lock)
        except Stopped:
            state_file.update(status="stopped", message="stopped and saved; it can be gone on with")
            sys.exit(STOPPED)
        except Exception as error:
            what = f"{error.what}: {error.hint}" if isinstance(error, MedReasonerError) else repr(error)
            with suppress(OSError):  # the disk may be full: then the state before stays, and the error is told below
                state_file.update(status="failed", message=what)
            if isinstance(error, OSError):
                hint = "make room there; --resume goes on from what is saved"
                raise MedReasonerError(f"{folder} cannot be written: {error.strerror or error}", hint) from error
            raise
        finally:
            (folder / STOP).unlink(missing_ok=True)  # a wish of now does not stop the next start
        status = "published" if lineage.published else "refused"
        state_file.update(status=status, progress=1.0, message=lineage.reason, number=lineage.number)
        out.print(f"{status}, number {lineage.number}: {lineage.reason}", markup=False, soft_wrap=True)


def _run(given: argparse.Namespace, folder: Path, state_file: StateFile, lock: int) -> Lineage:
    """Load what the run needs, which takes seconds, once its lock is held and its state can be read; then run."""
    from rl_training.local.config import LocalConfig
    from rl_training.local.run import Run

    config = LocalConfig.from_yaml(given.config).of(given.reasoner)
    champions = Champions(registry_folder(given.registry).resolve(), config.rule.rule())
    return Run(given.labels.resolve(), folder, champions, config, state_file, lock).carry_out()


def print_commands(given: argparse.Namespace) -> None:
    """Print what a run would start."""
    from rl_training.local.config import LocalConfig
    from rl_training.local.launching import command_of

    config = LocalConfig.from_yaml(given.config)
    for stage in config.stages:
        out.print(shlex.join(command_of(stage, given.output, config.launch)), markup=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="the server's folder of studies")
    parser.add_argument("--output", type=Path, required=True, help="the run's folder")
    parser.add_argument("--registry", default="", help="folder of the checkpoints; the user's own when left out")
    parser.add_argument("--config", type=Path, default=DEFAULT, help="a YAML file; rl_training/configs/local.yaml")
    parser.add_argument("--reasoner", default="", help="train this one instead of the configuration's")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the stages, and stop")
    given = parser.parse_args(argv)
    with errors_for_people():
        print_commands(given) if given.dry_run else carry_out(given)


if __name__ == "__main__":
    main()
