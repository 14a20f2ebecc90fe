"""Show the counts of a watch to Prometheus: in a file for node_exporter, or on a port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewframes.errors import ConfigError, needed
from fewframes.inference.live.results import StreamSummary
from fewframes.watch.settings import MetricsSettings

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from fewframes.watch.watch import WatchCounts

EVERY_S = 15.0
"""The seconds between two writings of the file."""
SourceCounts = Mapping[str, tuple[StreamSummary, float]]
"""The counts of each source by its name, and the seconds since its last picture."""
COUNTERS: tuple[tuple[str, str, Callable[[StreamSummary], int]], ...] = (
    ("pictures", "Pictures that were decoded.", lambda summary: summary.num_pictures),
    ("left_out", "Pictures that were left out, late or damaged.", lambda summary: summary.num_left_out),
    ("bad_packets", "Packets that could not be decoded.", lambda summary: summary.num_bad_packets),
    ("dropped", "Frames that were dropped because the model was behind.", lambda summary: summary.num_dropped),
    ("reconnects", "Times that it was opened again.", lambda summary: summary.num_reconnects),
    ("answers", "Answers about it.", lambda summary: summary.num_predictions),
)
"""The counts of a source: the name, its description, and how it is read."""


class WatchMetrics:
    """The counts of a watch, as Prometheus reads them. They are asked for when somebody reads them."""

    def __init__(
        self,
        settings: MetricsSettings,
        counts: Callable[[], WatchCounts],
        sources: Callable[[], SourceCounts],
        tell: Callable[[str], None],
    ) -> None:
        """Begin to show counts.

        Args:
            settings: The file, and the port.
            counts: Returns the counts of events.
            sources: Returns the counts of each source, and the seconds since its last picture.
            tell: Called with messages for the user.

        Raises:
            ConfigError: The port is taken, or the file cannot be written.
            MissingDependency: prometheus-client is not installed.
        """
        prometheus = needed("prometheus_client", "serve", "metrics need prometheus-client")
        self._counts, self._sources, self._tell = counts, sources, tell
        self._registry = prometheus.CollectorRegistry()
        self._registry.register(self)
        self._write_file = prometheus.write_to_textfile
        self._path = Path(settings.file) if settings.file else None
        self._is_told = False
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server: Any = None
        if self._path is not None:
            try:
                self._write_file(str(self._path), self._registry)
            except OSError as error:
                raise ConfigError(
                    f"metrics {self._path}: cannot be written ({error.strerror or error}); take another"
                ) from None
            self._threads.append(threading.Thread(target=self._run, name="metrics", daemon=True))
            self._threads[-1].start()
        if settings.port is not None:
            try:
                self._server, thread = prometheus.start_http_server(settings.port, settings.host, self._registry)
            except OSError as error:
                self._stop.set()
                raise ConfigError(
                    f"metrics: {settings.host}:{settings.port} cannot be listened on ({error.strerror}); take another port"
                ) from None
            self._threads.append(thread)

    def collect(self) -> Iterator[Metric]:
        """Yield the counts, as a collector of prometheus-client does."""
        core = needed("prometheus_client.core", "serve")
        counts = self._counts()
        events = core.CounterMetricFamily(
            "fewframes_events", "Events that started.", labels=["source", "zone", "label"]
        )
        for key, number in counts.started.items():
            events.add_metric(key, number)
        yield events
        going = core.GaugeMetricFamily("fewframes_events_going_on", "Events that go on.")
        going.add_metric([], counts.num_going)
        yield going
        withdrawn = core.CounterMetricFamily(
            "fewframes_events_withdrawn", "Events that started and were none after all."
        )
        withdrawn.add_metric([], counts.num_withdrawn)
        yield withdrawn
        deliveries = core.CounterMetricFamily(
            "fewframes_event_deliveries", "Attempts to deliver an event.", labels=["sink", "result"]
        )
        waiting = core.GaugeMetricFamily("fewframes_event_deliveries_waiting", "Deliveries that wait.", labels=["sink"])
        for sink, each in counts.sinks.items():
            for result, number in (("delivered", each.delivered), ("failed", each.failed), ("refused", each.refused)):
                deliveries.add_metric([sink, result], number)
            deliveries.add_metric([sink, "dropped"], counts.dropped.get(sink, 0))
            waiting.add_metric([sink], counts.waiting.get(sink, 0))
        yield deliveries
        yield waiting
        behind = core.GaugeMetricFamily(
            "fewframes_event_spool_behind", "1 while the spool's disk cannot be written to."
        )
        behind.add_metric([], counts.is_behind)
        yield behind
        yield from self._of_sources(core)

    def _of_sources(self, core: Any) -> Iterator[Metric]:
        """Yield the counts of each source that is watched."""
        found = self._sources()
        for name, about, value in COUNTERS:
            counter = core.CounterMetricFamily(f"fewframes_source_{name}", about, labels=["source"])
            for source, (summary, _) in found.items():
                counter.add_metric([source], value(summary))
            yield counter
        happened = core.CounterMetricFamily(
            "fewframes_source_events",
            "What happened to a source: cut, stall, reconnected ...",
            labels=["source", "kind"],
        )
        latency = core.GaugeMetricFamily(
            "fewframes_source_latency_seconds", "The latency of its answers.", labels=["source", "quantile"]
        )
        silent = core.GaugeMetricFamily(
            "fewframes_source_silent_seconds", "Seconds since its last picture came.", labels=["source"]
        )
        for source, (summary, silent_s) in found.items():
            for kind, number in summary.events.items():
                happened.add_metric([source, kind], number)
            quantiles = (
                ("0.5", summary.latency_p50_s),
                ("0.95", summary.latency_p95_s),
                ("0.99", summary.latency_p99_s),
            )
            for quantile, seconds in quantiles:
                if seconds is not None:
                    latency.add_metric([source, quantile], seconds)
            silent.add_metric([source], silent_s)
        yield from (happened, latency, silent)

    def close(self) -> None:
        """Write the file a last time, and release the port."""
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        for thread in self._threads:
            thread.join()
        if self._path is not None:
            self._write()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._write()

    def _write(self) -> None:
        """Write the file. The first failure in a row is told."""
        try:
            self._write_file(str(self._path), self._registry)
        except OSError as error:
            if not self._is_told:
                self._tell(f"metrics {self._path}: cannot be written ({error.strerror or error}); it is tried again")
            self._is_told = True
            return
        self._is_told = False
