"""The server reasoner against a real HTTP server on this machine that answers as scripted."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medreasoner.contract.answer import AbsentAnswer, Box, GroundingAnswer, Point, parse_answer
from medreasoner.contract.errors import AnswerError, ReasonerError
from medreasoner.instruction import instruction, instruction_hash
from medreasoner.picture import Picture
from medreasoner.reasoner import chat
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.chat import KEY, MODEL, URL
from medreasoner.reasoner.server import ServerReasoner, answer_pattern

QUESTION = "Which organ makes bile?"
SECRET = "sk-not-for-show-314159"
STRICT = ReasonerCard(
    name="strict", canvas=84, instruction="direct", question_first=True, may_abstain=True, dialect="strict"
)
GOOD = '<think>A CT.</think><answer>{"bbox": [0, 21, 42, 63], "points_1": [10, 30], "points_2": [20, 40]}</answer>'
QUOTED = GOOD.replace('"', "'")
ABSENT = '<think>No bowel here.</think><answer>{"absent": true}</answer>'
FLAT = GOOD.replace("42, 63", "0, 63")


@dataclass
class Scripted:
    """One answer of the server: a body, or seconds of silence."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang_s: float = 0.0


def says(text: str | None, logprobs: Any = None) -> Scripted:
    choice = {"message": {"role": "assistant", "content": text}, "logprobs": logprobs, "finish_reason": "stop"}
    return Scripted(json.dumps({"choices": [choice]}))


