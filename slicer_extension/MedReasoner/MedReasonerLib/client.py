"""What is said to the server. Knows neither Slicer nor Qt, nor how bytes travel; replies.py reads what comes back.

A `Call` is one HTTP request as a value. MedReasonerLib/network.py sends it from Slicer's event loop,
MedReasonerLib/blocking.py from a script. docs/http.md describes the same routes from the server's side.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Optional, Union
from urllib.parse import quote, urlencode

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.label import LabelRecord
from medreasoner.contract.wire import GroundingRequest, RegionRequest
from MedReasonerLib.multipart import Form, Part

Steps = Generator[Any, Any, Any]  # yields calls, asides and pauses (None), gets replies

_QUICK, _ANSWER, _UPLOAD, _VOLUME = 10.0, 300.0, 900.0, 3600.0  # seconds until a call is given up


class ServerError(MedReasonerError):
    """The server could not be reached, refused, or failed; `status` is 0 when nothing came back."""

    def __init__(self, what: str, hint: str, status: int = 0) -> None:
        super().__init__(what, hint)
        self.status = status


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        body: bytes, or a file that holds them (an upload), or None.
        into: a file for the body of a good reply, which may be large; the reply's own body is empty then.
        seconds: time limit for the whole exchange.
        queue_id: set for work that waits in the server's queue: the name by which its place can be asked.
    """

    method: str
    path: str
    body: Any = None
    content_type: str = ""
    seconds: float = _QUICK
    queue_id: str = ""
    into: Optional[Path] = None


@dataclass(frozen=True)
class Reply:
    """What came back, whatever the status."""

    status: int
    content_type: str
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Aside:
    """A call whose reply nobody waits for."""

    call: Call


@dataclass(frozen=True)
class ServerImage:
    """How the server knows an image: a case of its collection, or an upload that lasts for a session."""

    image: str = ""
    session: str = ""

    @property
    def query(self) -> str:
        return urlencode({"session_id": self.session} if self.session else {"image": self.image})


@dataclass(frozen=True)
class Server:
    """An address with its token: turns calls into URLs and headers, and replies into values or errors."""

    address: str
    token: str = field(default="", repr=False)

    def url(self, call: Call) -> str:
        return self.address + call.path

    def headers(self, call: Call) -> dict[str, str]:
        found = {"Accept": "*/*"}
        if call.content_type:
            found["Content-Type"] = call.content_type
        if call.queue_id:
            found["X-Request-ID"] = call.queue_id
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        return found

    def check(self, call: Call, reply: Reply) -> None:
        """Raise `ServerError` with address, status and the server's own reason unless the status is 2xx."""
        if reply.is_good:
            return
        detail, hint = _reason(reply)
        hints = {401: "fill in the access token that the server's owner gave you", 503: "wait a moment and ask again"}
        what = f"{self.address} answered {reply.status} to {call.path.partition('?')[0]}: {detail}"
        raise ServerError(what, hint or hints.get(reply.status, "look into the server's log"), reply.status)


def _reason(reply: Reply) -> tuple[str, str]:
    try:
        said = json.loads(reply.body)
    except ValueError:  # a proxy's HTML page
        return reply.body[:200].decode("utf-8", "replace").strip() or "no reason given", ""
    if not isinstance(said, dict) or "detail" not in said:
        return str(said)[:200], ""
    return str(said["detail"])[:1000], str(said.get("hint", ""))


def info() -> Call:
    return Call("GET", "/info/")


def ask(image: ServerImage, request: GroundingRequest) -> Call:
    """Ask a question about one slice; `read_answer` reads the reply."""
    return _infer("medreasoner", image, request)


def refine(image: ServerImage, region: RegionRequest) -> Call:
    """Ask for the mask of an edited or drawn box; `read_answer` reads the reply."""
    return _infer("medreasoner_refine", image, region)


def whole_volume(image: ServerImage, region: RegionRequest) -> Call:
    """Ask for the mask through all slices, from the box on one of them; `read_answer` reads the reply."""
    return replace(_infer("medreasoner_volume", image, region), seconds=_VOLUME)  # hundreds of slices, on any machine


def _infer(model: str, image: ServerImage, request: Union[GroundingRequest, RegionRequest]) -> Call:
    params = {name: value for name, value in asdict(request).items() if value not in (None, "")}
    text = json.dumps({**params, "result_extension": ".nrrd", "result_dtype": "uint8"}, allow_nan=False)
    form = Form()
    body = form.body({"params": Part(text.encode())})
    path = f"/infer/{model}?{image.query}&output=all"
    return Call("POST", path, body, form.content_type, _ANSWER, uuid.uuid4().hex)


def open_session(body: Path, content_type: str) -> Call:
    """Upload an image for this session; `read_session` reads the reply."""
    return Call("PUT", "/session/", body, content_type, _UPLOAD)


def close_session(image: ServerImage) -> Call:
    return Call("DELETE", f"/session/{quote(image.session)}")


def add_case(name: str, body: Path, content_type: str) -> Call:
    """Upload an image into the server's collection under a name."""
    return Call("PUT", f"/datastore/image?image={quote(name, safe='')}", body, content_type, _UPLOAD)


def save_label(image: str, mask_file: bytes, record: LabelRecord) -> Call:
    """Store a label with its question, reasoning and history."""
    label_info = [{"name": record.target or "target", "idx": 1}]
    params = {"label_info": label_info, "medreasoner": json.loads(record.to_json())}
    form = Form()
    parts = {"params": Part(json.dumps(params, allow_nan=False).encode()), "label": Part(mask_file, "label.nrrd")}
    path = f"/datastore/label?image={quote(image, safe='')}&tag=final"
    return Call("PUT", path, form.body(parts), form.content_type, _UPLOAD)


def next_case(strategy: str) -> Call:
    """Ask which case to label next; `read_case` reads the reply."""
    return Call("POST", f"/activelearning/{quote(strategy, safe='')}", b"{}", "application/json", _QUICK)


def get_case(image: str, into: Path) -> Call:
    """Download a case of the server's collection into a file."""
    return Call("GET", f"/datastore/image?image={quote(image, safe='')}", seconds=_UPLOAD, into=into)


def queue_place(call: Call) -> Call:
    return Call("GET", f"/queue/{quote(call.queue_id)}")


def leave_queue(call: Call) -> Call:
    return Call("DELETE", f"/queue/{quote(call.queue_id)}")


def unreachable(server: Server, why: str) -> ServerError:
    """The error for a server that gives no HTTP answer."""
    return ServerError(f"no answer from {server.address}: {why}", "check the address, and that the server is running")
