"""What a request may say: known parameters of the right kind, images and sessions that exist, names without paths."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from medreasoner.contract.checks import (
    check_axis,
    check_slice,
    checked_box,
    checked_points,
    checked_question,
    checked_window,
)
from medreasoner.contract.errors import MedReasonerError
from monailabel_app.gateway.errors import NotFound, Refusal

OUTPUTS = ("all", "json", "image")
MASK_ENDINGS = (".nrrd", ".seg.nrrd", ".nii.gz", ".nii", ".png")
MASK_TYPES = ("uint8", "uint16", "int16", "uint32", "int32")
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
    known = {**_EVERYWHERE, **_OF_MODEL.get(model, {})}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise Refusal(f"{model} has no parameter {unknown[0][:60]!r}", f"known: {', '.join(sorted(known))}")
    for name, value in values.items():
        known[name](value)
    if model == "medreasoner":
        checked_question(values.get("question", ""))
    values.pop("client_id", None)  # every call of MONAI Label's client carries one
    return values


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


def _anything(_: Any) -> None:
    return None


def _text(value: Any) -> None:
    if value is not None and (not isinstance(value, str) or len(value) > 20_000):
        raise Refusal(f"{str(value)[:60]!r} is not a text", "send a text, or leave it out")


def _question(value: Any) -> None:
    _text(value)
    if value:
        checked_question(value)


def _flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise Refusal(f"{str(value)[:60]!r} is neither true nor false", "send true or false")


def _axis(value: Any) -> None:
    if value not in ("", None):
        check_axis(value)


def _slice(value: Any) -> None:
    """A number, or the text of one: the stock plug-in's table has text cells; an empty one is the middle slice."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:9])
    if value not in ("", None):
        check_slice(value)


def _voxels(value: Any) -> None:
    """Clicks as the stock plug-in sends them: ``[[i, j, k], ...]``."""
    ok = isinstance(value, list) and len(value) <= 1000
    if not ok or not all(isinstance(p, list) and len(p) == 3 and all(_is_number(v) for v in p) for p in value):
        raise MedReasonerError(f"{str(value)[:60]} are not voxels", "send [[i, j, k], ...]")


def _region(value: Any) -> None:
    """A box of voxels as the stock plug-in sends it: empty, or ``[i0, i1, j0, j1, k0, k1]``."""
    if not isinstance(value, list) or len(value) not in (0, 6) or not all(_is_number(v) for v in value):
        raise MedReasonerError(f"{str(value)[:60]} is not a region", "send [i0, i1, j0, j1, k0, k1], or an empty list")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


Check = Callable[[Any], Any]
_EVERYWHERE: dict[str, Check] = {
    "client_id": _text,
    "result_extension": lambda value: _one_of(MASK_ENDINGS, "result_extension", value),
    "result_dtype": lambda value: _one_of(MASK_TYPES, "result_dtype", value),
    "result_compress": _flag,
    "label_info": _anything,  # MONAI Label's clients send it for DICOM SEG; ours comes from the answer
}
_VIEW: dict[str, Check] = {
    "question": _question,
    "axis": _axis,
    "slice_index": lambda value: None if value is None else check_slice(value),
    "slice": _slice,
    "window": checked_window,
    "schema_version": _anything,
}
_DRAWN: dict[str, Check] = {"box": checked_box, "points": checked_points}
_CLICKED: dict[str, Check] = {
    "foreground": _voxels,
    "background": _voxels,
    "roi": _region,
    "label": _text,
    "reset_state": _flag,
}
_OF_MODEL: dict[str, dict[str, Check]] = {
    "medreasoner": _VIEW,
    "medreasoner_refine": {**_VIEW, **_DRAWN, **_CLICKED},
    "medreasoner_volume": {**_VIEW, **_DRAWN, **_CLICKED},
}
