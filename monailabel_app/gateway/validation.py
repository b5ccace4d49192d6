"""What a request may say: known parameters of the right kind, images and sessions that exist, names without paths."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from medreasoner.contract.checks import SCHEMA_VERSION
from monailabel_app.gateway.errors import NotFound, Refusal
from monailabel_app.lib.infers.wishes import ENDINGS, NUMBERS, question_of, region_of

OUTPUTS = ("all", "json", "image", "dicom_seg", "dicom_sr")
# Sent by every client of MONAI Label; label_info is for DICOM SEG, and ours comes from the answer.
_TO_ANY = {"client_id", "label_info", "result_extension", "result_dtype", "result_compress", "schema_version"}
_VIEW = {"question", "axis", "slice_index", "slice", "window"}
_DRAWN = {"box", "points", "foreground", "background", "roi", "label", "reset_state"}
_TO_MODEL = {
    "medreasoner": _TO_ANY | _VIEW,
    "medreasoner_refine": _TO_ANY | _VIEW | _DRAWN,
    "medreasoner_volume": _TO_ANY | _VIEW | _DRAWN,
}
_LONGEST_TEXT = 200  # characters, of every parameter but the question, for which the contract has its own limit
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ @+-]{0,126}[A-Za-z0-9_@+-])?")  # one part of a path, never hidden
_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")


def read_json_object(text: str) -> dict[str, Any]:
    """Decode one JSON object of finite numbers; raises `Refusal` on anything else."""
    try:
        values = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # JSON may nest 100,000 brackets
        raise Refusal(f"params is not JSON: {str(error)[:120]}", "send one JSON object") from error
    if not isinstance(values, dict):
        raise Refusal(f"params is a JSON {type(values).__name__}", "send one JSON object")
    return values


def checked_params(model: str, text: str) -> dict[str, Any]:
    """Return a model's parameters once each is known to the model and of the right kind.

    Raises:
        Refusal: not a JSON object, an unknown parameter, a number that is not finite.
        MedReasonerError: one of the core's own complaints about a question, box, points, axis, slice or window.
    """
    values = read_json_object(text)
    known = _TO_MODEL.get(model, _TO_ANY)
    unknown = sorted(values.keys() - known)
    if unknown:
        raise Refusal(f"{model} has no parameter {unknown[0][:60]!r}", f"known: {', '.join(sorted(known))}")
    for name, value in values.items():
        if isinstance(value, str) and len(value) > _LONGEST_TEXT and name != "question":
            raise Refusal(f"{name} has {len(value):,} characters", f"send at most {_LONGEST_TEXT}")
    _one_of(("", *ENDINGS), "result_extension", values.get("result_extension") or "")
    _one_of(("", *NUMBERS), "result_dtype", values.get("result_dtype") or "")
    if values.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise Refusal("the schema version is another one", "update the older of client and server")
    if model == "medreasoner" or values.get("question"):
        question_of(values)
    if values.get("box") is not None or values.get("points"):
        region_of(values)
    return {name: value for name, value in values.items() if name not in ("client_id", "label_info")}


def checked_output(output: str) -> str:
    """Return what the reply shall hold; raises `Refusal` for other words."""
    return _one_of(OUTPUTS, "output", output)


def checked_name(name: str) -> str:
    """Return an id under which an image can be stored; raises `Refusal` for what would be a path or a hidden file."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise Refusal(
            f"{name[:60]!r} cannot be an image's id", "use up to 128 letters, digits, spaces, dots, dashes, underscores"
        )
    return name


def checked_tag(tag: str) -> str:
    """Return a label's tag; raises `Refusal` where it could be more than one folder's name."""
    if not _TAG.fullmatch(tag):
        raise Refusal(f"{tag[:60]!r} cannot be a tag", "use up to 64 letters, digits, dashes and underscores")
    return tag


def known_image(datastore: Any, image: str) -> str:
    """Return the id of an image that the datastore lists; raises `NotFound` for any other text, paths among them."""
    if image not in datastore.list_images():
        raise NotFound(f"there is no image {image[:60]!r}", "GET /datastore/?output=all lists the images")
    return image


def session_image(sessions: Any, session: str) -> str:
    """Return the path of a session's image; raises `NotFound` where the session is over or never was."""
    info = sessions.get_session(session) if _SESSION.fullmatch(session) else None
    if info is None:
        raise NotFound(f"there is no session {session[:60]!r}", "upload the volume again with PUT /session/")
    return str(info.image)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large")
    return value


def _one_of(choices: tuple[str, ...], what: str, value: Any) -> str:
    if value not in choices:
        raise Refusal(f"{what} cannot be {str(value)[:60]!r}", f"use one of {', '.join(choices)}")
    return str(value)
