"""One run of the local loop: prepare, train, compare, propose. Each step is skipped where it was done before."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medreasoner.contract.errors import CheckpointError
from medreasoner.contract.label import now
from medreasoner.durable import write_durably
from medreasoner.evaluation.cases import read_samples
from medreasoner.evaluation.run import Outcome
from medreasoner.reasoner.champions import Champions, Lineage
from rl_training.dataset import SavedLabels
from rl_training.dataset.prepared import new_folder
from rl_training.local.challenger import adapter_of, base_of, make_challenger
from rl_training.local.comparing import cases_in, difference, examine, metrics
from rl_training.local.config import LocalConfig
from rl_training.local.holdout import Divided
from rl_training.local.launching import command_of, follow, write_config
from rl_training.local.state import StateFile, Stopped, stop_wished
from rl_training.plan import plain_values
from rl_training.prepare import prepare
from rl_training.summary import SUMMARY

_TRAINED, _COMPARED = 0.7, 1.0  # progress at the end of training, and of the comparison
_PREPARED = 0.02
PROPOSED = "proposed.json"  # number that the registry gave the challenger


@dataclass(frozen=True)
class Run:
    """What one run works on.

    Attributes:
        labels: the server's folder of studies.
        folder: of the run: prepared labels, a folder for each stage, log, state.
        champions: the registry.
        config: all knobs.
        state_file: where the run says how far it is.
        lock: descriptor that is held as long as a process of the run lives.
    """

    labels: Path
    folder: Path
    champions: Champions
    config: LocalConfig
    state_file: StateFile
    lock: int

    def carry_out(self) -> Lineage:
        """Do what is left to do; returns what the registry keeps of the challenger.

        Raises:
            Stopped: SIGTERM came; the same run can be gone on with.
            MedReasonerError: labels, weights or disk do not allow it.
        """
        entries = self.champions.entries()  # a damaged registry is told before an hour of training, not after it
        proposed = self.folder / PROPOSED
        if proposed.is_file():  # a crash after that left nothing to do
            return _numbered(entries, json.loads(proposed.read_text(encoding="utf-8")))
        base = base_of(self.config.finetune.reasoner)
        parent = self._parent()
        adapter = adapter_of(self.champions.champion(), base)
        self._prepare()
        for at, (name, stage) in enumerate(self.config.stages.items()):
            self._train(name, replace(stage, adapter=adapter), at)
            adapter = str(make_challenger(self.folder / name, stage.reasoner, base, self.folder / f"after-{name}"))
        lineage = self._compare(Path(adapter), self.champions.champion() or base, parent)
        number = self.champions.propose(Path(adapter), lineage)
        write_durably(proposed, json.dumps(number).encode())
        self.champions.trim(self.config.keep)
        return _numbered(self.champions.entries(), number)

    def _parent(self) -> int:
        """Return the number of the champion, which is the one that the run began from, or refuse to mix two."""
        file, number = self.folder / "parent.json", self.champions.number()
        if not file.is_file():
            write_durably(file, json.dumps(number).encode())
        if (began := json.loads(file.read_text(encoding="utf-8"))) != number:
            raise CheckpointError(
                f"the run began from number {began}, and {number} is the champion now",
                'begin anew, in a new folder or with {"restart": true}',
            )
        return number

    @property
    def _prepared(self) -> Path:
        return self.folder / "prepared"

    def _prepare(self) -> None:
        if self._prepared.is_dir():
            return
        share = self.config.holdout
        reader = Divided(SavedLabels.of_studies(self.labels, self.config.tag), self.champions.folder, share)
        with new_folder(self._prepared) as folder:
            shares = {"train": 1 - share, "val": 0.0, "test": share}
            card = prepare(reader, self.labels, folder, shares, leave_out_bad=True)
            cases_in(folder, self.config.rule.cases)  # else an hour of training would be for nothing
        left_out = card["boxes_and_points"].get("left out", 0)
        self.state_file.update(progress=_PREPARED, message=f"{left_out} labels cannot be used" if left_out else "")

    def _train(self, name: str, stage: Any, at: int) -> None:
        """Train one stage, or what is left of it."""
        share = (_TRAINED - _PREPARED) / len(self.config.stages)
        begins = _PREPARED + at * share
        folder = self.folder / name
        self.state_file.update(status="training", progress=begins, message=name)
        if (folder / SUMMARY).is_file():
            return
        write_config(stage, self.folder / f"{name}.yaml")

        def told(line: dict[str, Any]) -> None:
            step, of = int(line["step"]), max(1, int(line["of"]))
            self.state_file.update(step=step, of=of, progress=round(begins + share * step / of, 4))

        command, launched = command_of(name, self.folder, self.config.launch), bool(self.config.launch)
        follow(command, self.folder, name, self.lock, told, launched)
        shutil.rmtree(folder / "start", ignore_errors=True)  # the unpacked weights, 0.6 GB

    def _compare(self, challenger: Path, champion: Path, parent_number: int) -> Lineage:
        cases = cases_in(self._prepared, self.config.rule.cases)
        total, done = 2 * len(cases), 0

        def asked() -> None:
            nonlocal done
            if stop_wished(self.folder):
                raise Stopped
            progress = round(_TRAINED + (_COMPARED - _TRAINED) * done / total, 4)
            self.state_file.update(status="evaluating", step=done, of=total, progress=progress)
            done += 1

        def answers(folder: Path) -> tuple[str, list[Outcome]]:
            return examine(folder, self.config.expert, self.config.device, self._prepared, cases, asked)

        parent, before = answers(champion)
        _, after = answers(challenger)
        return Lineage(
            made_at=now(),
            parent=parent,
            parent_number=parent_number,
            data_sha256=hashlib.sha256((self._prepared / "samples.jsonl").read_bytes()).hexdigest(),
            labels=sum(sample["split"] == "train" for sample in read_samples(self._prepared)),
            configuration=dict(plain_values(asdict(self.config))),
            champion=metrics(before),
            challenger=metrics(after),
            difference=difference(before, after),
        )


def _numbered(entries: list[Lineage], number: int) -> Lineage:
    found = [entry for entry in entries if entry.number == number]
    if not found:
        raise CheckpointError(f"checkpoint {number} of this run is not in the registry any more", "begin anew")
    return found[0]
