"""Chat completions of an OpenAI-compatible server: asked with patience, failing with what to check."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from time import sleep
from typing import Any

import httpx

from medreasoner.contract.errors import ReasonerError

URL, MODEL, KEY = "MEDREASONER_SERVER_URL", "MEDREASONER_SERVER_MODEL", "MEDREASONER_SERVER_KEY"
_PASSING = {429, 500, 502, 503, 504}
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


class ChatServer:
    """Where the server is, and how long to wait for it. Nothing is sent before `complete`."""

    def __init__(self, url: str, key: str, timeout_s: float, retries: int) -> None:
        """Arguments and errors as for `ServerReasoner`; an empty key sends none."""
        self.address, self._key = _checked_address(url), key
        if not (self._key.isascii() and self._key.isprintable()):  # else its text would stand in httpx's error
            raise ReasonerError(
                "the server's key holds characters that no key has", f"copy the key into {KEY} once more"
            )
        self._timeout_s, self._retries = timeout_s, retries

    def complete(self, body: dict[str, Any]) -> Any:
        """Send one request, again after failures that may pass, and return the decoded JSON.

        Raises:
            ReasonerError: the server cannot be reached, refuses, or does not answer with JSON.
        """
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with httpx.Client(headers=headers, timeout=self._timeout_s) as client:
            for sent in range(1, self._retries + 2):
                asked_wait = 0.0
                try:
                    response = client.post(f"{self.address}/chat/completions", json=body)
                except httpx.TimeoutException:
                    failure = f"{self.address} did not answer within {self._timeout_s:g} s"
                except httpx.HTTPError as error:
                    failure = f"{self.address} cannot be reached: {error}"
                else:
                    if response.is_success:
                        return self._json(response)
                    failure = f"{self.address} answered {response.status_code}: {self._reason(response)}"
                    if response.status_code not in _PASSING:
                        raise ReasonerError(failure, f"check {URL}, {MODEL} and {KEY}, and the server's log")
                    asked_wait = _retry_after(response)
                if asked_wait > _LONGEST_WAIT_S:
                    failure += f"; it wants to be left alone for {asked_wait:.0f} s"
                    break
                if sent <= self._retries:
                    backoff = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (sent - 1))
                    sleep(max(asked_wait, backoff * random.uniform(0.5, 1)))  # clients must not come back together
        raise ReasonerError(f"{failure} (asked {sent} times)", "see whether the server runs, then ask again")

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise ReasonerError(
                f"{self.address} answered with something else than JSON: {self._shown(response.text)[:80]!r}",
                f"check that {URL} is the address of an OpenAI-compatible server",
            ) from error

    def _reason(self, response: httpx.Response) -> str:
        """Find the server's own words in an error."""
        try:
            found = response.json()
        except (ValueError, RecursionError):
            found = response.text
        if isinstance(found, dict):
            found = found.get("error") or found.get("message") or found.get("detail") or found
        if isinstance(found, dict):
            found = found.get("message") or found
        return self._shown(str(found))[:300] or response.reason_phrase

    def _shown(self, text: str) -> str:
        """Tidy a text of the server's, without our key should it repeat it."""
        words = " ".join(text.split())
        return words.replace(self._key, "***") if self._key else words


def _checked_address(url: str) -> str:
    hint = "give an address such as http://localhost:8000/v1"
    try:
        parts = httpx.URL(url.strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise ReasonerError("the server's address is not a URL", hint) from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ReasonerError("the server's address does not start with http:// or https://", hint)
    if parts.userinfo or parts.query:  # the address stands in errors and logs
        raise ReasonerError("the server's address holds a password or a query", f"{hint}, and put the key into {KEY}")
    plain = str(parts).rstrip("/").removesuffix("/chat/completions")
    return plain if plain.endswith("/v1") else f"{plain}/v1"


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3: a number of seconds or a date); 0 if it does not."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isdecimal():
        return float(asked[:9])
    try:
        date = parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
