"""Errors of the models as HTTP: the status that fits, JSON always, and a bug's details in the log alone."""

import json
import logging
import re
import socket
import subprocess
import sys
import time

import httpx
import pytest

from medreasoner.contract.errors import (
    AnswerError,
    CheckpointError,
    ImageError,
    MedReasonerError,
    QuestionError,
    ReasonerError,
)
from tests.app.small import SmallApplication, served


class ArchiveAway(MedReasonerError):
    status = 502


@pytest.fixture(scope="module")
def failing():
    application = SmallApplication()
    with served(application) as url, httpx.Client(base_url=url) as client:
        yield application, client


def ask(client):
    return client.post(
        "/infer/medreasoner?image=case", data={"params": json.dumps({"question": "Where is the liver?"})}
    )


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (QuestionError, 422),
        (ImageError, 422),
        (AnswerError, 422),
        (ReasonerError, 502),
        (CheckpointError, 503),
        (MedReasonerError, 400),
        (ArchiveAway, 502),  # an error may bring its own
    ],
)
def test_an_expected_error_says_what_and_what_to_do(failing, kind, status):
    application, client = failing
    application.failure = kind("it went wrong", "do it otherwise")
    reply = ask(client)
    assert reply.status_code == status
    assert reply.json() == {"detail": "it went wrong", "hint": "do it otherwise", "kind": kind.__name__}


def test_a_bug_is_a_number_outside_and_a_traceback_in_the_log(failing, caplog):
    application, client = failing
    application.failure = ZeroDivisionError("/srv/studies/zebrafish")
    with caplog.at_level(logging.ERROR):
        reply = ask(client)
    assert reply.status_code == 500
    assert "zebrafish" not in reply.text
    number = re.search(r"[0-9a-f]{12}", reply.json()["hint"])[0]
    assert number in caplog.text
    assert "ZeroDivisionError" in caplog.text
    application.failure = None
    assert ask(client).is_success


def test_an_upload_that_is_broken_off_is_no_bug(failing, caplog):
    _, client = failing
    before, url = client.get("/metrics").text, client.base_url
    with caplog.at_level(logging.ERROR), socket.create_connection((url.host, url.port), timeout=10) as line:
        head = f"PUT /session/ HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        line.sendall(f"{head}Content-Length: 1000\r\n\r\n--b\r\n".encode())
        time.sleep(0.3)  # the form is being read
        line.close()
        time.sleep(0.3)
        assert client.get("/metrics").text == before
    assert not caplog.text


def test_addresses_and_methods_that_are_not_served(failing):
    _, client = failing
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("PATCH", "/info/", 405),
        ("GET", "/infer/medreasoner", 405),
    ):
        reply = client.request(method, path)
        assert reply.status_code == status
        assert set(reply.json()) == {"detail", "hint", "kind"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such/folder"], "there is no folder /no/such/folder"),
        (["STUDIES", "--conf", "colour=red"], "unknown setting 'colour'"),
        (["STUDIES", "--conf", "tokens=/no/such/file"], "token file"),
        (["STUDIES", "--conf", "audit_log=/no/such/folder/file"], "audit log"),
        (["STUDIES", "--port", "TAKEN"], "in use"),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_a_sentence(arguments, said, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        known = {"STUDIES": str(tmp_path), "TAKEN": str(other.getsockname()[1])}
        command = [sys.executable, "-m", "medreasoner.cli", "serve", *(known.get(word, word) for word in arguments)]
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode != 0
    assert said in found.stderr
    assert "Traceback" not in found.stderr
