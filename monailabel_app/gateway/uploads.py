"""Forms and the files in them: how many parts, which kinds of file, and onto the disk under a name of our own."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from monailabel_app.gateway.errors import Refusal

_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 10**6
_MAX_FILES = 5000  # slices of one series
_ENDING = re.compile(r"(\.nii\.gz|\.seg\.nrrd|\.nii|\.nrrd|\.dcm|\.png|\.jpe?g|\.tiff?|\.bmp)$", re.IGNORECASE)
LABELS = (".nii.gz", ".seg.nrrd", ".nii", ".nrrd", ".png")  # not .jpg, which changes values


class WrongKind(Refusal):
    """The body, or a file in it, is of a kind that the server does not take."""

    status = 415


@asynccontextmanager
async def opened_form(request: Request, max_files: int = 0) -> AsyncIterator[FormData]:
    """Read a form; its files lie on the disk, not in memory, and are gone afterwards.

    Raises:
        WrongKind: the body is no form; MONAI Label would ignore such a body in silence.
        HTTPException: 400, more parts than allowed, or a damaged body.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise WrongKind(
            f"the body is {kind[:60] or 'of no kind'}, not a form", "send multipart/form-data with the field params"
        )
    async with request.form(
        max_files=min(max_files, _MAX_FILES), max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    ) as form:
        yield form


def field(form: FormData, name: str, default: str) -> str:
    """Return a text field; raises `Refusal` where a file came in its place."""
    value = form.get(name, default)
    if not isinstance(value, str):
        raise Refusal(f"the field {name} holds a file", f"send {name} as a text field")
    return value


def files(form: FormData, name: str) -> list[UploadFile]:
    """Return the files of one field; raises `Refusal` where there is none."""
    found = [value for value in form.getlist(name) if isinstance(value, UploadFile)]
    if not found:
        raise Refusal(f"the form holds no file {name}", f"send the file as the part {name}")
    return found


def ending(upload: UploadFile, otherwise: str = "") -> str:
    """The file's ending in lower case, such as ``.nii.gz``; `otherwise` where it is none that we know."""
    match = _ENDING.search(upload.filename or "")
    return match[1].lower() if match else otherwise


def keep(upload: UploadFile, path: Path) -> Path:
    """Copy an upload to a new file; blocks, so call it off the event loop."""
    with path.open("xb") as file:
        shutil.copyfileobj(upload.file, file, 2**20)
    return path


def check_label(upload: UploadFile) -> str:
    """Return a label file's ending; raises `WrongKind` for what is no mask."""
    found = ending(upload)
    if found not in LABELS:
        raise WrongKind(f"{(upload.filename or '')[-60:]!r} is no label file", f"send one of {', '.join(LABELS)}")
    return found
