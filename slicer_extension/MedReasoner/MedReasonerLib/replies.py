"""How the server's replies are read; client.py makes the calls they belong to. Knows neither Slicer nor Qt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

from medreasoner.contract.errors import MedReasonerError
from medreasoner.contract.wire import GroundingResult
from MedReasonerLib.client import Reply, ServerImage
from MedReasonerLib.multipart import parse

_OTHER_SERVER = "check the address: this does not look like a MedReasoner server of this version"


@dataclass(frozen=True)
class NextCase:
    """What to label next; `question` is what the server would ask about it, empty where it has nothing to ask."""

    name: str
    question: str = ""


@dataclass(frozen=True)
class Answered:
    """A reply to a question or to a region: the answer in all coordinates, and a NRRD mask of the image's grid."""

    result: GroundingResult
    mask_file: bytes


def read_json(reply: Reply) -> dict[str, Any]:
    """Raises `MedReasonerError` unless the reply is a JSON object."""
    try:
        values = json.loads(reply.body)
    except ValueError as error:
        raise MedReasonerError(f"the server's answer is not JSON: {error}", _OTHER_SERVER) from error
    if not isinstance(values, dict):
        raise MedReasonerError("the server's answer is not a JSON object", _OTHER_SERVER)
    return values


def read_session(reply: Reply) -> ServerImage:
    session = read_json(reply).get("session_id")
    if not isinstance(session, str) or not session:
        raise MedReasonerError("the server opened no session for the image", "restart it with sessions enabled")
    return ServerImage(session=session)


def read_case(reply: Reply) -> Optional[NextCase]:
    """The next case, or None when there is none left."""
    values = read_json(reply)
    noted = values.get("medreasoner")
    question = noted.get("question") if isinstance(noted, dict) else None
    return NextCase(values["id"], question if isinstance(question, str) else "") if values.get("id") else None


def ending_of(head: bytes) -> str:
    """The ending that a downloaded image's file should have, by its first bytes."""
    if head[:4] == b"NRRD":
        return ".nrrd"
    if head[128:132] == b"DICM":
        return ".dcm"
    if head[:2] == b"\x1f\x8b":
        return ".nii.gz"
    return {b"\x89PNG": ".png", b"\xff\xd8\xff\xe0": ".jpg", b"\xff\xd8\xff\xe1": ".jpg"}.get(head[:4], ".nii")


def read_answer(reply: Reply) -> Answered:
    """Raises `MedReasonerError` when the reply is no answer of this schema version."""
    parts = parse(reply.body, reply.content_type)
    if not {"params", "image"} <= parts.keys():
        raise MedReasonerError(f"the server sent {sorted(parts)} instead of an answer and a mask", _OTHER_SERVER)
    params = read_json(Reply(reply.status, "application/json", parts["params"].content))
    return Answered(GroundingResult.from_reply(params), parts["image"].content)
