"""POST /infer/{model}: check, queue, answer; GET and DELETE /queue/{id}: where a question stands."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread
from requests_toolbelt import MultipartEncoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from monailabel_app.gateway.errors import Conflict, Refusal
from monailabel_app.gateway.lanes import Ticket
from monailabel_app.gateway.service import Service, service
from monailabel_app.gateway.tokens import Role
from monailabel_app.gateway.uploads import field, opened_form
from monailabel_app.gateway.validation import checked_output, checked_params, known_image, session_image
from monailabel_app.lib.dicom_output import dicom_seg, dicom_sr


@dataclass(frozen=True)
class Question:
    """One checked request to a model."""

    id: str
    who: str
    model: str
    image: str  # the id in the datastore; empty for a session
    path: str  # the image on this machine: a file, or a folder of DICOM files
    params: dict[str, Any]
    output: str


async def infer(request: Request) -> Response:
    """Answer a question, or segment a box; docs/http.md has the contract."""
    here = service(request)
    async with opened_form(request) as form:
        text = field(form, "params", "{}")
    question = await to_thread.run_sync(_checked, here, request, text, limiter=here.finding)
    ticket = here.lanes.submit(question.model, partial(_answer, here, question), question.id, question.who)
    answer = asyncio.wrap_future(ticket.future)
    gone = asyncio.create_task(_farewell(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not answer.done():  # the client has gone, or the server ends and waits no longer
            ticket.unwanted = True  # what has begun may end early; its answer is dropped
            answer.cancel()  # reaches the ticket: what has not begun never will
    if answer.cancelled():
        raise Conflict("the question was withdrawn", "ask again")
    return await answer


async def queue_state(request: Request) -> Response:
    """Say whether a question waits, runs or is done, how many are ahead of it, and for how long."""
    user = request.state.user
    id = request.path_params["id"]
    return JSONResponse(service(request).lanes.state(id, user.name, any_owner=user.role is Role.ADMIN))


async def withdraw(request: Request) -> Response:
    """Cancel a question that has not begun."""
    user = request.state.user
    service(request).lanes.withdraw(request.path_params["id"], user.name, any_owner=user.role is Role.ADMIN)
    return JSONResponse({})


def _checked(here: Service, request: Request, text: str) -> Question:
    model, query = request.path_params["model"], request.query_params
    here.known_model(model)
    output = checked_output(query.get("output") or "all")
    params = checked_params(model, text)
    image, session = query.get("image", ""), query.get("session_id", "")
    if session:
        image, path = "", session_image(here.application.sessions(), session)
    elif image:
        store = here.application.datastore()
        path = str(store.get_image_uri(known_image(store, image)))
    else:
        raise Refusal("the request names no image", "add ?image=ID, or ?session_id=ID after PUT /session/")
    if output.startswith("dicom") and (session or not Path(path).is_dir()):  # a series is a folder of its files
        raise Refusal("results in DICOM refer to a stored series, and this image is none", "use another output")
    id = request.headers.get("x-request-id") or uuid.uuid4().hex
    return Question(id, request.state.user.name, model, image, path, params, output)


async def _farewell(request: Request) -> None:
    """Return when the client has gone; its body has been read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(here: Service, question: Question, ticket: Ticket) -> Response:
    """Run the model and pack its answer; in the lane's thread."""
    wish = {"model": question.model, "image": question.path, "cancelled": lambda: ticket.unwanted, **question.params}
    result = here.application.infer(wish)
    mask, params = Path(result["file"]), result["params"]
    try:
        here.metrics.answered(question.model, ticket.waited, params)
        here.audit.write(
            "answer",
            question.who,
            request_id=question.id,
            model=question.model,
            image=question.image,
            asked=question.params,
            answer=params,
        )
        return _packed(question, here.application.datastore(), mask, params)
    finally:
        with suppress(FileNotFoundError):
            mask.unlink()


def _packed(question: Question, store: Any, mask: Path, params: dict[str, Any]) -> Response:
    """The reply in the wished form; errors as those of `dicom_seg`."""
    if question.output == "json":
        return JSONResponse(params)
    if question.output == "image":
        return _file(mask.read_bytes(), "application/octet-stream", mask.name)
    if question.output == "dicom_seg":
        content = dicom_seg(question.image, store, mask, params)
        # An absent target has no segmentation, and a file without segments is not valid DICOM.
        return Response(status_code=204) if content is None else _file(content, "application/dicom", "answer.dcm")
    if question.output == "dicom_sr":
        return _file(dicom_sr(question.image, store, mask, params), "application/dicom", "report.dcm")
    text = json.dumps(params, allow_nan=False)
    parts = MultipartEncoder(
        {
            "params": (None, text, "application/json"),
            "image": (mask.name, mask.read_bytes(), "application/octet-stream"),
        }
    )
    return Response(parts.to_string(), media_type=parts.content_type)


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
