"""Count what a server does, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewframes.serve.tasks import CLIENT_GONE


class Metrics:
    """The metrics of one server, in a registry of its own: servers in one process do not count each other's requests."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("fewframes_requests", "Requests.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "fewframes_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            registry=registry,
        )
        self.refused = Counter("fewframes_videos_refused", "Videos without an answer.", ["status"], registry=registry)
        self.rounds = Histogram(
            "fewframes_round_frames",
            "Frames that were embedded together.",
            buckets=(1, 4, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.frames = Counter("fewframes_frames_embedded", "Frames embedded.", registry=registry)
        self.inside = Gauge(
            "fewframes_requests_inside", "Requests being answered, waiting or still coming.", registry=registry
        )
        self.waiting = Gauge("fewframes_requests_waiting", "Requests beyond the workers.", registry=registry)

    def round(self, num_frames: int) -> None:
        """Count a round of the batcher and its frames."""
        self.frames.inc(num_frames)
        self.rounds.observe(num_frames)


class RequestCounter:
    """A middleware that counts and times requests by their route, one of `routes`."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Collection[str]) -> None:
        self.app, self.metrics, self.routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, is_whole = time.perf_counter(), 500, False

        async def send_on(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, send_on)
            if not is_whole:  # without an error, only a client that goes away ends an answer early
                status = CLIENT_GONE
        finally:
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)
