"""GET /loop and GET /loop/thumbnail. Neither is kept by browsers, for they show patients' images."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from monailabel_app.gateway.loop.page import POLICY, render
from monailabel_app.gateway.service import service

_HEADERS = {**POLICY, "Cache-Control": "no-store"}


def page(request: Request) -> Response:
    """How labels, checkpoints and scores stand, as HTML; in a thread, since it may draw."""
    here = service(request)
    standing = here.succession.standing() if here.succession else {}
    figures = here.collector.figures(standing.get("trouble", ""))
    return Response(render(figures), media_type="text/html", headers=_HEADERS)


async def thumbnail(request: Request) -> Response:
    """The middle slice of one image, small."""
    promised = service(request).thumbnails.promised(request.query_params.get("image", ""))
    return Response(await asyncio.wrap_future(promised), media_type="image/jpeg", headers=_HEADERS)