class Script:
    """The answers still to be given, and what was asked."""

    def __init__(self) -> None:
        self.answers: list[Scripted] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.over = threading.Event()
        self.url = ""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.paths.append(self.path)
            script.headers.append(dict(self.headers))
            script.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = script.answers.pop(0)
            script.over.wait(answer.hang_s)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.text.encode())

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    script.url = f"http://127.0.0.1:{httpd.server_port}"
    yield script
    script.over.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, written down instead of slept."""
    found: list[float] = []
    monkeypatch.setattr(chat, "sleep", found.append)
    return found


@pytest.fixture
def ask(script: Script) -> Callable[..., Any]:
    def asked(*answers: Scripted, card: ReasonerCard | None = STRICT, **options: Any) -> Any:
        script.answers = list(answers)
        return ServerReasoner(script.url, "model-7b", SECRET, card, **options).answer(QUESTION, wide_picture())

    return asked


def wide_picture() -> Picture:
    """84 x 42, white on the left and blue on the right, so that it fills the middle band of an 84 x 84 canvas."""
    pixels = np.full((42, 84, 3), 255, np.uint8)
    pixels[:, 42:] = 0, 0, 255
    return Picture(pixels)


# What comes back


def test_a_good_answer_is_brought_from_the_canvas_into_the_picture(ask: Callable[..., Any]) -> None:
    reply = ask(says(GOOD))
    assert reply.answer == GroundingAnswer(Box(0, 0, 42, 42), (Point(10.5, 9.5), Point(20.5, 19.5)), "A CT.")
    assert reply.text == GOOD
    assert (reply.attempts, reply.confidence) == (1, None)
    assert reply.timings["reason"] > 0


def test_a_published_checkpoint_may_write_single_quotes(ask: Callable[..., Any]) -> None:
    card = ReasonerCard(name="published", canvas=84)
    assert ask(says(QUOTED), card=card).answer.box == Box(0, 0, 42, 42)


def test_without_a_card_the_model_is_taken_for_a_published_one_on_840_pixels(ask: Callable[..., Any]) -> None:
    reply = ask(says(QUOTED.replace("[0, 21, 42, 63]", "[0, 210, 420, 630]")), card=None)
    assert reply.answer.box == Box(0, 0, 42, 42)


def test_absent_is_an_answer_where_the_card_says_so(ask: Callable[..., Any]) -> None:
    assert ask(says(ABSENT)).answer == AbsentAnswer("No bowel here.")


def test_absent_is_a_mistake_where_the_card_does_not_allow_it(ask: Callable[..., Any], script: Script) -> None:
    reply = ask(says(ABSENT), says(QUOTED), card=ReasonerCard(name="published", canvas=84))
    assert reply.attempts == 2
    assert "may not answer 'absent'" in script.bodies[1]["messages"][2]["content"]


# What is sent


def test_the_request_holds_the_letterboxed_picture_and_the_instruction(ask: Callable[..., Any], script: Script) -> None:
    ask(says(GOOD))
    (body,) = script.bodies
    text, image = body["messages"][0]["content"]
    assert text == {"type": "text", "text": instruction(QUESTION, "direct")}
    prefix, data = image["image_url"]["url"].split(",", 1)
    assert prefix == "data:image/png;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
    expected = np.zeros((84, 84, 3), np.uint8)
    expected[21:63] = wide_picture().pixels
    np.testing.assert_array_equal(sent, expected)
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("model-7b", 0, STRICT.max_reasoning + 128)
    assert script.paths == ["/v1/chat/completions"]
    assert script.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_the_image_comes_first_where_the_card_says_so(ask: Callable[..., Any], script: Script) -> None:
    ask(says(QUOTED), card=ReasonerCard(name="published", canvas=84))
    kinds = [part["type"] for part in script.bodies[0]["messages"][0]["content"]]
    assert kinds == ["image_url", "text"]


def test_without_a_key_no_authorization_is_sent(script: Script) -> None:
    script.answers = [says(GOOD)]
    ServerReasoner(script.url, "model-7b", card=STRICT).answer(QUESTION, wide_picture())
    assert "Authorization" not in script.headers[0]


def test_structured_outputs_are_asked_of_strict_checkpoints_only(ask: Callable[..., Any], script: Script) -> None:
    ask(says(GOOD))
    ask(says(QUOTED), card=ReasonerCard(name="published", canvas=84))
    strict, published = script.bodies
    assert strict["structured_outputs"] == {"regex": answer_pattern(may_abstain=True)}
    assert "structured_outputs" not in published


@pytest.mark.parametrize(
    ("text", "may_abstain", "fits"),
    [
        (GOOD, False, True),
        (GOOD, True, True),
        (ABSENT, True, True),
        (ABSENT, False, False),
        (QUOTED, True, False),
        (GOOD + GOOD, True, False),
        (GOOD.replace("21", "-21"), True, False),
        (GOOD.replace("<think>A CT.</think>", ""), True, False),
    ],
)
def test_the_pattern_lets_through_what_the_parser_reads(text: str, may_abstain: bool, fits: bool) -> None:
    assert bool(re.fullmatch(answer_pattern(may_abstain), text)) is fits
    if fits:
        parse_answer(text)


# Malformed answers


@pytest.mark.parametrize(
    ("bad", "mistake"),
    [
        ("I see a liver.", "expected exactly one <think> block"),
        ("", "expected exactly one <think> block"),
        (None, "expected exactly one <think> block"),
        (GOOD.replace("42", "nan"), "not JSON"),
        (FLAT, "has no area"),
        (GOOD.replace("[0, 21, 42, 63]", "[0, 0, 84, 20]"), "has no area"),
    ],
    ids=["prose", "empty", "null", "not JSON", "flat", "on the black border"],
)
def test_a_malformed_answer_is_repaired_once(
    bad: str | None, mistake: str, ask: Callable[..., Any], script: Script, waits: list[float]
) -> None:
    reply = ask(says(bad), says(GOOD))
    assert (reply.attempts, reply.text) == (2, GOOD)
    first, second = script.bodies
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][1] == {"role": "assistant", "content": bad or ""}
    assert mistake in second["messages"][2]["content"]
    assert len(second["messages"]) == 3
    assert waits == []


def test_the_second_malformed_answer_is_an_error(ask: Callable[..., Any], script: Script) -> None:
    with pytest.raises(AnswerError, match="no area"):
        ask(says("nothing"), says(FLAT), says(GOOD))
    assert len(script.bodies) == 2


# Failures that may pass


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_asked_again(
    status: int, ask: Callable[..., Any], script: Script, waits: list[float]
) -> None:
    reply = ask(Scripted("loading", status), says(GOOD))
    assert reply.attempts == 1, "attempts counts texts, not requests"
    assert len(script.bodies) == 2
    assert 0.25 <= waits[0] <= 0.5


def test_waits_double_and_the_last_failure_is_told(ask: Callable[..., Any], script: Script, waits: list[float]) -> None:
    with pytest.raises(ReasonerError, match=r"503: still loading \(asked 4 times\)"):
        ask(*[Scripted("still loading", 503)] * 4)
    assert len(script.bodies) == 4
    assert all(2**n / 4 <= wait <= 2**n / 2 for n, wait in enumerate(waits))
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("3", 3, 3),
        (lambda: formatdate(time() + 20, usegmt=True), 15, 20),
        (lambda: formatdate(time() - 20, usegmt=True), 0, 0.5),
        ("soon", 0, 0.5),
        ("", 0, 0.5),
        ("-4", 0, 0.5),
    ],
    ids=["seconds", "date", "past date", "words", "empty", "negative"],
)
def test_retry_after_is_honoured(
    header: str | Callable[[], str], least: float, most: float, ask: Callable[..., Any], waits: list[float]
) -> None:
    value = header if isinstance(header, str) else header()
    ask(Scripted("busy", 429, {"Retry-After": value}), says(GOOD))
    assert least <= waits[0] <= most


def test_a_server_that_wants_minutes_is_not_waited_for(
    ask: Callable[..., Any], script: Script, waits: list[float]
) -> None:
    with pytest.raises(ReasonerError, match="left alone for 600 s"):
        ask(Scripted("busy", 503, {"Retry-After": "600"}), says(GOOD))
    assert (len(script.bodies), waits) == (1, [])


def test_silence_is_given_up_and_asked_again(ask: Callable[..., Any], script: Script) -> None:
    assert ask(Scripted(hang_s=5), says(GOOD), timeout_s=0.3).text == GOOD
    assert len(script.bodies) == 2


def test_silence_until_the_end_names_the_time(ask: Callable[..., Any]) -> None:
    with pytest.raises(ReasonerError, match=r"did not answer within 0\.2 s \(asked 2 times\)"):
        ask(Scripted(hang_s=5), Scripted(hang_s=5), timeout_s=0.2, retries=1)


@pytest.mark.usefixtures("script")
def test_a_refused_connection_says_where(waits: list[float]) -> None:
    with pytest.raises(ReasonerError, match=r"127\.0\.0\.1:1/v1 cannot be reached.*asked 3 times"):
        ServerReasoner("http://127.0.0.1:1", "m", SECRET, retries=2).answer(QUESTION, wide_picture())
    assert len(waits) == 2


# Failures that stay


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Scripted(json.dumps({"error": {"message": "invalid key"}}), 401), "401: invalid key"),
        (Scripted(json.dumps({"object": "error", "message": "no such model"}), 404), "404: no such model"),
        (Scripted(json.dumps({"detail": "too many pixels"}), 400), "400: too many pixels"),
        (Scripted("<h1>gone</h1>", 410), "410: <h1>gone</h1>"),
        (Scripted("", 403), "403: Forbidden"),
        (Scripted("", 307, {"Location": "http://elsewhere"}), "307: Temporary Redirect"),
    ],
)
def test_a_refusal_is_final_and_gives_the_servers_reason(
    answer: Scripted, reason: str, ask: Callable[..., Any], script: Script, waits: list[float]
) -> None:
    with pytest.raises(ReasonerError, match=reason):
        ask(answer, says(GOOD))
    assert (len(script.bodies), waits) == (1, [])


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("<html>Login</html>", "something else than JSON: '<html>Login"),
        ("[" * 100_000, "something else than JSON"),
        ("[]", "not a chat completion"),
        ("{}", "not a chat completion"),
        ('{"choices": []}', "not a chat completion"),
        ('{"choices": [{"message": {}}]}', "not a chat completion"),
        ('{"choices": [{"message": {"content": [1]}}]}', "not text"),
    ],
    ids=["html", "nested", "list", "no choices", "no choice", "no content", "parts"],
)
def test_what_is_no_chat_completion_is_named(body: str, what: str, ask: Callable[..., Any]) -> None:
    with pytest.raises(ReasonerError, match=what):
        ask(Scripted(body))


# The key


@pytest.mark.parametrize(
    "answer",
    [
        Scripted(json.dumps({"error": {"message": f"Incorrect key {SECRET} given"}}), 401),
        Scripted(f"<html>{SECRET}</html>"),
        Scripted(f"overloaded by {SECRET}", 503),
    ],
    ids=["refusal", "no JSON", "busy"],
)
def test_the_key_never_shows_even_when_the_server_repeats_it(answer: Scripted, ask: Callable[..., Any]) -> None:
    with pytest.raises(ReasonerError) as caught:
        ask(answer, retries=0)
    assert SECRET not in str(caught.value)
    assert "***" in str(caught.value)


def test_the_key_never_shows_in_repr() -> None:
    assert repr(ServerReasoner("http://h", "m", SECRET)) == "ServerReasoner('http://h/v1', 'm')"


@pytest.mark.parametrize("key", [SECRET + "\n", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ReasonerError, match="characters that no key has") as caught:
        ServerReasoner("http://h", "m", key)
    assert key.strip() not in str(caught.value)


# The address


@pytest.mark.parametrize(
    "given", ["http://h:8000", "http://h:8000/", "http://h:8000/v1/", " http://h:8000/v1/chat/completions "]
)
def test_the_address_may_come_with_or_without_its_path(given: str) -> None:
    assert "'http://h:8000/v1'" in repr(ServerReasoner(given, "m"))


@pytest.mark.parametrize("given", ["", "localhost:8000", "ftp://h", "http://", "http://h:port", "http://\x00"])
def test_a_wrong_address_is_refused(given: str) -> None:
    with pytest.raises(ReasonerError, match="address"):
        ServerReasoner(given, "m")


@pytest.mark.parametrize("given", [f"http://user:{SECRET}@h", f"http://h/v1?key={SECRET}"])
def test_an_address_that_holds_a_secret_is_refused_without_showing_it(given: str) -> None:
    with pytest.raises(ReasonerError, match=KEY) as caught:
        ServerReasoner(given, "m")
    assert SECRET not in str(caught.value)


# The environment


def test_the_environment_names_server_model_and_key(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ((URL, script.url), (MODEL, "from-env"), (KEY, SECRET)):
        monkeypatch.setenv(variable, value)
    script.answers = [says(QUOTED.replace("[0, 21, 42, 63]", "[0, 210, 420, 630]"))]
    reasoner = ServerReasoner.from_environment()
    reasoner.answer(QUESTION, wide_picture())
    assert (reasoner.name, reasoner.sha256) == ("from-env", "")
    assert reasoner.instruction_sha256 == instruction_hash("full")
    assert script.bodies[0]["model"] == "from-env"
    assert script.headers[0]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(("missing", "value"), [(URL, None), (MODEL, None), (URL, " "), (MODEL, "")])
def test_an_unset_variable_is_named(missing: str, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "http://h")
    monkeypatch.setenv(MODEL, "m")
    monkeypatch.delenv(missing) if value is None else monkeypatch.setenv(missing, value)
    with pytest.raises(ReasonerError, match=f"{missing} is not set"):
        ServerReasoner.from_environment()


# Confidence


def spread(text: str, each: float) -> dict[str, Any]:
    """Log-likelihoods as vLLM gives them: -0.5 a token of reasoning, `each` a digit run or word of the answer."""
    tokens, inside = [], False
    for piece in re.findall(r"<answer>|</answer>|\d+|true|.", text):
        inside = (inside or piece == "<answer>") and piece != "</answer>"
        choice = inside and (piece.isdigit() or piece == "true")
        tokens.append({"token": piece, "logprob": each if choice else 0.0 if inside else -0.5})
    return {"content": tokens}


@pytest.mark.parametrize(
    ("text", "choices", "divisor"),
    [(GOOD, 8 + 2, 9), (ABSENT, 1, 1)],  # "points_1" and "points_2" hold a digit each
    ids=["grounding", "absent"],
)
def test_confidence_is_that_of_the_choices_after_the_reasoning(
    text: str, choices: int, divisor: int, ask: Callable[..., Any]
) -> None:
    reply = ask(says(text, spread(text, -0.3)))
    assert reply.confidence == pytest.approx(math.exp(-0.3 * choices / divisor))


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": None},
        {"content": []},
        {"content": "x"},
        {"content": [{"token": "a"}]},
        {"content": [{"token": "a", "logprob": "b"}]},
        {"content": [1]},
        {"content": [{"token": "liver", "logprob": -1}]},
        {"content": [{"token": GOOD, "logprob": float("nan")}]},
    ],
)
def test_confidence_is_none_where_the_server_does_not_say(logprobs: Any, ask: Callable[..., Any]) -> None:
    assert ask(says(GOOD, logprobs)).confidence is None


def test_confidence_is_zero_where_the_server_calls_its_own_token_impossible(ask: Callable[..., Any]) -> None:
    assert ask(says(GOOD, spread(GOOD, -9999.0))).confidence == 0.0


def test_draws_are_asked_for_one_by_one_with_temperature_and_seed(script: Script) -> None:
    script.answers = [says(GOOD), says("no answer"), says(ABSENT), says(GOOD)]
    reasoner = ServerReasoner(script.url, "model-7b", SECRET, STRICT)
    drawing = reasoner.samples(QUESTION, wide_picture(), 2, seed=2, temperature=0.8)
    assert not script.bodies, "nothing is sent before a draw is wanted"
    assert isinstance(next(drawing).answer, GroundingAnswer)
    assert next(drawing).attempts == 2
    assert reasoner.answer(QUESTION, wide_picture()).attempts == 1
    chances = [(body["temperature"], body.get("seed")) for body in script.bodies]
    assert chances == [(0.8, 2000), (0.8, 2001), (0.8, 2001), (0, None)]
