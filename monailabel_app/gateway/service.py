"""What all routes of one server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyio import CapacityLimiter
from starlette.requests import Request

from medreasoner.reasoner.champions import Champions, registry_folder
from monailabel_app.gateway.audit import AuditLog
from monailabel_app.gateway.errors import NotFound
from monailabel_app.gateway.gate import Doorkeeper
from monailabel_app.gateway.lanes import Lanes
from monailabel_app.gateway.loop.collecting import Collector
from monailabel_app.gateway.loop.thumbnails import Thumbnails
from monailabel_app.gateway.metrics import Metrics
from monailabel_app.lib.settings import Settings
from monailabel_app.lib.succession import Succession
from monailabel_app.lib.trainers.training import Training

_FINDING = 8  # at once: of the 40 threads that all requests share, most stay free


@dataclass(frozen=True)
class Service:
    """MONAI Label's application (models, images, sessions) and what the gateway keeps beside it."""

    application: Any  # monailabel.interfaces.app.MONAILabelApp
    settings: Settings
    doorkeeper: Doorkeeper
    lanes: Lanes
    metrics: Metrics
    audit: AuditLog
    collector: Collector
    thumbnails: Thumbnails
    finding: CapacityLimiter  # threads that look for a question's image, which an archive may send slowly

    @classmethod
    def around(cls, application: Any, settings: Settings, doorkeeper: Doorkeeper, audit: AuditLog) -> Service:
        """Put queues, metrics and what the page shows beside an application."""
        store, lanes = application.datastore(), Lanes(settings.queue_length)
        collector = Collector(store, Champions(registry_folder(settings.registry)))
        return cls(
            application,
            settings,
            doorkeeper,
            lanes,
            Metrics(lanes),
            audit,
            collector,
            Thumbnails(store),
            CapacityLimiter(_FINDING),
        )

    @property
    def models(self) -> frozenset[str]:
        """What can be asked, by name."""
        found: frozenset[str] = self.application.models
        return found

    @property
    def succession(self) -> Succession | None:
        """Which reasoner answers; None where it runs in another server."""
        found: Succession | None = self.application.succession
        return found

    @property
    def training(self) -> Training:
        """The one training of this server."""
        found: Training = self.application.training
        return found

    def quiet_seconds(self) -> float:
        """For how long no question has waited or run; 0 while one does, or a training runs on this machine."""
        return 0.0 if self.training.runs else self.lanes.quiet_seconds()

    def known_model(self, model: str) -> str:
        """Return the name of a model that is served; raises `NotFound` for others."""
        if model not in self.models:
            raise NotFound(f"there is no model {model[:60]!r}", f"use one of {', '.join(sorted(self.models))}")
        return model


def service(request: Request) -> Service:
    """The service that a request came to."""
    found: Service = request.app.state.gateway
    return found
