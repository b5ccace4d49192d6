"""/datastore and /datastore/image: what images there are, their files, and new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from medreasoner.imaging import open_image, write_volume
from monailabel_app.gateway.errors import Conflict, NotAllowed, Refusal
from monailabel_app.gateway.service import Service, service
from monailabel_app.gateway.tokens import Role
from monailabel_app.gateway.uploads import WrongKind, ending, field, files, keep, opened_form
from monailabel_app.gateway.validation import checked_name, known_image, read_json_object
from monailabel_app.lib.activelearning.questions import NOTE
from monailabel_app.lib.activelearning.strategies import HANDED_OUT
from monailabel_app.lib.scratch import scratch_file, scratch_folder

_OUR_NOTES = {NOTE, HANDED_OUT}


def overview(request: Request) -> Response:
    """Counts; with ``output=all`` every image and label, with ``output=train`` (an administrator's) their paths."""
    output, store = request.query_params.get("output") or "stats", service(request).application.datastore()
    if output == "stats":
        return JSONResponse(store.status())
    if output == "all":
        return JSONResponse(without_paths(store.json()))
    if output != "train":
        raise Refusal(f"output cannot be {output[:40]!r}", "use stats, all or train")
    if request.state.user.role is not Role.ADMIN:
        raise NotAllowed("paths on the server are for administrators", "use output=all")
    return JSONResponse(store.datalist())


async def add_image(request: Request) -> Response:
    """Store a new image, from an annotator; never over one that is there."""
    here = service(request)
    async with opened_form(request, max_files=1) as form:
        upload = files(form, "file")[0]
        params = read_json_object(field(form, "params", "{}") or "{}")
        name = request.query_params.get("image") or (upload.filename or "").removesuffix(ending(upload))
        _check_notes(params)
        params["user"] = who = request.state.user.name
        added = await run_in_threadpool(_add, here, checked_name(name), upload, params)
        await run_in_threadpool(here.audit.write, "image", who, image=added)
        return JSONResponse({"image": added})


def image_file(request: Request) -> Response:
    """The image as one file (GET), or whether there is one (HEAD)."""
    store, id = service(request).application.datastore(), request.query_params.get("image", "")
    path = Path(store.get_image_uri(known_image(store, id)))
    if path.is_file():
        return FileResponse(path, filename=path.name)
    return Response() if request.method == "HEAD" else _one_file(path, id)


def image_info(request: Request) -> Response:
    """What the datastore notes of an image, without its path."""
    store = service(request).application.datastore()
    return JSONResponse(without_paths(store.get_image_info(known_image(store, request.query_params.get("image", "")))))


def remove_image(request: Request) -> Response:
    """Delete an image and its labels."""
    here = service(request)
    store = here.application.datastore()
    image = known_image(store, request.query_params.get("id", ""))
    here.audit.write("removal", request.state.user.name, image=image)  # first: what is gone must stand somewhere
    store.remove_image(image)
    return JSONResponse({})


def without_paths(info: Any) -> Any:
    """The same without where the files lie on the server."""
    if not isinstance(info, dict):
        return info
    return {key: without_paths(value) for key, value in info.items() if key != "path"}


def _check_notes(params: dict[str, Any]) -> None:
    """Refuse what would count as a score or a turn of ours: strategies trust those."""
    ours = params.keys() & _OUR_NOTES
    if ours:
        raise Refusal(f"params may not hold {min(ours)!r}", "choose another name for what is known of the image")


def _one_file(series: Path, id: str) -> Response:
    """A folder of DICOM files as one NRRD without the patient's name, since clients take a single file."""
    with scratch_file(".nrrd") as file:
        write_volume(open_image(series), file)
    return FileResponse(file, filename=f"{id}.nrrd", background=BackgroundTask(file.unlink))


def _add(here: Service, name: str, upload: UploadFile, params: dict[str, Any]) -> str:
    store = here.application.datastore()
    if name in store.list_images():
        raise Conflict(f"there is an image {name} already", "store it under another id, or use the one that is there")
    if not ending(upload):
        raise WrongKind("the file's ending is none of an image", "send NIfTI, NRRD, DICOM, PNG, JPEG, TIFF or BMP")
    with scratch_folder() as folder:
        return str(store.add_image(name, str(keep(upload, folder / f"image{ending(upload)}")), params))
