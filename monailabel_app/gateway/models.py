"""/models: the reasoner in service, the checkpoints trained here, and stepping between them."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from medreasoner.reasoner.champions import SHIPPED
from monailabel_app.gateway.errors import Conflict, NotFound
from monailabel_app.gateway.service import Service, service
from monailabel_app.lib.succession import Succession


def overview(request: Request) -> Response:
    """What answers now, what shall answer, and the lineage of every checkpoint."""
    return JSONResponse(_overview(_succession(service(request))))


def publish(request: Request) -> Response:
    """Put a checkpoint in service, whatever the rule said of it; 0 is the reasoner as shipped."""
    here, wished = service(request), request.path_params["number"]
    champions = _succession(here).champions
    known = {str(number): number for number in (SHIPPED, *(lineage.number for lineage in champions.entries()))}
    if wished not in known:
        raise NotFound(f"there is no checkpoint {wished[:20]!r}", f"there are {', '.join(known)}")
    champions.publish(known[wished])
    return _changed(request, here, known[wished])


def roll_back(request: Request) -> Response:
    """Put the one before in service again."""
    here = service(request)
    champions = _succession(here).champions
    if not champions.history():
        raise Conflict("the reasoner as shipped is in service", "there is nothing to roll back to")
    return _changed(request, here, champions.rollback())


def _succession(here: Service) -> Succession:
    if here.succession is None:
        raise Conflict("the reasoner runs in another server", "publish checkpoints there")
    return here.succession


def _changed(request: Request, here: Service, number: int) -> Response:
    here.audit.write("champion", request.state.user.name, number=number)
    return JSONResponse(_overview(_succession(here)))


def _overview(succession: Succession) -> dict[str, Any]:
    succession.look()
    champions = succession.champions
    return {
        "in_service": succession.standing(),
        "champion": champions.number(),
        "history": champions.history(),
        "models": [json.loads(lineage.to_json()) for lineage in champions.entries()],
    }
