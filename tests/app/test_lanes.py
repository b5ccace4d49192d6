"""Lanes: order, positions, the bound, withdrawal, and clients that leave; first alone, then over HTTP."""

import json
import threading
import time

import httpx
import pytest

from monailabel_app.gateway.errors import Conflict, NotFound, Refusal, Unavailable
from monailabel_app.gateway.lanes import Lanes
from monailabel_app.lib.settings import Settings
from tests.app.small import SmallApplication, served


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def gate():
    """Work that begins at once and ends when told to."""
    event = threading.Event()
    yield event
    event.set()


def held(gate):
    return lambda _: gate.wait(20)


def test_one_question_runs_the_others_wait_in_order_and_each_knows_its_place(gate):
    lanes, order = Lanes(length=5), []
    tickets = [lanes.submit("m", held(gate), "first")]
    tickets += [lanes.submit("m", lambda t: order.append(t.id), f"q{n}") for n in range(3)]
    until(lambda: lanes.state("first")["state"] == "running")
    places = [lanes.state(id) for id in ("first", "q0", "q1", "q2")]
    assert [p["state"] for p in places] == ["running", "waiting", "waiting", "waiting"]
    assert [p["position"] for p in places] == [0, 1, 2, 3]
    waits = [p["wait_seconds"] for p in places]
    assert waits == sorted(waits)
    assert waits[0] == 0 < waits[-1]
    assert lanes.lengths() == {"m": 3}
    gate.set()
    for ticket in tickets:
        ticket.future.result(10)
    assert order == ["q0", "q1", "q2"]
    until(lambda: lanes.state("q2")["state"] == "done")


def test_another_model_s_lane_does_not_wait(gate):
    lanes = Lanes(length=1)
    lanes.submit("reasoner", held(gate), "slow")
    assert lanes.submit("refine", lambda _: "mask", "quick").future.result(10) == "mask"


def test_beyond_its_length_a_lane_says_when_to_come_back(gate):
    lanes = Lanes(length=2)
    lanes.submit("m", held(gate), "runs")
    until(lambda: lanes.state("runs")["state"] == "running")
    for id in ("a", "b"):
        lanes.submit("m", held(gate), id)
    with pytest.raises(Unavailable) as caught:
        lanes.submit("m", held(gate), "c")
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert "2 questions already wait" in caught.value.what


def test_the_expected_wait_follows_measured_answers():
    lanes = Lanes(length=5)
    for n in range(3):
        lanes.submit("m", lambda _: time.sleep(0.05), f"q{n}").future.result(10)
    gate = threading.Event()
    lanes.submit("m", held(gate), "runs")
    until(lambda: lanes.state("runs")["state"] == "running")
    lanes.submit("m", held(gate), "waits")
    assert lanes.state("waits")["wait_seconds"] <= 0.2  # not the first guess of 5 s
    gate.set()


def test_what_has_not_begun_can_be_withdrawn_by_its_owner_only(gate):
    lanes, done = Lanes(length=5), []
    lanes.submit("m", held(gate), "runs", "ann")
    lanes.submit("m", done.append, "waits", "ann")
    until(lambda: lanes.state("runs", "ann")["state"] == "running")
    with pytest.raises(NotFound):  # nor does another user learn that it exists
        lanes.withdraw("waits", "bob")
    lanes.withdraw("waits", "ann")
    with pytest.raises(NotFound):
        lanes.state("waits", "ann")
    with pytest.raises(Conflict, match="being answered"):
        lanes.withdraw("runs", any_owner=True)
    last = lanes.submit("m", lambda _: "answer", "last")
    gate.set()
    assert last.future.result(10) == "answer"
    assert not done


def test_ids_are_checked_and_unique_while_under_way(gate):
    lanes = Lanes(length=5)
    lanes.submit("m", held(gate), "a")
    with pytest.raises(Conflict):
        lanes.submit("other", held(gate), "a")
    for bad in ("", "a b", "a\n", "é", "x" * 65, "../a"):
        with pytest.raises(Refusal):
            lanes.submit("m", held(gate), bad)


def test_an_id_that_is_used_again_stands_for_the_newer_question(gate):
    """As of a client that sends its question once more."""
    lanes = Lanes(length=5)
    lanes.submit("m", lambda _: "answer", "a").future.result(10)
    until(lambda: lanes.state("a")["state"] == "done")
    lanes.submit("m", held(gate), "a")
    until(lambda: lanes.state("a")["state"] == "running")


def test_a_failure_leaves_the_lane_usable():
    lanes = Lanes(length=1)
    failing = lanes.submit("m", lambda _: 1 / 0, "fails")
    with pytest.raises(ZeroDivisionError):
        failing.future.result(10)
    assert lanes.submit("m", lambda _: 1, "next").future.result(10) == 1


def test_closing_finishes_what_runs_and_drops_what_waits(gate):
    lanes = Lanes(length=5)
    runs = lanes.submit("m", lambda _: gate.wait(20) and "answer", "runs")
    waits = lanes.submit("m", held(gate), "waits")
    until(lambda: lanes.state("runs")["state"] == "running")
    threading.Timer(0.1, gate.set).start()
    lanes.close()
    assert runs.future.result(0) == "answer"
    assert waits.future.cancelled()
    with pytest.raises(Unavailable, match="shutting down"):
        lanes.submit("m", held(gate), "late")


def ask(client, question="Where is the liver?", id=None):
    headers = {"X-Request-ID": id} if id else {}
    form = {"params": (None, json.dumps({"question": question}))}
    return client.post("/infer/medreasoner?image=case&output=json", files=form, headers=headers)


