"""Learn in a thread of its own, always from the newest labels, and publish each result whole."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from fewframes.errors import OutputError
from fewframes.label.journal import Journal, Labels
from fewframes.label.learner import NOTHING, Learned, Learner
from fewframes.label.values import CurvePoint, Segment

log = logging.getLogger("fewframes")

FORECAST_AFTER_S = 1.0
"""The seconds without a new label after which the forecast is made, which takes longer than learning."""


class LearningThread:
    """A thread that learns. While it works, newer labels replace those that wait, so it never falls behind.

    Args:
        learner: The learner; it is used by this thread alone.
        journal: The journal, into which the accuracy is written as it grows.
        lock: The lock of the session, held while a result is published.
        prepare: Called with the segments and the result before it is published.
        changed: Called when there is a new result.
    """

    def __init__(
        self,
        learner: Learner,
        journal: Journal,
        lock: threading.RLock,
        prepare: Callable[[Sequence[Segment], Learned], None],
        changed: Callable[[], None],
    ) -> None:
        self.result: Learned = NOTHING
        self.forecast = ""
        self._learner, self._journal, self._prepare, self._changed_outside = learner, journal, prepare, changed
        self._condition = threading.Condition(lock)
        self._waiting: Labels | None = None
        self._is_busy = self._is_stopped = False
        self._failure: BaseException | None = None

    def learn(self, labels: Labels) -> None:
        """Learn from these labels as soon as the thread is free."""
        with self._condition:
            self._waiting = labels
            self._condition.notify_all()

    def stop(self) -> None:
        """End the thread after what it does now."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()

    def wait(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition holds and nothing is left to learn. Return False if that takes longer than the timeout.

        An error of the thread is raised here.
        """
        ends = time.monotonic() + timeout_s
        with self._condition:
            while not (holds() and self._waiting is None and not self._is_busy):
                if self._failure is not None:
                    raise self._failure
                if time.monotonic() > ends:
                    return False
                self._condition.wait(0.05)
        return True

    def curve(self) -> tuple[CurvePoint, ...]:
        """Return the accuracies that were measured so far, the last one for each number of segments."""
        found: dict[int, float] = {}
        for entry in self._journal.entries:
            if entry.kind == "measure":
                found[int(entry.values["num_segments"])] = float(entry.values["accuracy"])
        return tuple(CurvePoint(number, accuracy) for number, accuracy in sorted(found.items()))

    def run(self) -> None:
        """Learn until `stop` is called."""
        try:
            last: Labels | None = None
            while True:
                labels = self._next(FORECAST_AFTER_S if last is not None else None)
                if self._is_stopped:
                    return
                if labels is None and last is not None:
                    self._make_forecast(last)
                    last = None
                elif labels is not None:
                    self._learn(labels)
                    last = labels
        except BaseException as error:
            with self._condition:
                self._failure, self._is_busy = error, False
                self._condition.notify_all()
            raise

    def _next(self, timeout_s: float | None) -> Labels | None:
        """Return the labels that wait; None if none come within the timeout, or if the thread must end."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_stopped or self._waiting is not None, timeout_s)
            labels, self._waiting = self._waiting, None
            self._is_busy = labels is not None and not self._is_stopped
            return labels

    def _learn(self, labels: Labels) -> None:
        result = self._learner.learn(labels.agreed())
        self._prepare(labels.segments, result)
        with self._condition:
            self.result = result
            if result.accuracy is not None:
                point = CurvePoint(len(result.left_out), round(result.accuracy.value, 4))
                if point not in self.curve():
                    self._keep(point)
            self._is_busy = False
            self._changed_outside()
            self._condition.notify_all()

    def _keep(self, point: CurvePoint) -> None:
        """Write a point of the learning curve. A full disk must not end the learning: the labels themselves say so."""
        try:
            self._journal.append("measure", "", num_segments=point.num_segments, accuracy=point.accuracy)
        except OutputError as error:
            log.warning("the learning curve lacks a point: %s", error)

    def _make_forecast(self, labels: Labels) -> None:
        words = str(self._learner.forecast(labels.agreed()))
        with self._condition:
            if words != self.forecast:
                self.forecast = words
                self._changed_outside()
