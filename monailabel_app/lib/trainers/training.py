"""Training on the saved labels: `python -m rl_training.local` as a process of its own, which outlives the server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from medreasoner.contract.errors import MedReasonerError
from medreasoner.reasoner.catalogue import SERVER
from monailabel_app.lib.settings import Settings
from monailabel_app.lib.trainers.run_folder import LOG, OVER, RunFolder

_NEEDED = ("rl_training", "peft", "datasets", "trl", "tensorboard")  # of the extra `train`
_WORDS = {  # ours -> MONAI Label's, which its clients show
    "published": "DONE",
    "refused": "DONE",
    "stopped": "STOPPED",
    "failed": "ERROR",
    "interrupted": "ERROR",
}
_OPTIONS = ("model", "client_id", "restart")


class TrainingRefused(MedReasonerError):
    """A training cannot be started."""

    status = 409


class NoTraining(TrainingRefused):
    """Nothing was trained here yet."""

    status = 404


class Training(TrainTask):
    """MONAI Label's training task. There is one run at a time, in the registry's folder `training`."""

    def __init__(self, studies: str, registry: Path, settings: Settings) -> None:
        """Prepare.

        Args:
            studies: folder of the studies, with the labels; a DICOMweb URL is refused when a training is started.
            registry: folder of the checkpoints.
            settings: reasoner, configuration and priority.
        """
        super().__init__("Trains the next reasoner on the saved labels; it takes over if it is not worse")
        self._studies, self._registry, self._settings = studies, registry, settings
        self._run, self._starting = RunFolder(registry), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def config(self) -> dict[str, Any]:
        """Options of a start, which MONAI Label's plug-in shows: `restart` forgets a run that is not over."""
        return {"restart": False}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Start a training, or go on with one that was stopped or interrupted; returns its state at once.

        Raises:
            TrainingRefused: one runs already, or this server cannot train.
            MedReasonerError: an option is unknown, or the folder cannot be written.
        """
        unknown = [name for name in request if name not in _OPTIONS]
        if unknown or not isinstance(request.get("restart", False), bool):
            raise MedReasonerError(
                f"a training has no option {str(unknown or 'restart')[:60]}", "send restart, a boolean"
            )
        with self._starting:
            self._check_can_train()
            if self.runs:
                raise TrainingRefused("a training runs already", "wait for its end, or stop it: DELETE /train/")
            state = None if request.get("restart") else self._run.state()
            anew = state is None or state["status"] in OVER
            try:
                self._run.make_ready(anew)
                self._process = self._start("--resume" if not anew else "")
            except OSError as error:
                raise MedReasonerError(
                    f"the training cannot be started: {error}", "see to free space and who may write in the registry"
                ) from error
        return self.report()

    def report(self, with_log: bool = True) -> dict[str, Any]:
        """Say how the training goes, with the keys that MONAI Label's clients read, and ours under `training`.

        Raises:
            NoTraining: there never was one.
        """
        alive, state = self.runs, self._run.state()
        if state is None and self._process is None:
            raise NoTraining("nothing was trained here yet", "start a training: POST /train/medreasoner")
        if state is None:  # its first second, or it ended before it could write its state
            status = "preparing" if alive else "failed"
            state = {"status": status, "progress": 0.0, "message": "" if alive else "it ended at once; see its log"}
        elif alive and state["status"] not in ("preparing", "training", "evaluating"):  # of the run before
            state = {**state, "status": "preparing", "message": ""}
        return {
            "id": "medreasoner",
            "model": "medreasoner",
            "status": _WORDS.get(state["status"], "RUNNING"),
            "start_ts": state.get("started", ""),
            "details": self._run.last_lines() if with_log else [],
            "training": state,
        }

    @property
    def runs(self) -> bool:
        """Whether a training is at work: one that was started here, or one whose process holds its lock."""
        started_here = self._process is not None and self._process.poll() is None
        return started_here or self._run.alive()

    def stop(self) -> dict[str, Any]:
        """Let the training save and stop, which takes up to an update's time; raises as `report`."""
        if self.runs:
            self._run.ask_to_stop()
        return self.report()

    def _check_can_train(self) -> None:
        if missing := [name for name in _NEEDED if find_spec(name) is None]:
            raise TrainingRefused(
                f"this server has nothing to train with: {', '.join(missing)} not installed",
                "install requirements.lock as make demo does",
            )
        if self._settings.reasoner == SERVER:
            raise TrainingRefused(
                "the reasoner runs in another server, which cannot be given adapters from here",
                "train its folder there with rl_training.local (docs/train_on_your_data.md)",
            )
        if "://" in self._studies:
            raise TrainingRefused(
                "the studies are in an archive, and a training reads them from a folder",
                "export the labelled series into a folder and serve that one",
            )

    def _start(self, resume: str) -> subprocess.Popen[bytes]:
        given = ["--output", str(self._run.path), "--registry", str(self._registry)]
        given += ["--reasoner", self._settings.reasoner, *([resume] if resume else [])]
        if self._settings.training_config:
            given += ["--config", str(Path(self._settings.training_config).expanduser())]
        command = [sys.executable, "-m", "rl_training.local", str(Path(self._studies).resolve()), *given]
        with (self._run.path / LOG).open("ab") as log:
            process = subprocess.Popen(  # a session of its own: it goes on when the server ends
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        least = os.getpriority(os.PRIO_PROCESS, 0)  # nobody may take a priority above the server's own
        os.setpriority(os.PRIO_PROCESS, process.pid, max(least, self._settings.training_nice))
        return process
