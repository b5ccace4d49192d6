"""A registry of the checkpoints that were trained here: which there are, and which of them answers.

    REGISTRY/0001/, 0002/ ...   a checkpoint each, with its lineage.json
    REGISTRY/champion.json      {"number": 2, "since": ISO 8601, "history": [1, 2]}; without it nothing local answers

Everything that changes takes its name by one rename once it is on the disk, so a crash or a full disk leaves the
champion in service and no half checkpoint. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from medreasoner.contract.checks import read_object
from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.contract.label import now
from medreasoner.durable import PARTIAL, new_folder, write_durably
from medreasoner.folders import models_folder
from medreasoner.reasoner.card import FILE as CARD
from medreasoner.reasoner.lineage import RULE, Lineage, Metrics, Rule, Verdict, not_worse

__all__ = ["Champions", "Lineage", "Metrics", "Rule", "Verdict", "not_worse", "registry_folder"]

CHAMPION = "champion.json"
LINEAGE = "lineage.json"
SHIPPED = 0  # the number of the reasoner that no checkpoint of the registry has replaced
_LOCK = ".lock"
_ANEW = "remove that file and publish a checkpoint (medreasoner models --publish)"


@dataclass(frozen=True)
class ServiceRecord:
    """What champion.json says.

    Attributes:
        number: of the champion; 0 is the reasoner as shipped.
        since: when it was put in service, ISO 8601 in UTC; empty where nothing ever was.
        history: the numbers put in service and not rolled back, the champion last.
    """

    number: int = SHIPPED
    since: str = ""
    history: list[int] = field(default_factory=list)


def registry_folder(given: str = "") -> Path:
    """Return the registry that was named, or the folder `local` among the user's models; it need not exist."""
    return Path(given).expanduser() if given else models_folder() / "local"


