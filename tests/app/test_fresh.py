"""What is shared: one question to a slow service, its value for a while, its failure by those who waited for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from monailabel_app.lib.datastore.fresh import Fresh


class Service:
    """Counts how often it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()
        self.failure: Exception | None = None
        self.is_asked = threading.Event()

    def ask(self) -> int:
        self.asked += 1
        number = self.asked
        self.is_asked.set()
        assert self.may_answer.wait(10)
        if self.failure is not None:
            raise self.failure
        return number


@pytest.fixture
def service() -> Service:
    return Service()


def test_those_who_come_together_ask_once(service: Service) -> None:
    fresh = Fresh(service.ask, 60)
    with ThreadPoolExecutor(6) as callers:
        found = [callers.submit(fresh.get) for _ in range(6)]
        assert service.is_asked.wait(10)
        service.may_answer.set()
    assert [one.result() for one in found] == [1] * 6
    assert fresh.get() == 1


def test_a_failure_is_shared_by_those_who_waited_and_not_kept(service: Service) -> None:
    fresh, service.failure = Fresh(service.ask, 60), ValueError("away")
    with ThreadPoolExecutor(6) as callers:
        found = [callers.submit(fresh.get) for _ in range(6)]
        assert service.is_asked.wait(10)
        while sum(one.running() for one in found) < 6:
            time.sleep(0.01)
        time.sleep(0.5)  # the last one is about to wait
        service.may_answer.set()
    assert all("away" in str(one.exception()) for one in found)
    assert service.asked == 1
    service.failure = None
    assert fresh.get() == 2


def test_a_value_grows_stale(service: Service) -> None:
    service.may_answer.set()
    fresh = Fresh(service.ask, 0.5)
    assert (fresh.get(), fresh.get()) == (1, 1)
    time.sleep(0.6)
    assert fresh.get() == 2


def test_one_who_is_slow_is_asked_for_half_of_the_time_at_most(service: Service) -> None:
    threading.Timer(0.6, service.may_answer.set).start()
    fresh = Fresh(service.ask, 0.0)
    assert fresh.get() == 1
    assert fresh.get() == 1
    time.sleep(0.8)
    assert fresh.get() == 2


def test_what_is_forgotten_while_it_is_asked_for_does_not_come_back(service: Service) -> None:
    fresh = Fresh(service.ask, 60)
    with ThreadPoolExecutor(1) as caller:
        before = caller.submit(fresh.get)
        assert service.is_asked.wait(10)
        fresh.forget()
        service.may_answer.set()
        assert fresh.get() == 2
        assert before.result() == 1
    assert fresh.get() == 2
