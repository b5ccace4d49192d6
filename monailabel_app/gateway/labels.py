"""/datastore/label: saved masks and what is known of each."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from medreasoner.contract.label import LabelRecord
from monailabel_app.gateway.errors import Refusal
from monailabel_app.gateway.images import without_paths
from monailabel_app.gateway.service import Service, service
from monailabel_app.gateway.uploads import check_label, field, files, keep, opened_form
from monailabel_app.gateway.validation import checked_tag, known_image, read_json_object
from monailabel_app.lib.scratch import scratch_folder

_PARAMS = {"label_info", "medreasoner", "client_id"}


async def save_label(request: Request) -> Response:
    """Save a mask and its record, from an annotator; 200 means that both are on the disk."""
    here = service(request)
    async with opened_form(request, max_files=1) as form:
        upload = files(form, "label")[0]
        params = _checked(field(form, "params", "{}") or "{}")
        return JSONResponse(await run_in_threadpool(_save, here, request, upload, params))


def label_file(request: Request) -> Response:
    """The label's file (GET), or whether there is one (HEAD); read at once, for a later save removes it."""
    name, content = service(request).application.datastore().label_content(*_named(request))
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def label_info(request: Request) -> Response:
    """What was saved beside a label: its record, names of segments, when."""
    store = service(request).application.datastore()
    return JSONResponse(without_paths(store.get_label_info(*_named(request))))


def remove_label(request: Request) -> Response:
    """Delete a label."""
    here, (image, tag) = service(request), _named(request, "id")
    store = here.application.datastore()
    store.get_label_uri(image, tag)  # says when there is none, before the audit log names it
    here.audit.write("removal", request.state.user.name, image=image, tag=tag)
    store.remove_label(image, tag)
    return JSONResponse({})


def _named(request: Request, name: str = "label") -> tuple[str, str]:
    """Image and tag that the query names; raises `NotFound` for an image that is not there, `Refusal` for no tag."""
    store, query = service(request).application.datastore(), request.query_params
    tag = checked_tag(query.get("tag", ""))
    return known_image(store, query.get(name) or query.get("image", "")), tag


def _checked(text: str) -> dict[str, Any]:
    params = read_json_object(text)
    unknown = sorted(params.keys() - _PARAMS)
    if unknown:
        raise Refusal(f"a label has no parameter {unknown[0][:60]!r}", f"known: {', '.join(sorted(_PARAMS))}")
    names = params.get("label_info", [])
    if not isinstance(names, list) or len(names) > 1000 or not all(isinstance(name, dict) for name in names):
        raise Refusal("label_info is no list of segments", 'send [{"name": "liver", "idx": 1}]')
    params.pop("client_id", None)
    return params


def _save(here: Service, request: Request, upload: UploadFile, params: dict[str, Any]) -> dict[str, Any]:
    store, who = here.application.datastore(), request.state.user.name
    image = known_image(store, request.query_params.get("image", ""))
    tag = checked_tag(request.query_params.get("tag") or "final")
    if "medreasoner" in params:
        record = LabelRecord.from_json(json.dumps(params["medreasoner"])).signed(who)
        params["medreasoner"] = json.loads(record.to_json())
    with scratch_folder() as folder:
        file = keep(upload, folder / f"label{check_label(upload)}")
        label = store.save_label(image, str(file), tag, {**params, "author": who})
    more = here.application.on_save_label(image, label) or {}
    here.audit.write("label", who, image=image, tag=tag, record=params.get("medreasoner"))
    return {**more, "image": image, "label": label}
