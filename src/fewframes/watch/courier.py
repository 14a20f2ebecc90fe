"""Deliver the waiting events of one sink, in a thread of its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from fewframes.core.text import count_of, plain
from fewframes.watch.sinks.protocol import DeliveryError, Sink
from fewframes.watch.spool import Delivery, Spool, wait_s

POLL_S = 0.5
LONGEST_PAUSE_S = 30.0
"""The most seconds that all deliveries of a sink wait after a failure of one."""
MOST_ATTEMPTS = 1000
"""The attempts after which a delivery is given up. They take more than three days."""


@dataclass
class SinkCounts:
    """The counts of one sink."""

    delivered: int = 0
    failed: int = 0
    """Attempts that failed and were to be made again."""
    refused: int = 0
    """Deliveries that were given up, because another attempt made no sense."""


class Courier:
    """A thread that delivers the events of a sink, oldest first, until they are acknowledged."""

    def __init__(self, sink: Sink, spool: Spool, tell: Callable[[str], None]) -> None:
        """Begin to deliver.

        Args:
            sink: The sink. It is called by this thread only.
            spool: The waiting events.
            tell: Called with messages for the user: of the first failure, then of each tenth power, and of the end of failures.
        """
        self.sink, self.counts = sink, SinkCounts()
        self._spool, self._tell, self._lot = spool, tell, random.Random()
        self._stop = threading.Event()
        self._num_failures = 0
        """Failures since the last success."""
        self._thread = threading.Thread(target=self._run, name=f"events to {sink.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the attempt that it is making."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread. Return False if that takes longer than `timeout_s`."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            delivery = self._spool.next(self.sink.name, POLL_S)
            if delivery is not None:
                self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self.sink.send(delivery.event)
        except DeliveryError as error:
            if error.is_final or delivery.attempts + 1 >= MOST_ATTEMPTS:
                self._give_up(delivery, error)
            else:
                self._put_off(delivery, error)
            return
        self.counts.delivered += 1
        self._spool.done(delivery)
        if self._num_failures:
            self._tell(f"{self.sink.name}: works again after {count_of(self._num_failures, 'failure')}")
        self._num_failures = 0

    def _give_up(self, delivery: Delivery, error: DeliveryError) -> None:
        self.counts.refused += 1
        self._spool.done(delivery)
        event = delivery.event
        self._tell(f"{self.sink.name}: {error}; given up: {plain(event.label)} of {plain(event.source)}, {event.key}")

    def _put_off(self, delivery: Delivery, error: DeliveryError) -> None:
        self.counts.failed += 1
        self._num_failures += 1
        self._spool.failed(delivery, max(wait_s(delivery.attempts + 1, self._lot), error.after_s))
        if str(self._num_failures).strip("0") == "1":
            self._tell(f"{self.sink.name}: {error}; {count_of(self._num_failures, 'failure')}, it is tried again")
        self._stop.wait(max(min(wait_s(self._num_failures, self._lot), LONGEST_PAUSE_S), error.after_s))
