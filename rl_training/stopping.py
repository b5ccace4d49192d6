"""SIGTERM as a wish: what runs saves first, then stops. Standard library only: it is heeded before anything loads."""

from __future__ import annotations

import signal
import threading

STOPPED = 128 + signal.SIGTERM  # exit code of what was asked to stop, and saved before
_wish = threading.Event()


def heed_sigterm() -> None:
    """Take SIGTERM as the wish to save and stop."""
    signal.signal(signal.SIGTERM, lambda *_: _wish.set())


def asked_to_stop() -> bool:
    """Say whether SIGTERM came."""
    return _wish.is_set()
