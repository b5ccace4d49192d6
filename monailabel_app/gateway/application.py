"""The ASGI application: every address that is served, who may call it, and how much it takes.

`monailabel start_server --app monailabel_app --studies FOLDER --uvicorn_app monailabel_app.gateway.application:app`

What is not listed here does not exist: MONAI Label's own addresses for replacing or fetching model files, reloading,
reading logs, proxying and batches are left out.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from monailabel.config import settings as monai_label
from monailabel.interfaces.utils.app import app_instance
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from monailabel_app.gateway import asking, images, information, labels, models, sessions
from monailabel_app.gateway.audit import AuditLog
from monailabel_app.gateway.errors import EXPECTED, UnexpectedErrors
from monailabel_app.gateway.gate import Doorkeeper, Gate
from monailabel_app.gateway.limits import MB, BodyLimit
from monailabel_app.gateway.loop import routes as loop
from monailabel_app.gateway.service import Service
from monailabel_app.gateway.tokens import Role
from monailabel_app.lib.activelearning.idle import IdleScoring
from monailabel_app.lib.settings import Settings

_FORM = 2 * MB  # bytes of a request that carries no file


def _routes(settings: Settings) -> list[Route]:
    upload = settings.upload_limit * MB + _FORM

    def on(
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        role: Role | None,
        size: int = _FORM,
        is_page: bool = False,
    ) -> Route:
        guards = [Middleware(BodyLimit, size=size, silence=settings.body_wait)]
        if role is not None:
            guards.insert(0, Middleware(Gate, role=role, is_page=is_page))
        return Route(path, endpoint, methods=[method], middleware=guards)

    reader, annotator, admin = Role.READER, Role.ANNOTATOR, Role.ADMIN
    return [
        on("GET", "/healthz", information.healthz, None),
        on("GET", "/readyz", information.readyz, None),
        on("GET", "/auth/", information.auth, None),
        on("POST", "/auth/token", information.sign_in, None),
        on("GET", "/auth/token/valid", information.who_am_i, reader),
        on("GET", "/metrics", information.metrics, reader),
        on("GET", "/info/", information.info, reader),
        on("POST", "/infer/{model}", asking.infer, reader),
        on("GET", "/queue/{id}", asking.queue_state, reader),
        on("DELETE", "/queue/{id}", asking.withdraw, reader),
        on("PUT", "/session/", sessions.create_session, reader, upload),
        on("GET", "/session/{id}", sessions.get_session, reader),
        on("DELETE", "/session/{id}", sessions.remove_session, reader),
        on("POST", "/activelearning/{strategy}", information.next_sample, reader),
        on("GET", "/datastore/", images.overview, reader),
        on("GET", "/datastore/image", images.image_file, reader),  # Starlette answers HEAD too
        on("GET", "/datastore/image/info", images.image_info, reader),
        on("PUT", "/datastore/", images.add_image, annotator, upload),  # where MONAI Label's client sends it
        on("PUT", "/datastore/image", images.add_image, annotator, upload),
        on("DELETE", "/datastore/image", images.remove_image, admin),
        on("GET", "/datastore/label", labels.label_file, reader),
        on("GET", "/datastore/label/info", labels.label_info, reader),
        on("PUT", "/datastore/label", labels.save_label, annotator, upload),
        on("DELETE", "/datastore/label", labels.remove_label, admin),
        on("GET", "/models", models.overview, admin),
        on("POST", "/models/rollback", models.roll_back, admin),
        on("POST", "/models/{number}/publish", models.publish, admin),
        on("GET", "/train/", information.training, reader),
        on("POST", "/train/{model}", information.start_training, admin),
        on("DELETE", "/train/", information.stop_training, admin),
        on("GET", "/loop", loop.page, reader, is_page=True),
        on("GET", "/loop/thumbnail", loop.thumbnail, reader, is_page=True),
    ]


def build(open_application: Callable[[], Any], settings: Settings) -> Starlette:
    """Make the ASGI application around what `open_application` returns, which is called once, at the start.

    Raises:
        SettingsError: the token file or the audit log cannot be used.
    """
    doorkeeper, audit = Doorkeeper(settings), AuditLog(settings.audit_log)  # before the models, which take long

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # MONAI Label logs whole requests, questions and file names among them; its warnings are enough.
        logging.getLogger("monailabel").setLevel(logging.WARNING)
        monai_label.MONAI_LABEL_AUTO_UPDATE_SCORING = False  # it would start a second server for every next sample
        application = open_application()
        here = app.state.gateway = Service.around(application, settings, doorkeeper, audit)
        application.server_mode(True)
        application.on_init_complete()
        scoring = None
        if settings.scoring:
            scoring = IdleScoring(application.scores, application.datastore(), here.quiet_seconds)
            scoring.start()
        yield
        if scoring is not None:
            await run_in_threadpool(scoring.close)
        await run_in_threadpool(here.lanes.close)
        await run_in_threadpool(here.thumbnails.close)
        await run_in_threadpool(application.datastore().close)

    middleware = [Middleware(UnexpectedErrors)]
    if settings.cors_origins:
        allowed = {"allow_methods": ["GET", "HEAD", "POST", "PUT", "DELETE"], "expose_headers": ["Retry-After"]}
        headers = ["Authorization", "Content-Type", "X-Request-ID"]
        origins = list(settings.cors_origins)
        middleware.insert(0, Middleware(CORSMiddleware, allow_origins=origins, allow_headers=headers, **allowed))
    return Starlette(routes=_routes(settings), middleware=middleware, exception_handlers=EXPECTED, lifespan=lifespan)


app = build(app_instance, Settings.load(monai_label.MONAI_LABEL_APP_CONF))
