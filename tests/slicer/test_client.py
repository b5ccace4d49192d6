"""Calls and replies over real HTTP on loopback, sent the blocking way."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from MedReasonerLib import client, replies
from MedReasonerLib.blocking import send_blocking
from MedReasonerLib.client import Call, Reply, Server, ServerError, ServerImage
from MedReasonerLib.multipart import Form, Part
from MedReasonerLib.nrrd_file import compressed_file
from MedReasonerLib.replies import NextCase

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingRequest, RegionRequest
from tests.slicer.scripted_server import REASONING, Scripted, scripted_server
from tests.slicer.steps import finish

LPS_GRID = np.diag([-1.0, -1.0, 2.0, 1.0])


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with scripted_server() as found:
        yield found


def send(server: Server, call: Call) -> Reply:
    reply = send_blocking(server, call)
    server.check(call, reply)
    return reply


def phantom() -> bytes:
    values = np.zeros((6, 30, 40), np.int16)
    values[3, 8:20, 5:15] = 200
    return finish(compressed_file(values, LPS_GRID))


def uploaded(server: Server, folder: Path) -> ServerImage:
    form, body = Form(), folder / "body"
    body.write_bytes(form.body({"files": Part(phantom(), "volume.nrrd")}))
    return replies.read_session(send(server, client.open_session(body, form.content_type)))


def test_a_question_gets_an_answer_and_a_mask(scripted: Scripted, tmp_path: Path) -> None:
    server = Server(scripted.address)
    image = uploaded(server, tmp_path)
    request = GroundingRequest("Where is the block?", "axial", 3, (100.0, 200.0))
    answered = replies.read_answer(send(server, client.ask(image, request)))
    assert answered.result.box == [5.0, 8.0, 15.0, 20.0]
    assert answered.result.reasoning == REASONING
    assert answered.mask_file.startswith(b"NRRD")
    asked = scripted.asked[-1]
    assert asked["model"] == "medreasoner"
    assert asked["window"] == [100.0, 200.0]
    method, path, headers = scripted.requests[-1]
    assert (method, path.split("?")[0]) == ("POST", "/infer/medreasoner")
    assert headers["X-Request-ID"]


def test_an_edited_box_gets_another_mask(scripted: Scripted, tmp_path: Path) -> None:
    server = Server(scripted.address)
    region = RegionRequest([5.0, 8.0, 10.0, 20.0], axis="axial", slice_index=3)
    answered = replies.read_answer(send(server, client.refine(uploaded(server, tmp_path), region)))
    assert answered.result.box == [5.0, 8.0, 10.0, 20.0]
    assert scripted.asked[-1].keys().isdisjoint({"points", "question", "window"})  # what is not set is not sent


def test_labels_are_saved_with_their_question(scripted: Scripted, tmp_path: Path) -> None:
    server = Server(scripted.address)
    answered = replies.read_answer(
        send(server, client.ask(uploaded(server, tmp_path), GroundingRequest("Where?", "axial", 3)))
    )
    record = LabelRecord.of(answered.result).edited("box")
    send(server, client.save_label("case 1/ü", answered.mask_file, record))
    params, mask = scripted.labels["case 1/ü"]
    assert mask == answered.mask_file
    assert params["label_info"] == [{"name": "bright block", "idx": 1}]
    assert LabelRecord.from_json(json.dumps(params["medreasoner"])) == record


@pytest.mark.parametrize(
    ("question", "status", "reason", "hint"),
    [
        ("broken", 500, "the expert ran out of memory", "restart the server with a smaller expert"),
        ("refused", 422, "the question cannot be asked", "ask about one thing"),
        ("busy", 503, "the queue is full", "wait a moment"),
    ],
)
def test_errors_show_address_status_and_the_servers_reason(
    scripted: Scripted, tmp_path: Path, question: str, status: int, reason: str, hint: str
) -> None:
    server = Server(scripted.address)
    image = uploaded(server, tmp_path)
    with pytest.raises(ServerError, match=reason) as caught:
        send(server, client.ask(image, GroundingRequest(question, "axial", 3)))
    assert caught.value.status == status
    assert scripted.address in caught.value.what
    assert str(status) in caught.value.what
    assert hint in caught.value.hint


def test_a_proxys_page_is_quoted() -> None:
    call, reply = client.info(), Reply(504, "text/html", b"<html>Gateway Time-out</html>")
    with pytest.raises(ServerError, match=r"504 to /info/: <html>Gateway Time-out"):
        Server("http://x").check(call, reply)


def test_no_server_is_an_error_with_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerError, match=f"no answer from {address}") as caught:
        send_blocking(Server(address), client.info())
    assert caught.value.status == 0


def test_a_server_that_hangs_is_given_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        server = Server(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(ServerError, match="timed out"):
            send_blocking(server, replace(client.info(), seconds=0.3))


def test_the_token_is_sent_and_never_shown() -> None:
    with scripted_server(token="s3cret") as scripted:
        with pytest.raises(ServerError, match="access token") as caught:
            send(Server(scripted.address, "wrong"), client.info())
        assert "fill in the access token" in caught.value.hint
        server = Server(scripted.address, "s3cret")
        assert replies.read_json(send(server, client.info()))["name"] == "MedReasoner"
    assert "s3cret" not in repr(server)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(200, "text/html", b"<html>"), "not a form"),
        (Reply(200, "multipart/form-data; boundary=b", Form("b").body({"params": Part(b"{}")})), "instead of"),
        (
            Reply(200, "multipart/form-data; boundary=b", Form("b").body({"params": Part(b"{}"), "image": Part(b"")})),
            "without question",
        ),
    ],
)
def test_replies_of_another_server_are_refused(reply: Reply, reason: str) -> None:
    with pytest.raises(MedReasonerError, match=reason):
        replies.read_answer(reply)


def test_the_next_case_may_be_none() -> None:
    assert replies.read_case(Reply(200, "", b"{}")) is None
    assert replies.read_case(Reply(200, "", b'{"id": "ct_7"}')) == NextCase("ct_7")


@pytest.mark.parametrize(
    ("noted", "question"),
    [
        ({"question": "Where is the liver?", "scores": {"disagreement": 0.7}}, "Where is the liver?"),
        ({"scores": {}}, ""),
        ({"question": ["Where?"]}, ""),
        ("a client's own note", ""),
    ],
)
def test_the_next_case_comes_with_the_question_that_it_was_chosen_for(noted: object, question: str) -> None:
    reply = Reply(200, "", json.dumps({"id": "ct_7", "medreasoner": noted}).encode())
    assert replies.read_case(reply) == NextCase("ct_7", question)


def test_cases_are_downloaded_into_a_file(scripted: Scripted, tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    stored.write_bytes(phantom())
    scripted.images["case 1/ü"] = stored
    into = tmp_path / "case"
    reply = send(Server(scripted.address), client.get_case("case 1/ü", into))
    assert reply.body == b""
    assert into.read_bytes() == stored.read_bytes()


@pytest.mark.parametrize(
    ("head", "ending"),
    [
        (b"NRRD0004\n", ".nrrd"),
        (bytes(128) + b"DICM", ".dcm"),
        (b"\x1f\x8b\x08", ".nii.gz"),  # what else a server compresses Slicer would not read either
        (b"\x89PNG\r\n", ".png"),
        (b"\xff\xd8\xff\xe1\0", ".jpg"),
        (b"\x5c\x01\0\0", ".nii"),
    ],
)
def test_a_files_ending_follows_its_content(head: bytes, ending: str) -> None:
    assert replies.ending_of(head) == ending