class Champions:
    """The registry in one folder. Threads and processes may share it: one at a time changes it, any may read."""

    def __init__(self, folder: Path, rule: Rule = RULE) -> None:
        """Use a folder, which need not exist yet, and the rule by which challengers take over."""
        self.folder, self.rule = folder, rule

    def entries(self) -> list[Lineage]:
        """Return the lineage of every checkpoint, by number; raises `CheckpointError` where one cannot be read."""
        found = []
        for file in sorted(self.folder.glob(f"[0-9]*/{LINEAGE}")):
            try:
                lineage = Lineage.from_json(file.read_text(encoding="utf-8"))
            except FileNotFoundError:  # trimmed since the folder was listed
                continue
            except (OSError, ValueError, MedReasonerError) as error:
                raise CheckpointError(f"{file} cannot be used: {_in_short(error)}", "remove its folder") from error
            if self.path(lineage.number) != file.parent:
                raise CheckpointError(f"{file} is of checkpoint {lineage.number}", "give the folder its name back")
            found.append(lineage)
        return sorted(found, key=lambda lineage: lineage.number)

    def path(self, number: int) -> Path:
        """The folder of a checkpoint, whether it is there or not."""
        return self.folder / f"{number:04d}"

    def number(self) -> int:
        """The number of the champion; 0 is the reasoner as shipped. Raises as `champion`."""
        return self.service_record().number

    def history(self) -> list[int]:
        """The numbers put in service and not rolled back, the champion last. Raises as `champion`."""
        return self.service_record().history

    def champion(self) -> Path | None:
        """Return the champion's folder, or None where the reasoner as shipped is in service.

        Raises:
            CheckpointError: champion.json cannot be read, or names a checkpoint that is gone.
        """
        number = self.number()
        if number == SHIPPED:
            return None
        self._check_known(number)
        return self.path(number)

    def service_record(self) -> ServiceRecord:
        """Return which checkpoint is in service, since when, and which were before; raises as `champion`."""
        file = self.folder / CHAMPION
        try:
            record = ServiceRecord(**read_object(file.read_text(encoding="utf-8"), ServiceRecord))
        except FileNotFoundError:
            return ServiceRecord()
        except (OSError, ValueError, MedReasonerError) as error:
            raise CheckpointError(f"{file} cannot be used: {_in_short(error)}", _ANEW) from error
        numbers = isinstance(record.history, list) and all(type(number) is int for number in record.history)
        if not numbers or [record.number] != (record.history[-1:] or [SHIPPED]):
            raise CheckpointError(f"{file} contradicts itself", _ANEW)
        return record

    def propose(self, challenger: Path, lineage: Lineage) -> int:
        """Take a copy of a checkpoint's folder in, and let it take over if the rule says so.

        Args:
            challenger: its folder; it stays as it is.
            lineage: what is known of it; number, published and reason are filled in here.

        Returns:
            its number in the registry; its lineage there says whether it took over, and why.

        Raises:
            CheckpointError: there is no checkpoint, the disk is full or the registry cannot be changed; all is as
                before then.
        """
        if not (challenger / CARD).is_file():
            raise CheckpointError(f"no checkpoint in {challenger}", f"name a folder that holds {CARD}")
        with self._changing():
            taken = (int(found.name) for found in self.folder.iterdir() if found.name.isdecimal())
            number = max(taken, default=SHIPPED) + 1
            verdict = not_worse(lineage, self.rule)
            if lineage.parent_number != self.number():
                what = f"it was compared with number {lineage.parent_number}, and {self.number()} is in service now"
                verdict = Verdict(False, what)
            lineage = replace(lineage, number=number, published=verdict.published, reason=verdict.reason)
            with new_folder(self.path(number)) as folder:
                _copy(challenger, folder)
                (folder / LINEAGE).write_text(lineage.to_json(), encoding="utf-8")
            if verdict.published:
                self._put_in_service([*self.history(), number])
        return number

    def publish(self, number: int) -> None:
        """Put a checkpoint in service, whatever the rule said of it; 0 is the reasoner as shipped.

        Raises:
            CheckpointError: there is no such checkpoint, or the registry cannot be changed.
        """
        with self._changing():
            if number != SHIPPED:
                self._check_known(number)
            if number != self.number():
                self._put_in_service([*self.history(), number])

    def rollback(self) -> int:
        """Put the one before in service again, at last the reasoner as shipped, and return its number.

        Raises:
            CheckpointError: nothing lies before the one in service, or the registry cannot be changed.
        """
        with self._changing():
            if not (history := self.history()):
                raise CheckpointError("the reasoner as shipped is in service", "there is nothing to roll back to")
            earlier = history[:-1]
            while earlier and earlier[-1] != SHIPPED and not self._knows(earlier[-1]):  # removed by hand
                earlier.pop()
            self._put_in_service(earlier)
            return earlier[-1] if earlier else SHIPPED

    def trim(self, keep: int) -> list[int]:
        """Remove all checkpoints but the newest `keep`, at least 1, and return their numbers.

        The champion, the one before it and what somebody has in `reading` stay in any case.
        """
        if keep < 1:
            raise MedReasonerError(f"a registry of {keep} checkpoints holds none", "keep at least 1")
        with self._changing():
            record, numbers = self.service_record(), [lineage.number for lineage in self.entries()]
            removed = [n for n in numbers[:-keep] if n not in record.history[-2:] and self._remove(n)]
            if set(removed) & set(record.history):
                self._put_in_service([number for number in record.history if number not in removed], record.since)
        return removed

    @contextmanager
    def reading(self, number: int) -> Iterator[Path]:
        """Yield a checkpoint's folder and keep `trim` from it meanwhile; raises `CheckpointError` where it is gone."""
        try:
            file = (self.path(number) / LINEAGE).open()
        except FileNotFoundError as error:
            raise self._unknown(number) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            self._check_known(number)  # `trim` may have held the lock, and taken it away
            yield self.path(number)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One at a time; one that dies lets go, and what it left unfinished is swept away by the next."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / _LOCK).open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                for rest in self.folder.glob(f"{PARTIAL}*"):
                    shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
                yield
        except OSError as error:
            raise CheckpointError(
                f"the registry {self.folder} cannot be changed: {error.strerror or error}",
                "see to free space and who may write there; the one in service goes on",
            ) from error

    def _knows(self, number: int) -> bool:
        return (self.path(number) / LINEAGE).is_file()

    def _check_known(self, number: int) -> None:
        if not self._knows(number):
            raise self._unknown(number)

    def _unknown(self, number: int) -> CheckpointError:
        return CheckpointError(f"no checkpoint {number} in {self.folder}", "`medreasoner models` lists what there is")

    def _put_in_service(self, history: list[int], since: str = "") -> None:
        record = ServiceRecord(history[-1] if history else SHIPPED, since or now(), history)
        write_durably(self.folder / CHAMPION, json.dumps(asdict(record)).encode())

    def _remove(self, number: int) -> bool:
        with (self.path(number) / LINEAGE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody is reading it
                return False
            shutil.rmtree(self.path(number).rename(self.folder / f"{PARTIAL}{number:04d}"))
        return True


def _copy(source: Path, target: Path) -> None:
    """Copy all files; shutil.copytree would hide why it failed."""
    for file in (found for found in source.rglob("*") if found.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _in_short(error: Exception) -> str:
    return error.what if isinstance(error, MedReasonerError) else str(error)
