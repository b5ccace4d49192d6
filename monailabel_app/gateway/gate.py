"""Who may come in: checked for each route before a byte of the request's body is read."""

from __future__ import annotations

import logging
from base64 import b64decode
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from monailabel_app.gateway.errors import NotAllowed, NotSignedIn, Unavailable
from monailabel_app.gateway.oidc import Issuer
from monailabel_app.gateway.tokens import Role, TokenFile, User
from monailabel_app.lib.settings import Settings, SettingsError

log = logging.getLogger(__name__)

_PROMPT = 'Basic realm="MedReasoner: any name, your token as password", charset="UTF-8"'
NOBODY = User("", Role.ADMIN)  # without tokens there are no users, and this machine's programs may do everything


class Doorkeeper:
    """Knows the users: by static token, by an issuer's JSON web token, or, without either, this machine only."""

    def __init__(self, settings: Settings) -> None:
        """Read the token file, if there is one; raises `SettingsError` where it is wrong."""
        self._tokens = TokenFile(Path(settings.tokens).expanduser()) if settings.tokens else None
        self._issuer = Issuer(settings) if settings.oidc_issuer else None
        self._open, self._pages = settings.open_access, settings.cors_origins

    @property
    def asks_for_tokens(self) -> bool:
        """Whether anybody has to sign in."""
        return self._tokens is not None or self._issuer is not None

    def user_of(self, authorization: str, client: str | None) -> User:
        """Return who sends a request.

        Args:
            authorization: the header of that name, or an empty text.
            client: the sender's IP address; None for a local socket.

        Raises:
            NotSignedIn: no token, or one that does not hold.
            NotAllowed: there are no tokens, and the request comes from another machine.
            Unavailable: the token file cannot be read any more, or the issuer's keys cannot be fetched.
        """
        if not self.asks_for_tokens:
            if self._open or client is None or _is_loopback(client):
                return NOBODY
            raise NotAllowed(
                "this server answers its own machine only", "its administrator can hand out tokens (setting tokens)"
            )
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise NotSignedIn("there is no bearer token", "send the header  Authorization: Bearer TOKEN")
        known = self._by_file(token)
        if known is None and self._issuer is not None and token.count(".") == 2:
            known = self._issuer.user_of(token)
        if known is None:
            raise NotSignedIn("the token is not known here, or its time is over", "ask the administrator for a new one")
        return known

    def check_page(self, origin: str, host: str) -> None:
        """Where nobody signs in, refuse what a page of another site makes a browser on this machine send.

        Such a page may POST to any address without asking first; one whose own name has been made to mean this machine
        (DNS rebinding) could read the replies too. With tokens nothing is to be done: no browser adds a bearer token.

        Args:
            origin: the header of that name, which a browser adds; empty from other programs.
            host: the header of that name: by what name the sender has called this machine.

        Raises:
            NotAllowed: as said.
        """
        if self.asks_for_tokens:
            return
        elsewhere = origin and origin not in self._pages and origin.partition("://")[2] != host
        if elsewhere or not (self._open or _names_no_site(host)):
            raise NotAllowed(
                "a web page of another site asks this server",
                "open http://127.0.0.1, or let cors_origins name the page",
            )

    def _by_file(self, token: str) -> User | None:
        try:
            return self._tokens.user_of(token) if self._tokens else None
        except SettingsError as error:  # it is being edited, perhaps: nobody gets in, and the sender cannot help it
            log.error("%s", error.what)
            raise Unavailable("the token file cannot be read", "tell the server's administrator", 60) from error


class Gate:
    """In front of one route: lets in users of at least `role`, and notes who they are in ``request.state.user``.

    To a page, a browser may bring the token as a password that it asks its user for (HTTP Basic). It sends that along
    with whatever other pages make it fetch, so only addresses that change nothing may be pages.
    """

    def __init__(self, app: ASGIApp, role: Role, is_page: bool = False) -> None:
        self._app, self._role, self._is_page = app, role, is_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        user = await run_in_threadpool(_user, request, self._is_page)  # an issuer's keys may have to be fetched
        if user.role < self._role:
            raise NotAllowed(
                f"this needs the role {self._role.name.lower()}, yours is {user.role.name.lower()}",
                "ask the administrator for the role",
            )
        request.state.user = user
        await self._app(scope, receive, send)


def _user(request: Request, of_page: bool) -> User:
    keeper: Doorkeeper = request.app.state.gateway.doorkeeper
    headers, client = request.headers, request.client.host if request.client else None
    brought = headers.get("authorization", "")
    keeper.check_page(headers.get("origin", ""), headers.get("host", ""))
    if not of_page:
        return keeper.user_of(brought, client)
    try:
        return keeper.user_of(_as_bearer(brought), client)
    except NotSignedIn as error:
        raise NotSignedIn(error.what, "give any name, and your token as the password", _PROMPT) from error


def _as_bearer(authorization: str) -> str:
    """Turn a Basic header into that of the token which is its password; leave others as they are."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        name_and_password = b64decode(credentials, validate=True).decode()
    except ValueError:  # neither base64 nor UTF-8: nobody's
        return ""
    return f"Bearer {name_and_password.partition(':')[2]}"


def _names_no_site(host: str) -> bool:
    """Whether this is a number, or localhost: what no name server of somebody else's has had a say in."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("", "localhost") or bool(ip_address(name))
    except ValueError:  # a name, or an unclosed bracket
        return False


def _is_loopback(client: str) -> bool:
    try:
        address = ip_address(client)
    except ValueError:  # no address at all, such as a test client's name
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
