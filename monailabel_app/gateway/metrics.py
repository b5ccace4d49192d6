"""What Prometheus reads: seconds by stage, queue lengths, failures by kind, how often a target is absent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from monailabel_app.gateway.lanes import Lanes

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_STAGES = {"wait", "reason", "encode", "segment", "propagate", "total"}  # few and fixed: each is a series of its own


class Metrics:
    """Counters and histograms of one server. No label of theirs ever holds a question, a name or an image's id."""

    def __init__(self, lanes: Lanes) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Queues(lanes))
        self._stages = Histogram(
            "medreasoner_stage_seconds",
            "Seconds that one stage of an answer took",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._answers = Counter(
            "medreasoner_answers", "Answers given", ["model", "absent"], registry=self.registry
        )  # the absent rate is answers{absent="true"} over all answers
        self._failures = Counter("medreasoner_failures", "Requests refused or failed", ["kind"], registry=self.registry)

    def answered(self, model: str, waited: float, params: dict[str, Any]) -> None:
        """Count one answer; `params` are the reply's, with ``timings`` in seconds."""
        self._stages.labels(model, "wait").observe(waited)
        for stage, seconds in params.get("timings", {}).items():
            if stage in _STAGES:
                self._stages.labels(model, stage).observe(seconds)
        self._answers.labels(model, str(bool(params.get("absent"))).lower()).inc()

    def failed(self, kind: str) -> None:
        """Count one refusal or failure by the kind that its reply names."""
        self._failures.labels(kind).inc()

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)


class _Queues(Collector):
    """Asked at each scrape, so nothing has to be kept up to date."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("medreasoner_waiting", "Questions that wait for a model", labels=["model"])
        for model, waiting in self._lanes.lengths().items():
            family.add_metric([model], waiting)
        yield family
