"""multipart/form-data (RFC 7578), both ways. Binary safe; files may be large, so a body can be written around one."""

from __future__ import annotations

import email
import email.message
import uuid
from dataclasses import dataclass, field
from typing import Optional

from medreasoner.contract.errors import MedReasonerError

_HINT = "check that the address is that of a MedReasoner server, and that both are of the same version"


@dataclass(frozen=True)
class Part:
    """One part of a form: a text field, or a file when it has a file name."""

    content: bytes
    filename: str = ""


@dataclass(frozen=True)
class Form:
    """A body to send; `boundary` is drawn at random, so that no content can hold it."""

    boundary: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary}"

    def head(self, name: str, filename: str = "") -> bytes:
        """What precedes a part's content."""
        quoted = filename.replace("\\", "_").replace('"', "_").replace("\r", "_").replace("\n", "_")
        line = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{quoted}"' if filename else "")
        kind = "Content-Type: application/octet-stream\r\n" if filename else ""
        return f"--{self.boundary}\r\n{line}\r\n{kind}\r\n".encode()

    @property
    def end(self) -> bytes:
        """What follows the last part's content."""
        return f"\r\n--{self.boundary}--\r\n".encode()

    def body(self, parts: dict[str, Part]) -> bytes:
        """A whole body of at least one part."""
        pieces = [self.head(name, part.filename) + part.content for name, part in parts.items()]
        return b"\r\n".join(pieces) + self.end


def parse(body: bytes, content_type: str) -> dict[str, Part]:
    """Take a reply apart; of parts with the same name the last one stays.

    Raises:
        MedReasonerError: not multipart/form-data, or cut short.
    """
    boundary = _header("Content-Type", content_type).get_param("boundary")
    if not isinstance(boundary, str) or not content_type.lower().startswith("multipart/"):
        raise MedReasonerError(f"the server answered with {content_type or 'an unnamed type'}, not a form", _HINT)
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise MedReasonerError("the server's answer was cut short", "ask again; if it recurs, look into its log")
    parts = {}
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        line = _disposition(head)
        if line is None:
            raise MedReasonerError("a part of the server's answer has no name", _HINT)
        parts[line[0]] = Part(content, line[1])
    return parts


def _disposition(head: bytes) -> Optional[tuple[str, str]]:
    message = email.message_from_bytes(head.lstrip(b"\r\n"))
    name = message.get_param("name", header="content-disposition")
    return (name, message.get_filename() or "") if isinstance(name, str) else None


def _header(name: str, value: str) -> email.message.Message:
    message = email.message.Message()
    message[name] = value
    return message
