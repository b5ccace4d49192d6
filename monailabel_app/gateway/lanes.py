"""One lane for each model: a bounded queue in front of one thread, so the event loop never waits for a model.

A thread pool of one is the queue: a question that has not begun can be withdrawn, one that runs is finished.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from monailabel_app.gateway.errors import Conflict, NotFound, Refusal, Unavailable

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REMEMBERED = 1000  # finished questions whose id still answers "done"
_FIRST_GUESS_S = 5.0  # of how long an answer takes, until one has been measured
_NEWEST_SHARE = 0.3  # weight of the newest answer in the moving mean


@dataclass
class Ticket:
    """One question's place in a lane. Times are seconds of the monotonic clock."""

    id: str
    owner: str
    since: float = field(default_factory=time.monotonic)
    began: float | None = None
    unwanted: bool = False  # the client has gone: long work may stop early
    future: Future[Any] = field(default_factory=Future)

    @property
    def waited(self) -> float:
        """Seconds from the request to the model's beginning."""
        return (self.began or time.monotonic()) - self.since


class Lane:
    """The questions for one model, in order of arrival; the first of `tickets` may be running."""

    def __init__(self, model: str, length: int) -> None:
        self.model, self.length = model, length
        self.tickets: OrderedDict[str, Ticket] = OrderedDict()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=model)
        self.mean: float | None = None  # seconds of an answer, moving

    def measured(self, seconds: float) -> None:
        """Let one more answer count."""
        self.mean = seconds if self.mean is None else self.mean + _NEWEST_SHARE * (seconds - self.mean)

    @property
    def waiting(self) -> int:
        """How many questions have not begun."""
        return sum(ticket.began is None for ticket in self.tickets.values())

    def expected_wait(self, ahead: int) -> float:
        """Seconds until a question begins that has `ahead` unfinished ones before it."""
        first = next(iter(self.tickets.values()), None)
        running = 0.0 if first is None or first.began is None else time.monotonic() - first.began
        typical = _FIRST_GUESS_S if self.mean is None else self.mean
        return typical * ahead - min(running, typical) if ahead else 0.0


class Lanes:
    """All lanes of a server. Safe to call from any thread; nothing here blocks."""

    def __init__(self, length: int) -> None:
        """Allow `length` questions to wait for each model, beside the one that runs."""
        self._length = length
        self._lock = threading.Lock()
        self._lanes: dict[str, Lane] = {}
        self._finished: OrderedDict[str, str] = OrderedDict()  # id -> owner
        self._closed = False
        self._left = time.monotonic()  # when the last question went

    def submit(self, model: str, work: Callable[[Ticket], Any], id: str, owner: str = "") -> Ticket:
        """Queue `work`, which is called with its ticket; the ticket's future holds what it returns.

        Raises:
            Refusal: `id` is not 1 to 64 letters, digits, dots, dashes or underscores.
            Conflict: a question with this id is under way.
            Unavailable: the lane is full, or the server is shutting down.
        """
        if not _ID.fullmatch(id):
            raise Refusal("X-Request-ID is not usable", "send 1 to 64 letters, digits, dots, dashes or underscores")
        with self._lock:
            if self._closed:
                raise Unavailable("the server is shutting down", "ask again in a minute", 60)
            if model not in self._lanes:
                self._lanes[model] = Lane(model, self._length)
            lane = self._lanes[model]
            if any(id in other.tickets for other in self._lanes.values()):
                raise Conflict(f"a question with the id {id} is under way", "send another X-Request-ID")
            if lane.waiting >= lane.length:
                wait = max(1, math.ceil(lane.expected_wait(1)))
                raise Unavailable(
                    f"{lane.waiting} questions already wait for {model}", f"ask again in {wait} s", retry_after=wait
                )
            ticket = Ticket(id, owner)
            lane.tickets[id] = ticket
            self._finished.pop(id, None)  # an earlier question's
            ticket.future = lane.thread.submit(self._carry_out, lane, ticket, work)
        ticket.future.add_done_callback(lambda _: self._leave(lane, ticket))
        return ticket

    def state(self, id: str, owner: str = "", any_owner: bool = False) -> dict[str, Any]:
        """Say where a question stands: waiting, running or done; how many are ahead; seconds until it begins.

        Raises:
            NotFound: no such question, or another user's.
        """
        with self._lock:
            if id in self._finished and (any_owner or self._finished[id] == owner):
                return {"state": "done", "position": 0, "wait_seconds": 0.0}
            lane, ticket, ahead = self._find(id, owner, any_owner)
            state = "waiting" if ticket.began is None else "running"
            return {"state": state, "position": ahead, "wait_seconds": round(lane.expected_wait(ahead), 1)}

    def withdraw(self, id: str, owner: str = "", any_owner: bool = False) -> None:
        """Cancel a question that has not begun.

        Raises:
            NotFound: no such question, or another user's.
            Conflict: it is being answered already.
        """
        with self._lock:
            _, ticket, _ = self._find(id, owner, any_owner)
        if not ticket.future.cancel():  # outside the lock: the future's callback takes it
            raise Conflict("this question is being answered already", "wait for its answer")

    def lengths(self) -> dict[str, int]:
        """Questions that wait, by model."""
        with self._lock:
            return {model: lane.waiting for model, lane in self._lanes.items()}

    def quiet_seconds(self) -> float:
        """For how long no question has waited or run; 0 while one does."""
        with self._lock:
            busy = any(lane.tickets for lane in self._lanes.values())
            return 0.0 if busy else time.monotonic() - self._left

    def close(self) -> None:
        """Finish what runs, drop what waits, refuse what comes."""
        with self._lock:
            self._closed = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.thread.shutdown(wait=True, cancel_futures=True)

    def _carry_out(self, lane: Lane, ticket: Ticket, work: Callable[[Ticket], Any]) -> Any:
        ticket.began = time.monotonic()
        result = work(ticket)
        lane.measured(time.monotonic() - ticket.began)  # a failure may be quick and says nothing of answers
        return result

    def _leave(self, lane: Lane, ticket: Ticket) -> None:
        with self._lock:
            lane.tickets.pop(ticket.id, None)
            self._left = time.monotonic()
            if not ticket.future.cancelled():
                self._finished[ticket.id] = ticket.owner
                while len(self._finished) > _REMEMBERED:
                    self._finished.popitem(last=False)

    def _find(self, id: str, owner: str, any_owner: bool) -> tuple[Lane, Ticket, int]:
        for lane in self._lanes.values():
            for ahead, ticket in enumerate(lane.tickets.values()):
                if ticket.id == id and (any_owner or ticket.owner == owner):
                    return lane, ticket, ahead
        raise NotFound(f"no question with the id {id[:64]}", "it was withdrawn, is long done, or never came here")
