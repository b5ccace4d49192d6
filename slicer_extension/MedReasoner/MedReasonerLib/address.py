"""The server's address, in whatever form people type it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from medreasoner.contract.errors import MedReasonerError

DEFAULT = "http://127.0.0.1:8000"
_PORT = 8000  # what `medreasoner serve` and MONAI Label listen on
_PAGES = ("/info", "/docs", "/healthz", "/readyz")  # copied from a browser's address line
_HINT = f"write it like {DEFAULT} or https://server.hospital.org/medreasoner"


def normalised(text: str) -> str:
    """Return ``scheme://host[:port][/path]`` without a slash at its end.

    Without a scheme it is http, and port 8000 unless another is written; an empty text is this machine; 0.0.0.0,
    which a server prints for "every network card", is this machine too.

    Raises:
        MedReasonerError: not http or https, no host, a wrong port, or a password inside.
    """
    typed = text.strip()
    if not typed:
        return DEFAULT
    bare = "://" not in typed
    try:
        parts = urlsplit(f"http://{typed}" if bare else typed)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise MedReasonerError(f"{typed!r} is not an address: {error}", _HINT) from error
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in typed):
        raise MedReasonerError(f"{typed!r} is not the address of a server", _HINT)
    if parts.username is not None:
        raise MedReasonerError("the address holds a user name or password", "leave it out and fill in the access token")
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    if ":" in host:
        host = f"[{host}]"
    if port is None and bare:
        port = _PORT
    path = parts.path.rstrip("/")
    for page in _PAGES:
        path = path[: -len(page)] if path.endswith(page) else path
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{path.rstrip('/')}"


def is_this_machine(address: str) -> bool:
    """Whether a normalised address stays on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_readable_by_others(address: str) -> bool:
    """Whether images would travel unencrypted over a network."""
    return urlsplit(address).scheme == "http" and not is_this_machine(address)
