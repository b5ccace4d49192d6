"""Run a generator of steps to its end, without an event loop."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any


def finish(steps: Generator[Any, Any, Any]) -> Any:
    """Return what the generator returns, when it yields nothing but pauses."""
    while True:
        try:
            assert next(steps) is None
        except StopIteration as stop:
            return stop.value
