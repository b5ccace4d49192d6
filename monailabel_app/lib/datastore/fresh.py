"""What is asked of somebody else, kept for a few seconds and shared by all who want it at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """One value, asked for by whoever finds it stale, while others that come wait for the same outcome.

    Where they took turns instead, each would wait for the time-outs of all before it. A failure is everyone's who
    waited for it, and nobody's after that: the next one asks again.
    """

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        """Keep what `ask` returns for so many seconds, or for as long as asking took where that is longer.

        So one who is slow to answer is not asked for more than half of the time.
        """
        self._ask, self._seconds = ask, seconds
        self._lock = threading.Lock()
        self._known: Future[T] | None = None
        self._until = 0.0  # of the monotonic clock

    def get(self) -> T:
        """Return the value; raises what `ask` raises."""
        with self._lock:
            held = self._held()
            known = self._known = held or Future()
        if held is None:
            self._fill(known)
        return known.result()

    def forget(self) -> None:
        """Let the next one ask again, also where somebody is asking now."""
        with self._lock:
            self._known = None

    def _held(self) -> Future[T] | None:
        """What is asked for right now, or was and is not stale."""
        known = self._known
        if known is None or not known.done():
            return known
        return known if known.exception() is None and time.monotonic() < self._until else None

    def _fill(self, known: Future[T]) -> None:
        began = time.monotonic()
        try:
            value = self._ask()
        except BaseException as error:  # whatever it is, those who wait must hear of it
            known.set_exception(error)
            return
        with self._lock:
            if self._known is known:
                ended = time.monotonic()
                self._until = ended + max(self._seconds, ended - began)
            known.set_result(value)
