"""A server on loopback that speaks docs/http.md and answers at once: it points at what is bright in the picture.

It cuts the picture with the server's own imaging code, so positions and geometry are real; only reasoner and expert
are replaced, by words in the question: "absent", "slow", "busy", "broken", "refused", "nonsense".
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from requests_toolbelt import MultipartDecoder, MultipartEncoder

from medreasoner.contract.answer import Box, Point
from medreasoner.contract.wire import GroundingResult
from medreasoner.imaging import StoredImage, open_image, write_volume_mask
from medreasoner.picture import Picture

BRIGHT = 128
REASONING = "This is a phantom. The bright block lies to one side, so it is the one that was asked for."


@dataclass
class Scripted:
    """What the server holds and has seen.

    Attributes:
        images: uploaded files by session or case name.
        requests: (method, path, headers) of everything received.
        asked: parameters of every call to a model, with its name.
        labels: what was saved, by case: parameters and mask file.
        scoring: how it scores images, as /info/ says; empty: not at all.
        unsure: the question about which answers to every case differ; empty: none.
        release: set to let the slow answers go.
    """

    folder: Path
    images: dict[str, Path] = field(default_factory=dict)
    requests: list[tuple[str, str, Message]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)
    scoring: dict[str, Any] = field(default_factory=dict)
    unsure: str = ""
    left_queue: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    token: str = ""
    address: str = ""

    def count(self, method: str, path: str) -> int:
        """How many requests of a kind came in."""
        return sum(m == method and p.startswith(path) for m, p, _ in self.requests)


@contextmanager
def scripted_server(token: str = "") -> Iterator[Scripted]:
    """Serve on a free port until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        scripted = Scripted(Path(folder), token=token)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"scripted": scripted}))
        scripted.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield scripted
        finally:
            scripted.release.set()
            server.shutdown()
            server.server_close()
            thread.join()


class Refusal(Exception):
    """An HTTP error to send: status, detail, hint."""


