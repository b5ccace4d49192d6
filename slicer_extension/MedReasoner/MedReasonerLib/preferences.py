"""What is remembered between sessions of Slicer: addresses, consent, questions. Never a token, never an image."""

from __future__ import annotations

import json
from typing import Any

import qt

from MedReasonerLib.address import DEFAULT

_PREFIX = "MedReasoner/"
MAX_ADDRESSES, MAX_QUESTIONS = 10, 30


class Preferences:
    """Lists in Slicer's settings, newest first."""

    def __init__(self) -> None:
        self._settings = qt.QSettings()

    @property
    def addresses(self) -> list[str]:
        """Servers in use, the last one first; this machine when there was none yet."""
        return self._read("addresses") or [DEFAULT]

    @property
    def questions(self) -> list[str]:
        return self._read("questions")

    def used_address(self, address: str) -> None:
        self._put_first("addresses", address, MAX_ADDRESSES)

    def asked(self, question: str) -> None:
        self._put_first("questions", question, MAX_QUESTIONS)

    def may_upload(self, address: str) -> bool:
        """Whether the user has agreed that images go to this address."""
        return address in self._read("consent")

    def allow_upload(self, address: str) -> None:
        self._put_first("consent", address, 100)

    def _put_first(self, name: str, value: str, most: int) -> None:
        values = [value, *(v for v in self._read(name) if v != value)]
        self._settings.setValue(_PREFIX + name, json.dumps(values[:most]))

    def _read(self, name: str) -> list[str]:
        values: Any = json.loads(self._settings.value(_PREFIX + name, "[]") or "[]")
        return [v for v in values if isinstance(v, str)]
