"""JSON web tokens of an OpenID Connect issuer such as Keycloak: signature, issuer, audience and expiry are checked."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import httpx
import jwt

from monailabel_app.gateway.errors import NotSignedIn, Unavailable
from monailabel_app.gateway.tokens import Role, User
from monailabel_app.lib.settings import Settings

log = logging.getLogger(__name__)

_KEYS_LAST_S = 3600.0  # afterwards the keys are fetched again, so that a withdrawn key stops working
_PAUSE_S = 30.0  # between fetches, however many unknown key ids are sent
_LEEWAY_S = 10.0  # clocks that differ
_TIMEOUT_S = 5.0


class Issuer:
    """One issuer's public keys, and the users whom its tokens name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._keys: dict[str | None, Any] = {}
        self._fetched = self._tried = -float("inf")

    def user_of(self, token: str) -> User:
        """Return the user a token names; may fetch keys, so call it off the event loop.

        Raises:
            NotSignedIn: the token is damaged, expired, for another audience or issuer, unsigned, signed with a shared
                secret, or names no role of this server.
            Unavailable: the issuer's keys cannot be fetched.
        """
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in settings.oidc_algorithms:  # before any key is looked for
                raise jwt.InvalidAlgorithmError("The specified alg value is not allowed")
            claims = jwt.decode(
                token,
                self._key(header.get("kid")),
                algorithms=list(settings.oidc_algorithms),
                audience=settings.oidc_audience,
                issuer=settings.oidc_issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise NotSignedIn(f"the token does not hold: {_said(error)}", "sign in again") from error
        name = claims.get("preferred_username") or claims["sub"]
        role = max((r for r in map(self._role, self._listed(claims)) if r), default=None)
        if role is None:
            raise NotSignedIn(
                "the token names no role of this server",
                f"ask for one of {', '.join(settings.oidc_role_prefix + r.name.lower() for r in Role)}",
            )
        return User(str(name)[:64], role)

    def _listed(self, claims: dict[str, Any]) -> list[str]:
        value: Any = claims
        for part in self._settings.oidc_roles.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return [str(v) for v in value] if isinstance(value, list) else []

    def _role(self, name: str) -> Role | None:
        prefix = self._settings.oidc_role_prefix
        return Role.named(name[len(prefix) :]) if name.startswith(prefix) else None

    def _key(self, kid: str | None) -> Any:
        """The key with this id, fetched again when it is unknown or old."""
        with self._lock:
            now = time.monotonic()
            stale = kid not in self._keys or now - self._fetched > _KEYS_LAST_S
            if stale and now - self._tried > _PAUSE_S:
                self._tried = now
                self._keys, self._fetched = self._fetch(), now
            if not self._keys or now - self._fetched > _KEYS_LAST_S:
                raise Unavailable("the issuer's keys could not be fetched", "try again in a minute", 60)
            if kid not in self._keys:
                raise jwt.InvalidKeyError("no key of the issuer has the token's key id")
            return self._keys[kid]

    def _fetch(self) -> dict[str | None, Any]:
        settings = self._settings
        try:
            with httpx.Client(timeout=_TIMEOUT_S) as client:
                address = settings.oidc_jwks
                if not address:
                    discovery = settings.oidc_issuer.rstrip("/") + "/.well-known/openid-configuration"
                    address = client.get(discovery).raise_for_status().json()["jwks_uri"]
                found = jwt.PyJWKSet.from_dict(client.get(address).raise_for_status().json())
        except (httpx.HTTPError, httpx.InvalidURL, jwt.PyJWTError, KeyError, ValueError, AttributeError) as error:
            log.warning("the keys of the token issuer cannot be fetched: %s", error)
            raise Unavailable("the issuer's keys cannot be fetched", "try again in a minute", 60) from error
        return {key.key_id: key.key for key in found.keys if key.public_key_use in (None, "sig")}


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:120].rstrip(".").lower()
