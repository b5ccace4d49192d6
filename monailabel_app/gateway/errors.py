"""Refusals and failures as HTTP: a status, one sentence of what went wrong, one of what to do."""

from __future__ import annotations

import errno
import logging
import re
import uuid
from functools import lru_cache
from pathlib import Path

from monailabel.interfaces.exception import MONAILabelException
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medreasoner.contract.errors import (
    AnswerError,
    CheckpointError,
    ImageError,
    MedReasonerError,
    QuestionError,
    ReasonerError,
)
from monailabel_app.gateway.tokens import Role

log = logging.getLogger(__name__)


class Refusal(MedReasonerError):
    """The request is not one that this server carries out. Children set the HTTP status."""

    status = 400

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that go with the status."""
        return {}


class NotSignedIn(Refusal):
    """No token, or one that does not hold."""

    status = 401

    def __init__(self, what: str, hint: str, scheme: str = "Bearer") -> None:
        super().__init__(what, hint)
        self.scheme = scheme

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": self.scheme}


class NotAllowed(Refusal):
    """The user's role, or where the request comes from, does not allow it."""

    status = 403


class NotFound(Refusal):
    """No such model, image, session, label or question."""

    status = 404


class Conflict(Refusal):
    """It contradicts what is there already."""

    status = 409


class TooLarge(Refusal):
    """More bytes than the server takes."""

    status = 413


class NoRoom(Refusal):
    """The server's disk is full."""

    status = 507


class Unavailable(Refusal):
    """The server cannot do it now; the same request may succeed later."""

    status = 503

    def __init__(self, what: str, hint: str, retry_after: int = 5) -> None:
        super().__init__(what, hint)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after)}


_STATUS: dict[type[MedReasonerError], int] = {
    QuestionError: 422,
    ImageError: 422,
    AnswerError: 422,
    ReasonerError: 502,
    CheckpointError: 503,
    MedReasonerError: 400,
}
_HINTS = {404: "see docs/http.md for what is served", 405: "see docs/http.md for the methods of this address"}


def kind_and_status(error: Exception) -> tuple[str, int]:
    """Name an error as the reply and the metrics do; a `MedReasonerError` may bring its own ``status``."""
    kind = type(error).__name__
    if isinstance(error, HTTPException):
        return "HTTPException", error.status_code
    if isinstance(error, MedReasonerError):
        known = next(_STATUS[c] for c in type(error).__mro__ if c in _STATUS)
        return kind, getattr(error, "status", known)
    return (kind, 400) if isinstance(error, MONAILabelException) else ("InternalError", 500)


def without_folders(text: str) -> str:
    """Leave of every path on this machine its last name only: where things lie is an administrator's to know.

    A folder's name may hold spaces, so a path reaches to its last slash before a mark such as a colon or a quote.
    """
    return _paths().sub(lambda found: found["name"] or found["root"], text)


@lru_cache(maxsize=1)
def _paths() -> re.Pattern[str]:
    """What begins with one of the file system's own folders; addresses such as /train/ do not."""
    roots = "|".join(re.escape(folder.name) for folder in Path("/").iterdir() if folder.is_dir())
    end, name = r"""[\s:'",;)]""", r"""[^\s:'",;)]*"""
    return re.compile(rf"""(?<![\w/.:-])/(?P<root>{roots})(?={end}|/|$)(?:/(?:[^:'",;(\n]*/)?(?P<name>{name}))?""")


async def reply(request: Request, error: Exception) -> JSONResponse:
    """Count an expected error and turn it into JSON ``{"detail", "hint", "kind"}`` with its status.

    This machine's folders are named to administrators only; for others they stand in the log.
    """
    kind, status = kind_and_status(error)
    request.app.state.gateway.metrics.failed(kind)
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, MedReasonerError):
        what, hint = error.what, error.hint
    elif isinstance(error, HTTPException):
        what, hint = str(error.detail), _HINTS.get(status, "correct the request and send it again")
    else:
        what, hint = str(getattr(error, "msg", error)), "correct the request and send it again"
    user = getattr(request.state, "user", None)
    if user is None or user.role < Role.ADMIN:
        full, (what, hint) = (what, hint), (without_folders(what), without_folders(hint))
        if full != (what, hint):
            log.warning("%s: %s (%s)", kind, *full)
    return JSONResponse({"detail": what, "hint": hint, "kind": kind}, status, headers)


async def full_disk(request: Request, error: OSError) -> JSONResponse:
    """Say that there is no room; any other error of the operating system is a bug, as it was."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error
    log.error("no room for %s %s: %s", request.method, request.url.path, error)
    hint = "tell the server's administrator to make room, then send it again"
    return await reply(request, NoRoom("the server's disk is full, and nothing was kept", hint))


EXPECTED = {HTTPException: reply, MedReasonerError: reply, MONAILabelException: reply, OSError: full_disk}


class UnexpectedErrors:
    """Outermost: a bug becomes a 500 with an id; what happened stands beside that id in the log only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:  # in the middle of its upload: no bug, and nobody is left to be told
            return
        except Exception:
            if scope["type"] != "http":
                raise
            number = uuid.uuid4().hex[:12]
            log.exception("unexpected error %s", number)
            scope["app"].state.gateway.metrics.failed("InternalError")
            if started:  # half an answer is out: end the connection rather than pretend
                raise
            what, hint = "the server failed", f"tell its administrator this number: {number}"
            body = {"detail": what, "hint": hint, "kind": "InternalError"}
            await JSONResponse(body, 500)(scope, receive, send)