class _Handler(BaseHTTPRequestHandler):
    scripted: Scripted
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.scripted.requests.append((self.command, self.path, self.headers))
        try:
            if self.scripted.token and self.headers.get("Authorization") != f"Bearer {self.scripted.token}":
                raise Refusal(401, "the access token is missing or wrong", "")
            kind, content = self._answer(body)
        except Refusal as refusal:
            status, detail, hint = refusal.args
            kind, content = "application/json", json.dumps({"detail": detail, "hint": hint, "kind": "E"}).encode()
        else:
            status = 200
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            return  # the client has cancelled

    do_GET = do_PUT = do_POST = do_DELETE = _serve

    def _answer(self, body: bytes) -> tuple[str, bytes]:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        route = f"{self.command} {url.path}"
        if route == "GET /info/":
            return _json({"name": "MedReasoner", "models": {"medreasoner": {}}, "scoring": self.scripted.scoring})
        if route in ("PUT /session/", "PUT /datastore/image"):
            return self._upload(query.get("image") or f"session-{len(self.scripted.images) + 1}", body)
        if route == "PUT /datastore/label":
            parts = self._parts(body)
            self.scripted.labels[query["image"]] = json.loads(parts["params"]), parts["label"]
            return _json({"image": query["image"], "label": query["image"]})
        if route == "GET /datastore/image":
            file = self.scripted.images[query["image"]]
            if not file.exists():
                raise Refusal(404, "the image is gone", "ask for another case")
            return "application/octet-stream", file.read_bytes()
        if url.path.startswith("/activelearning/"):
            cases = sorted(name for name in self.scripted.images if not name.startswith("session"))
            noted = {"medreasoner": {"question": self.scripted.unsure}} if self.scripted.unsure else {}
            return _json({"id": cases[0], "name": cases[0], **noted} if cases else {})
        if url.path.startswith("/queue/"):
            if self.command == "DELETE":
                self.scripted.left_queue.append(url.path.split("/")[-1])
            return _json({"state": "waiting", "position": 2, "wait_seconds": 7.5})
        if url.path.startswith("/infer/"):
            params = {"model": url.path.split("/")[-1], **json.loads(self._parts(body)["params"])}
            self.scripted.asked.append(params)
            return self._infer(query, params)
        raise Refusal(404, "Not Found", "")

    def _parts(self, body: bytes) -> dict[str, bytes]:
        decoded = MultipartDecoder(body, self.headers["Content-Type"]).parts
        names = [p.headers[b"Content-Disposition"].split(b'name="')[1].split(b'"')[0].decode() for p in decoded]
        return dict(zip(names, (p.content for p in decoded), strict=True))

    def _upload(self, name: str, body: bytes) -> tuple[str, bytes]:
        (content,) = (v for v in self._parts(body).values() if v.startswith(b"NRRD"))
        file = self.scripted.folder / f"{name}.nrrd"
        file.write_bytes(content)
        self.scripted.images[name] = file
        return _json({"session_id": name, "session_info": {}, "image": name})

    def _infer(self, query: dict[str, str], params: dict[str, Any]) -> tuple[str, bytes]:
        question = params.get("question", "")
        self._misbehave(question)
        known = self.scripted.images.get(query.get("session_id") or query.get("image", ""))
        if known is None:
            raise Refusal(404, "there is no such image", "upload it again")
        image = open_image(known)
        picture = image.picture(params["axis"], params["slice_index"], tuple(params.get("window") or ()) or None)
        bright = picture.pixels[..., 0] > BRIGHT
        if "box" in params:
            x_min, y_min, x_max, y_max = (round(v) for v in params["box"])
            inside = np.zeros_like(bright)
            inside[max(y_min, 0) : y_max, max(x_min, 0) : x_max] = True
            bright &= inside
        if "absent" in question or not bright.any():
            return self._reply(image, picture, np.zeros_like(bright), params)
        box = params.get("box") or box_round_mask(bright)
        if params["model"] == "medreasoner_volume":
            through = (image.values > params["window"][0]).astype(np.uint8)
            return self._reply(image, picture, through, params, box)
        return self._reply(image, picture, bright, params, box)

    def _misbehave(self, question: str) -> None:
        if "slow" in question:
            self.scripted.release.wait(20)
        if "busy" in question:
            raise Refusal(503, "the queue is full", "")
        if "broken" in question:
            raise Refusal(500, "the expert ran out of memory", "restart the server with a smaller expert")
        if "refused" in question:
            raise Refusal(422, "the question cannot be asked", "ask about one thing")

    def _reply(
        self, image: StoredImage, picture: Picture, mask: Any, params: dict[str, Any], box: Any = None
    ) -> tuple[str, bytes]:
        if "nonsense" in params.get("question", ""):
            return "text/html", b"<html>It works!</html>"
        file = self.scripted.folder / f"mask-{time.monotonic_ns()}.nrrd"
        write_volume_mask(mask if mask.ndim == 3 else picture.mask_in_volume(mask), image, file)
        result = result_of(picture, params.get("question", ""), box)
        values = {**json.loads(result.to_json()), "label_names": {}, "latencies": {}}
        form = {"params": (None, json.dumps(values), "application/json"), "image": (file.name, file.read_bytes())}
        encoder = MultipartEncoder(form)
        return encoder.content_type, encoder.to_string()


def result_of(picture: Picture, question: str, box: list[float] | None) -> GroundingResult:
    """The answer that points at a box, with its points at a third and two thirds of it."""
    common: dict[str, Any] = {
        "question": question,
        "reasoning": REASONING,
        "absent": box is None,
        "confidence": 0.83,
        "target": "" if box is None else "bright block",
        "picture_size": (picture.width, picture.height),
        "axis": picture.axis,
        "slice_index": picture.slice_index,
        "reasoner": {"name": "scripted", "sha256": "0" * 64, "instruction_sha256": "1" * 64},
        "expert": {"name": "threshold", "sha256": "2" * 64},
    }
    if box is None:
        return GroundingResult(**common)
    found = Box(*box)
    corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
    width, height = found.x_max - found.x_min, found.y_max - found.y_min
    points = [(found.x_min + part * width, found.y_min + part * height) for part in (1 / 3, 2 / 3)]
    return GroundingResult(
        **common,
        box=list(box),
        points=[list(p) for p in points],
        box_corners_ijk=[picture.index_of(Point(*c)).tolist() for c in corners],
        points_ijk=[picture.index_of(Point(*p)).tolist() for p in points],
    )


def _json(values: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(values).encode()


def box_round_mask(mask: Any) -> list[float]:
    """The smallest half-open box round true pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
