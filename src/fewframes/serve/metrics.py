"""Count what a server does, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector


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
