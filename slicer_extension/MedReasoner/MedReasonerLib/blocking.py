"""Calls that wait for their reply, for scripts and tests; inside Slicer's interface use MedReasonerLib/network.py."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from pathlib import Path

from MedReasonerLib.client import Call, Reply, Server, unreachable


def send_blocking(server: Server, call: Call) -> Reply:
    """Send a call and wait, for scripts; raises `ServerError` when no HTTP answer comes back."""
    body = call.body.read_bytes() if isinstance(call.body, Path) else call.body
    request = urllib.request.Request(server.url(call), body, server.headers(call), method=call.method)
    try:
        with urllib.request.urlopen(request, timeout=call.seconds) as got:
            kind = got.headers.get("Content-Type", "")
            if call.into is None:
                return Reply(got.status, kind, got.read())
            with call.into.open("wb") as file:
                shutil.copyfileobj(got, file)
            return Reply(got.status, kind, b"")
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.headers.get("Content-Type", ""), error.read())
    except OSError as error:  # URLError, time-outs and broken connections
        raise unreachable(server, str(getattr(error, "reason", error))) from error
