"""Calls on Slicer's event loop, through QNetworkAccessManager: nothing here waits, and no thread is started.

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
from MedReasonerLib import client
from MedReasonerLib.client import Aside, Call, Reply, Server, Steps

_BUDGET = 0.015  # seconds of steps in a row before the event loop gets its turn
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


class Exchange:
    """One call on its way; exactly one of `on_reply` and `on_failed` is called, unless it is cancelled."""

    def __init__(
        self,
        manager: Any,
        server: Server,
        call: Call,
        on_reply: Callable[[Reply], None],
        on_failed: Callable[[MedReasonerError], None],
        on_sent: Callable[[float], None],
    ) -> None:
        self._server, self._call = server, call
        self._on_reply, self._on_failed, self._on_sent = on_reply, on_failed, on_sent
        self._open, self._late = True, False
        self._file: Any = None
        request = qt.QNetworkRequest(qt.QUrl(server.url(call)))
        for name, value in server.headers(call).items():
            request.setRawHeader(name.encode(), value.encode())
        self._reply = self._send(manager, request)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._too_late)
        self._timer.start(int(call.seconds * 1000))
        self._reply.uploadProgress.connect(self._progressed)
        self._reply.finished.connect(self._finished)

    def cancel(self) -> None:
        """Give up; no callback comes any more."""
        if self._open:
            self._open = False
            self._reply.abort()

    def _send(self, manager: Any, request: Any) -> Any:
        call = self._call
        if call.method == "GET":
            return manager.get(request)
        if call.method == "DELETE":
            return manager.deleteResource(request)
        body = call.body or b""
        if isinstance(body, Path):
            self._file = qt.QFile(str(body))
            self._file.open(qt.QIODevice.ReadOnly)
            body = self._file
        return manager.put(request, body) if call.method == "PUT" else manager.post(request, body)

    def _too_late(self) -> None:
        self._late = True
        self._reply.abort()

    def _progressed(self, sent: int, total: int) -> None:
        if self._open and total > 0:
            self._on_sent(sent / total)

    def _finished(self) -> None:
        self._timer.stop()
        self._reply.deleteLater()
        if self._file is not None:
            self._file.close()
        if not self._open:
            return
        self._open = False
        status = self._reply.attribute(qt.QNetworkRequest.HttpStatusCodeAttribute)
        if self._late:
            self._on_failed(client.unreachable(self._server, f"none within {self._call.seconds:.0f} s"))
        elif not status:
            self._on_failed(client.unreachable(self._server, self._reply.errorString()))
        else:
            kind = self._reply.header(qt.QNetworkRequest.ContentTypeHeader) or ""
            self._on_reply(Reply(int(status), str(kind), bytes(self._reply.readAll().data())))


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
        self._steps.close()

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
        except StopIteration as stop:
            self._end()
            self._on_done(stop.value)
        except MedReasonerError as failure:
            self._end()
            self._on_failed(failure)
        except Exception as bug:
            self._end()
            self._on_failed(MedReasonerError(f"a mistake in MedReasoner: {bug!r}", "report it with the Python console"))
            raise
        else:
            self._start(wish)

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
        place = client.read_json(reply)
        self._on_progress(Progress("waiting", None, place.get("position"), place.get("state") == "running"))

    def _aside(self, call: Call, on_reply: Callable[[Reply], None]) -> None:
        self._asides.append(Exchange(self._manager, self._server, call, on_reply, _ignore, _ignore))

    def _end(self) -> None:
        self.is_running = False
        self._call = self._exchange = None
        self._turn.stop()
        self._poll.stop()


def _timer(milliseconds: int, call: Callable[[], None], single: bool = False) -> Any:
    timer = qt.QTimer()
    timer.setSingleShot(single)
    timer.setInterval(milliseconds)
    timer.timeout.connect(call)
    return timer


def _ignore(_: Any) -> None:
    """What an aside brings back changes nothing."""
