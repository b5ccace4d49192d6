"""A reasoner behind an OpenAI-compatible server such as vLLM, asked over HTTP."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from medreasoner.contract.answer import AbsentAnswer, Answer
from medreasoner.contract.errors import AnswerError, ReasonerError
from medreasoner.instruction import instruction, instruction_hash
from medreasoner.picture import Picture
from medreasoner.reasoner.card import ReasonerCard
from medreasoner.reasoner.chat import KEY, MODEL, URL, ChatServer
from medreasoner.reasoner.letterbox import Letterbox
from medreasoner.reasoner.local import in_picture
from medreasoner.reasoner.protocol import Reply
from medreasoner.reasoner.published import read_answer

CARD = "MEDREASONER_SERVER_CARD"  # a folder whose medreasoner.json describes the served model
_ANSWER_TOKENS = 128  # the longest answer block, number by number and digit by digit, takes about 90
_PAIR = r"\[\d{1,4}, \d{1,4}\]"
_GROUNDING = rf'\{{"bbox": \[\d{{1,4}}(, \d{{1,4}}){{3}}\], "points_1": {_PAIR}, "points_2": {_PAIR}\}}'


class ServerReasoner:
    """Answers with greedy decoding, or draws answers, on a server; knows the name of its weights, not their hash."""

    sha256 = ""

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        card: ReasonerCard | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        """Remember where the server is; nothing is sent yet.

        Args:
            url: the server's address, with or without ``/v1`` at its end.
            model: name under which the server offers the model.
            key: sent as a bearer token; never shown.
            card: how to talk to the model; None assumes a published checkpoint. A card of the "strict" dialect also
                holds the answer to its form by vLLM's structured outputs (``structured_outputs``, vLLM 0.12 and
                later: https://docs.vllm.ai/en/latest/features/structured_outputs/).
            timeout_s: seconds without a word from the server after which a request is given up.
            retries: how often a request is sent again after a failure that may pass.

        Raises:
            ReasonerError: the address or the key cannot be used.
        """
        self.card = card or ReasonerCard(name=model)
        self.name = self.card.name
        self._server, self._model = ChatServer(url, key or "", timeout_s, retries), model

    @classmethod
    def from_environment(cls) -> ServerReasoner:
        """Open the server named in the environment; raises `ReasonerError` when its address or model is not set."""
        url, model = os.environ.get(URL, "").strip(), os.environ.get(MODEL, "").strip()
        for variable, value, example in ((URL, url, "http://localhost:8000/v1"), (MODEL, model, "MedReasoner")):
            if not value:
                raise ReasonerError(f"{variable} is not set", f"set it, such as {variable}={example}")
        folder = os.environ.get(CARD, "").strip()
        card = ReasonerCard.of(Path(folder).expanduser()) if folder else None
        return cls(url, model, os.environ.get(KEY, "").strip() or None, card)

    def __repr__(self) -> str:
        return f"ServerReasoner({self._server.address!r}, {self._model!r})"

    @property
    def instruction_sha256(self) -> str:
        """Hash of the instruction that every question is put into."""
        return instruction_hash(self.card.instruction)

    def answer(self, question: str, picture: Picture) -> Reply:
        """Answer a checked question about a picture; a text that cannot be used is asked for once more.

        The confidence is that of `LocalReasoner` without its tolerance of a few pixels, so it runs lower.

        Raises:
            AnswerError: the second text cannot be used either.
            ReasonerError: the server cannot be reached, refuses, or does not speak the protocol.
        """
        return self._answer(question, picture, {"temperature": 0})

    def samples(
        self, question: str, picture: Picture, count: int, seed: int = 0, temperature: float = 1.0
    ) -> Iterator[Reply]:
        """Draw answers as `SamplingReasoner` says, one request each: the server itself keeps what it has read.

        Raises:
            AnswerError, ReasonerError: as `answer`.
        """
        for number in range(count):
            chance = {"temperature": temperature, "seed": seed * 1000 + number}
            yield self._answer(question, picture, chance)

    def _answer(self, question: str, picture: Picture, chance: dict[str, Any]) -> Reply:
        start = perf_counter()
        fit = Letterbox.of(picture.width, picture.height, self.card.canvas)
        turns: list[dict[str, Any]] = [self._first_turn(question, fit.picture(picture.pixels))]
        attempts = 1
        while True:
            text, tokens = _content(self._ask(turns, chance))
            try:
                answer = read_answer(text, self.card)
                placed = in_picture(answer, fit, picture)
            except AnswerError as error:
                if attempts == 2:
                    raise
                turns += [{"role": "assistant", "content": text}, {"role": "user", "content": _repair(error)}]
                attempts = 2
                continue
            return Reply(placed, text, _confidence(answer, tokens), attempts, {"reason": perf_counter() - start})

    def _first_turn(self, question: str, pixels: Any) -> dict[str, Any]:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        data = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        image = {"type": "image_url", "image_url": {"url": data}}
        text = {"type": "text", "text": instruction(question, self.card.instruction)}
        return {"role": "user", "content": [text, image] if self.card.question_first else [image, text]}

    def _ask(self, turns: list[dict[str, Any]], chance: dict[str, Any]) -> Any:
        """Send the turns so far, and return the decoded JSON."""
        body = {
            "model": self._model,
            "messages": turns,
            "max_tokens": self.card.max_reasoning + _ANSWER_TOKENS,
            "logprobs": True,
            **chance,
        }
        if self.card.dialect == "strict":
            body["structured_outputs"] = {"regex": answer_pattern(self.card.may_abstain)}
        return self._server.complete(body)


def answer_pattern(may_abstain: bool) -> str:
    """Return a regular expression for answers in canonical form; a box without area fits it too."""
    answer = rf'({_GROUNDING}|\{{"absent": true\}})' if may_abstain else _GROUNDING
    return rf"<think>[^<]+</think><answer>{answer}</answer>"


def _content(found: Any) -> tuple[str, list[Any]]:
    """Take the text and, where the server gives them, its tokens with their log-likelihoods."""
    try:
        choice = found["choices"][0]
        text = choice["message"]["content"]
        tokens = (choice.get("logprobs") or {}).get("content") or []
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ReasonerError(
            "the server's JSON is not a chat completion", f"check that {URL} is an OpenAI-compatible server"
        ) from error
    if text is not None and not isinstance(text, str):
        raise ReasonerError("the server's message is not text", "use a model that answers with text")
    return text or "", tokens if isinstance(tokens, list) else []


def _confidence(answer: Answer, tokens: list[Any]) -> float | None:
    """Geometric mean over the choices in the answer block: eight numbers, and whether the target is there."""
    try:
        pieces = [(str(t["token"]), float(t["logprob"])) for t in tokens]
    except (KeyError, TypeError, ValueError):
        return None
    text = "".join(piece for piece, _ in pieces)
    first, last = text.rfind("<answer>") + len("<answer>"), text.rfind("</answer>")
    if not len("<answer>") <= first < last:
        return None
    total, at = 0.0, 0
    for piece, likelihood in pieces:
        if at < last and at + len(piece) > first:
            total += likelihood
        at += len(piece)
    if math.isnan(total):
        return None
    return math.exp(min(0.0, total / (1 if isinstance(answer, AbsentAnswer) else 9)))


def _repair(error: AnswerError) -> str:
    return f"Your last answer could not be used: {error.what}. Look again and answer in the form asked for."
