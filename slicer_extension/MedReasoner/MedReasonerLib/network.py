"""Conversations on Slicer's event loop: nothing here waits, and no thread is started.

A `Job` drives a generator of MedReasonerLib/conversation.py: it yields a `Call` and gets its `Reply`, an `Aside` and
goes on at once, or None, which lets the user interface breathe. So each conversation reads top to bottom, and can be
cancelled at every yield.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import qt

from medreasoner.contract.errors import MedReasonerError
from MedReasonerLib import client, replies
from MedReasonerLib.client import Aside, Call, Reply, Server, Steps
from MedReasonerLib.exchange import Exchange, no_room

_BUDGET = 0.008  # seconds of steps in a row before the event loop gets its turn
_POLL_MS = 1000  # how often the place in the queue is asked for


@dataclass(frozen=True)
class Progress:
    """How far a job is: preparing, uploading, waiting or reading.

    Attributes:
        fraction: 0 to 1 of an upload, None where there is no telling.
        position: how many questions the server has before this one; None where it did not say.
        is_running: the server works on it.
    """

    stage: str
    fraction: Optional[float] = None
    position: Optional[int] = None
    is_running: bool = False


class Job:
    """One conversation under way."""

    def __init__(
        self,
        manager: Any,
        server: Server,
        steps: Steps,
        on_done: Callable[[Any], None],
        on_failed: Callable[[MedReasonerError], None],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._manager, self._server, self._steps = manager, server, steps
        self._on_done, self._on_failed, self._on_progress = on_done, on_failed, on_progress
        self._call: Optional[Call] = None
        self._exchange: Optional[Exchange] = None
        self._asides: list[Exchange] = []
        self.is_running = True
        self.started = time.monotonic()
        self._turn = _timer(0, self._go_on, single=True)
        self._poll = _timer(_POLL_MS, self._ask_place)
        self._on_progress(Progress("preparing"))
        self._turn.start()

    def cancel(self) -> None:
        """Stop: what is on its way is aborted, what waits in the server's queue leaves it, no callback comes."""
        if not self.is_running:
            return
        if self._exchange is not None:
            self._exchange.cancel()
            if self._call is not None and self._call.queue_id:
                self._aside(client.leave_queue(self._call), _ignore)
        self._end()

    def _go_on(self) -> None:
        self._advance(None)

    def _advance(self, reply: Optional[Reply], error: Optional[MedReasonerError] = None) -> None:
        if not self.is_running:
            return
        until = time.monotonic() + _BUDGET
        try:
            wish = self._steps.throw(error) if error is not None else self._steps.send(reply)
            while wish is None or isinstance(wish, Aside):
                if isinstance(wish, Aside):
                    self._aside(wish.call, _ignore)
                elif time.monotonic() > until:
                    self._turn.start()
                    return
                wish = self._steps.send(None)
            self._start(wish)
        except StopIteration as stop:
            self._end()
            self._on_done(stop.value)
        except MedReasonerError as failure:
            self._end()
            self._on_failed(failure)
        except OSError as error:  # files are nothing but temporary ones here: the network's errors come as replies
            self._end()
            self._on_failed(no_room(error))
        except Exception as bug:
            self._end()
            self._on_failed(MedReasonerError(f"a mistake in MedReasoner: {bug!r}", "report it with the Python console"))
            raise

    def _start(self, call: Call) -> None:
        self._call = call
        stage = "uploading" if isinstance(call.body, Path) else "waiting"
        self._on_progress(Progress(stage, 0.0 if stage == "uploading" else None))
        if call.queue_id:
            self._poll.start()
        self._exchange = Exchange(self._manager, self._server, call, self._replied, self._failed, self._sent)

    def _replied(self, reply: Reply) -> None:
        call, self._call, self._exchange = self._call, None, None
        self._poll.stop()
        assert call is not None  # a reply belongs to a call
        try:
            self._server.check(call, reply)
        except MedReasonerError as error:
            self._advance(None, error)
            return
        self._on_progress(Progress("reading"))
        self._advance(reply)

    def _failed(self, error: MedReasonerError) -> None:
        self._call = self._exchange = None
        self._poll.stop()
        self._advance(None, error)

    def _sent(self, fraction: float) -> None:
        if self._call is not None and isinstance(self._call.body, Path):
            self._on_progress(Progress("uploading", fraction) if fraction < 1 else Progress("waiting"))

    def _ask_place(self) -> None:
        if self._call is not None and self._call.queue_id:
            self._aside(client.queue_place(self._call), self._placed)

    def _placed(self, reply: Reply) -> None:
        if self._call is None or reply.status != 200:  # answered meanwhile, or a server without a queue
            return
        place = replies.read_json(reply)
        self._on_progress(Progress("waiting", None, place.get("position"), place.get("state") == "running"))

    def _aside(self, call: Call, on_reply: Callable[[Reply], None]) -> None:
        self._asides.append(Exchange(self._manager, self._server, call, on_reply, _ignore, _ignore))

    def _end(self) -> None:
        self.is_running = False
        self._call = self._exchange = None
        self._turn.stop()
        self._poll.stop()
        self._steps.close()


def _timer(milliseconds: int, call: Callable[[], None], single: bool = False) -> Any:
    timer = qt.QTimer()
    timer.setSingleShot(single)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer


def _ignore(_: Any) -> None:
    """What an aside brings back changes nothing."""
