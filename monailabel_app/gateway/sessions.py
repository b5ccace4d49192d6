"""PUT, GET and DELETE /session/: a volume that the client uploads and asks about, kept for a while."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from monailabel_app.gateway.errors import Refusal
from monailabel_app.gateway.service import Service, service
from monailabel_app.gateway.uploads import ending, files, keep, opened_form
from monailabel_app.gateway.validation import session_image
from monailabel_app.lib.scratch import scratch_folder


async def create_session(request: Request) -> Response:
    """Keep one file, or the files of one DICOM series, and return the session's id."""
    if request.query_params.get("uncompress", "false").lower() not in ("false", "0", ""):
        raise Refusal("archives are not unpacked here", "upload the volume's file, or a series' files side by side")
    expiry = request.query_params.get("expiry", "0") or "0"
    if not expiry.isdecimal():
        raise Refusal(f"expiry {expiry[:40]!r} is no whole number", "send seconds, or leave it out")
    async with opened_form(request, max_files=10**6) as form:
        return JSONResponse(await run_in_threadpool(_create, service(request), files(form, "files"), int(expiry[:9])))


def get_session(request: Request) -> Response:
    """Say until when a session lasts, without the server's own paths."""
    sessions, id = service(request).application.sessions(), request.path_params["id"]
    session_image(sessions, id)
    return JSONResponse(_public(sessions.get_session(id, update_ts=False)))


def remove_session(request: Request) -> Response:
    """Delete a session and its volume."""
    sessions, id = service(request).application.sessions(), request.path_params["id"]
    session_image(sessions, id)
    info = _public(sessions.get_session(id, update_ts=False))
    sessions.remove_session(id)
    return JSONResponse(info)


def _create(here: Service, uploads: list[UploadFile], expiry: int) -> dict[str, object]:
    with scratch_folder() as received:
        series = received / "series"
        series.mkdir()
        kept = [keep(upload, series / f"{n:05d}{ending(upload, '.dcm')}") for n, upload in enumerate(uploads)]
        source = series if len(kept) > 1 else kept[0].rename(received / f"image{kept[0].name[5:]}")
        id, info = here.application.sessions().add_session(str(source), expiry)
        return {"session_id": id, "session_info": _public(info)}


def _public(info: object) -> dict[str, object]:
    return {key: getattr(info, key) for key in ("name", "create_ts", "last_access_ts", "expiry")}