@pytest.fixture
def slow():
    """A server whose model holds its answer back until told."""
    application = SmallApplication()
    application.may_answer.clear()
    with served(application, Settings(queue_length=2)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield application, client
        application.may_answer.set()


def in_background(client, **asked):
    replies = []
    thread = threading.Thread(target=lambda: replies.append(ask(client, **asked)))
    thread.start()
    return thread, replies


def test_full_queue_place_and_withdrawal_over_http(slow):
    application, client = slow
    threads = []
    for id in ("one", "two", "three"):
        threads.append(in_background(client, id=id, question=f"Where is number {id}?"))
        until(lambda id=id: client.get(f"/queue/{id}").is_success)
    until(lambda: client.get("/queue/one").json()["state"] == "running")
    assert client.get("/queue/three").json()["position"] == 2
    full = ask(client)
    assert full.status_code == 503
    assert int(full.headers["retry-after"]) >= 1
    assert full.json()["kind"] == "Unavailable"
    assert ask(client, id="one").status_code == 409
    assert client.delete("/queue/two").status_code == 200
    threads[1][0].join(10)
    assert threads[1][1][0].status_code == 409
    assert client.delete("/queue/one").status_code == 409  # has begun
    start = time.monotonic()
    assert client.get("/healthz").is_success
    assert time.monotonic() - start < 1  # the event loop does not wait for the model
    application.may_answer.set()
    for thread, _ in threads:
        thread.join(10)
    assert [r[1][0].status_code for r in threads] == [200, 409, 200]
    assert threads[2][1][0].json()["question"] == "Where is number three?"
    assert [a["question"] for a in application.asked] == ["Where is number one?", "Where is number three?"]
    assert client.get("/queue/three").json()["state"] == "done"
    assert client.get("/queue/never").status_code == 404


def test_a_client_that_leaves_takes_its_waiting_question_along(slow):
    application, client = slow
    thread, _ = in_background(client, id="runs")
    until(lambda: len(application.asked) == 1)
    with httpx.Client(base_url=client.base_url, timeout=0.5) as impatient, pytest.raises(httpx.ReadTimeout):
        ask(impatient, id="leaves", question="Where is what nobody waits for?")
    until(lambda: client.get("/queue/leaves").status_code == 404)
    with httpx.Client(base_url=client.base_url, timeout=0.5) as impatient, pytest.raises(httpx.ReadTimeout):
        ask(impatient, id="also-leaves")
    until(lambda: client.get("/queue/also-leaves").status_code == 404)
    application.may_answer.set()
    thread.join(10)
    assert ask(client, "Where is the spleen?").status_code == 200
    assert [a["question"] for a in application.asked] == ["Where is the liver?", "Where is the spleen?"]


def test_work_whose_client_has_left_is_told_so(slow):
    application, client = slow
    with httpx.Client(base_url=client.base_url, timeout=0.5) as impatient, pytest.raises(httpx.ReadTimeout):
        ask(impatient)
    until(lambda: application.asked[0]["cancelled"]())


@pytest.mark.parametrize("address", ["/activelearning/first", "/train/medreasoner"])
def test_an_archive_that_takes_its_time_holds_up_nobody_else(address):
    """Choosing lists the images; MONAI Label's description of itself does too, and is not needed to choose."""
    application = SmallApplication()
    application.strategies, application.trainers, application.info = ("first",), ("medreasoner",), None
    with served(application) as url, httpx.Client(base_url=url, timeout=30) as client:
        asked, comes = threading.Event(), threading.Event()
        application.next_sample = application.train = lambda _: asked.set() or (comes.wait(30) and {})
        replies = []
        thread = threading.Thread(target=lambda: replies.append(client.post(address)))
        thread.start()
        try:
            assert asked.wait(10)
            assert client.get("/healthz", timeout=5).is_success
        finally:
            comes.set()
            thread.join(10)
        assert replies[0].json() == {}


def test_series_that_come_slowly_from_an_archive_hold_up_nobody_else():
    """Each is fetched before its question can wait for a model, and whoever loses patience asks once more."""
    application, may_come = SmallApplication(), threading.Event()
    fetch, fetching = application.store.get_image_uri, []
    application.store.get_image_uri = lambda id: fetching.append(id) or (may_come.wait(30) and fetch(id))
    with served(application, Settings(queue_length=50)) as url:
        limits = httpx.Limits(max_connections=100)
        with httpx.Client(base_url=url, timeout=30, limits=limits) as client:
            waiting = [in_background(client) for _ in range(45)]
            try:
                until(lambda: len(fetching) > 5)
                for _ in range(5):  # while the others arrive
                    assert client.get("/readyz", timeout=5).is_success
                    time.sleep(0.1)
            finally:
                may_come.set()
                for thread, _ in waiting:
                    thread.join(20)
    assert [replies[0].status_code for _, replies in waiting] == [200] * 45


def test_the_server_s_end_waits_for_the_answer_that_runs():
    application = SmallApplication()
    application.may_answer.clear()
    with httpx.Client(timeout=30) as client:  # outlives the server
        with served(application) as url:
            client.base_url = url
            thread, replies = in_background(client)
            until(lambda: application.asked)
            threading.Timer(0.5, application.may_answer.set).start()
        thread.join(10)
    assert replies[0].json()["question"] == "Where is the liver?"


def test_the_server_s_end_lets_an_answer_go_that_takes_longer_than_it_waits():
    """A mask through a large volume takes minutes; whoever asked is gone by then."""
    application, told = SmallApplication(), threading.Event()

    def infer(request):
        application.asked.append(request)
        until(request["cancelled"])
        told.set()
        raise Refusal("cancelled", "ask again")

    application.infer = infer
    with httpx.Client(timeout=30) as client:
        with served(application, timeout_graceful_shutdown=1) as url:
            client.base_url = url
            thread, _ = in_background(client)
            until(lambda: application.asked)
        thread.join(10)
    assert told.is_set()
