"""What the server says of itself, signing in, the next image to label, and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from monailabel_app.gateway.errors import NotFound, without_folders
from monailabel_app.gateway.service import service
from monailabel_app.gateway.tokens import Role
from monailabel_app.gateway.uploads import field, opened_form
from monailabel_app.gateway.validation import read_json_object


async def healthz(_: Request) -> Response:
    """The process is alive and its event loop turns."""
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> Response:
    """Questions can be answered: the models are loaded (else nothing listens yet) and the studies folder is there.

    An archive is not asked: anyone may call this, as often as they like.
    """
    here = service(request)
    studies = str(here.application.studies)
    ready = "://" in studies or Path(studies).is_dir()
    body = {"ready": ready, "models": sorted(here.models), "waiting": here.lanes.lengths()}
    if here.succession is not None:
        here.succession.look()  # who watches the server lets it notice a new champion while nobody asks
        body["reasoner"] = here.succession.standing()
    return JSONResponse(body if ready else {**body, "detail": "the studies folder is gone"}, 200 if ready else 503)


def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    return Response(service(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def info(request: Request) -> Response:
    """MONAI Label's description: models, their options, the datastore."""
    return JSONResponse(service(request).application.info())


def auth(request: Request) -> Response:
    """Whether somebody has to sign in; MONAI Label's clients ask before every call."""
    return JSONResponse({"enabled": service(request).doorkeeper.asks_for_tokens, "client_id": "", "realm": ""})


async def sign_in(request: Request) -> Response:
    """For MONAI Label's plug-in, which has fields for a name and a password: the password is the token."""
    async with opened_form(request) as form:
        token = field(form, "password", "")
    client = request.client.host if request.client else None
    await run_in_threadpool(service(request).doorkeeper.user_of, f"Bearer {token}", client)
    return JSONResponse({"access_token": token, "token_type": "Bearer"})


def who_am_i(request: Request) -> Response:
    """The user whom the token names."""
    user = request.state.user
    return JSONResponse({"username": user.name, "roles": [user.role.name.lower()]})


async def next_sample(request: Request) -> Response:
    """The next image to label, by a strategy's choice; the path in it is the file's name alone."""
    params = read_json_object((await request.body()).decode("utf-8", "replace") or "{}")
    return JSONResponse(await run_in_threadpool(_next, request, request.path_params["strategy"], params))


def _next(request: Request, strategy: str, params: dict[str, Any]) -> dict[str, Any]:
    """As MONAI Label's own does, less its look through all images and labels for settings that are not there."""
    application, who = service(request).application, request.state.user.name
    if strategy not in application.strategies:
        known = ", ".join(sorted(application.strategies))
        raise NotFound(f"there is no strategy {strategy[:60]!r}", f"use one of {known}")
    found = application.next_sample({"strategy": strategy, "client_id": str(params.get("client_id") or who)[:64]})
    if not found:
        return {}
    info = application.datastore().get_image_info(found["id"])
    return {**info, **found, "path": Path(found["path"]).name}


def training(request: Request) -> Response:
    """How the training goes; 404 while none runs, if ``check_if_running``.

    An administrator sees its log too, and in its message the folders of this machine.
    """
    task = service(request).training
    if request.query_params.get("check_if_running", "false").lower() == "true" and not task.runs:
        raise NotFound("no training runs", "start one: POST /train/medreasoner")
    is_admin = request.state.user.role >= Role.ADMIN
    report = task.report(is_admin)
    if not is_admin:
        report["training"] = {**report["training"], "message": without_folders(report["training"]["message"])}
    return JSONResponse(report)


async def start_training(request: Request) -> Response:
    """Start the training of one model, in a process of its own, or go on with one that was not over."""
    params = read_json_object((await request.body()).decode("utf-8", "replace") or "{}")
    return JSONResponse(await run_in_threadpool(_start, request, request.path_params["model"], params))


def _start(request: Request, model: str, params: dict[str, Any]) -> Any:
    here = service(request)
    known = here.application.trainers
    if model not in known:
        raise NotFound(f"there is no training {model[:60]!r}", f"known: {', '.join(sorted(known)) or 'none'}")
    report = here.application.train({**params, "model": model})
    here.audit.write("training", request.state.user.name, wish="start")
    return report


def stop_training(request: Request) -> Response:
    """Let what runs save and stop."""
    here = service(request)
    here.audit.write("training", request.state.user.name, wish="stop")
    return JSONResponse(here.training.stop())
