"""How much a request may send, and how long it may fall silent: refused while it streams, not afterwards."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monailabel_app.gateway.errors import Refusal, TooLarge

MB = 10**6


class TooSlow(Refusal):
    """The sender fell silent in the middle of a body."""

    status = 408


class BodyLimit:
    """In front of one route: at most `size` bytes, at most `silence` seconds between two pieces."""

    def __init__(self, app: ASGIApp, size: int, silence: float) -> None:
        self._app, self._size, self._silence = app, size, silence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = Request(scope).headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._size:
            raise self._too_large()
        came, complete = 0, False

        async def limited() -> Message:
            nonlocal came, complete
            if complete:  # what follows is the wait for the client's farewell, which may be long
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._silence)
            except asyncio.TimeoutError as error:
                raise TooSlow(
                    f"nothing came for {self._silence:g} s", "send again over a faster or steadier line"
                ) from error
            came += len(message.get("body", b""))
            if came > self._size:
                raise self._too_large()
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, limited, send)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the request is larger than {self._size / MB:g} MB",
            "send a smaller file, or ask for a larger upload_limit",
        )
