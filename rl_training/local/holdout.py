"""The local hold-out: patients that no local reasoner is ever trained on, so that all of them can be compared.

A file beside the checkpoints keeps every patient's side for good, also when labels are taken away or the share is
changed. New patients are dealt in the order of a hash (`rl_training.dataset.splitting`), to the side that lacks most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medreasoner.durable import write_durably
from rl_training.dataset import DataError, Example, Reader
from rl_training.dataset.splitting import cut

FILE = "holdout.json"
SIDES = ("train", "test")


class Divided:
    """A collection whose examples have the side of their patient as their split."""

    def __init__(self, reader: Reader, registry: Path, share: float) -> None:
        """Look up every patient, deal the new ones and write them down.

        Args:
            reader: the collection; rows that cannot be read have no side, and stay errors.
            registry: folder of the file.
            share: of the labels that the hold-out is to have.

        Raises:
            DataError: the file is damaged, or there is one patient only.
        """
        self._reader = reader
        self._sides = remembered_sides(registry / FILE, list(_patients(reader)), share)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Example:
        example = self._reader[index]
        return replace(example, split=self._sides[_key(example.group)])


def remembered_sides(file: Path, patients: Sequence[str], share: float) -> dict[str, str]:
    """Return every patient's side, by the hash of the patient's id; new ones are added to the file.

    Args:
        file: need not exist yet.
        patients: of each label; a patient with more labels counts more.
        share: of the labels, for the hold-out.
    """
    known = _read(file)
    keys = [_key(patient) for patient in patients]
    shares = {"train": 1 - share, "val": 0.0, "test": share}
    sides = known | cut(keys, [known.get(key, "") for key in keys], shares)
    if sides != known:
        write_durably(file, (json.dumps(sides, indent=1, sort_keys=True) + "\n").encode())
    return sides


def _patients(reader: Reader) -> list[str]:
    found = []
    for index in range(len(reader)):
        try:
            found.append(reader[index].group)
        except DataError:  # told, and left out, when the collection is prepared
            continue
    return found


def _key(patient: str) -> str:
    """Stand for a patient without naming one; the image's own hash where no file names the patient."""
    return hashlib.sha256(patient.encode()).hexdigest()


def _read(file: Path) -> dict[str, str]:
    try:
        sides = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(sides, dict) or not all(side in SIDES for side in sides.values()):
        raise _damaged(file, "it does not map patients to train or test")
    return sides


def _damaged(file: Path, why: str) -> DataError:
    return DataError(
        f"{file} says who is in the hold-out and cannot be used: {why}",
        "take it back from a backup: without it, what was trained on might be measured on",
    )
