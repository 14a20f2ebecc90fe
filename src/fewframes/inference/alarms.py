"""Raise alarms in a stream of scores: one for each happening, above a threshold that keeps a promised rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.errors import ConfigError
from fewframes.inference.promise import AlarmPromise, check_rate
from fewframes.results import Floats, background_labels
from fewframes.runtime.protocol import Runtime
from fewframes.video.live_settings import StreamConfig

STORED = "alarms"
"""The key of a model's provenance under which its promise stands."""
HELD_SETTINGS = ("window_s", "every_s", "smooth_s", "enter", "alarm_gap_s", "still")
"""The settings of a stream that a promise holds for."""


@dataclass(frozen=True)
class Alarm:
    """An alarm: an action that began to happen, raised with the first answer above the threshold."""

    number: int
    """The number of the alarm in this stream, from 1 on."""
    label: str
    """The action."""
    score: float
    """Its smoothed score (0-1)."""
    time_s: float
    """The end of the window that raised it, in seconds on the stream's clock."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "number": self.number,
            "label": self.label,
            "score": round(self.score, 6),
            "time_s": round(self.time_s, 3),
        }


class AlarmRaiser:
    """The alarms of a stream. Answers above the threshold that lie at most `alarm_gap_s` apart are one alarm, the first of them.

    Answers that are unknown raise none, but belong to the same happening. So there are never more alarms than were promised.
    """

    def __init__(
        self, promise: AlarmPromise, labels: Sequence[str], task: Task, only: Sequence[str] | None = None
    ) -> None:
        """Begin a stream.

        Args:
            promise: The threshold, and the settings that it holds for.
            labels: The names of the K actions.
            task: The kind of labels.
            only: The actions that raise alarms; None is all. With fewer, there are never more alarms than were promised.
        """
        self.count = 0
        self._threshold, self._gap_s = promise.overall.threshold, promise.alarm_gap_s
        self._labels, self._task, self._wanted_K = labels, task, is_action(labels)
        if only is not None:
            self._wanted_K &= np.array([label in only for label in labels])
        self._last_s: float | None = None
        self._is_raised = False

    def step(self, smoothed_K: Floats, time_s: float, *, is_known: bool = True) -> Alarm | None:
        """Take the smoothed scores (K,) of a time, and return the alarm that they raise, if any.

        Args:
            smoothed_K: the smoothed scores.
            time_s: the end of the window.
            is_known: False if the answer is that the window shows none of the actions.
        """
        (score,), (action,) = answers_of(smoothed_K[None], self._wanted_K, self._task)
        if not score > self._threshold:
            return None
        goes_on = self._last_s is not None and time_s - self._last_s <= self._gap_s
        self._last_s = time_s
        self._is_raised &= goes_on
        if self._is_raised or not is_known:
            return None
        self._is_raised = True
        self.count += 1
        return Alarm(self.count, self._labels[action], float(score), time_s)


def is_action(labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return a mark (K,) for each label: False if it stands for none of the actions."""
    nothing = background_labels(labels)
    return np.array([label not in nothing for label in labels])


def answers_of(
    scores_NK: Floats, wanted_K: NDArray[np.bool_], task: Task
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the score (N,) of each answer and the index (N,) of its action. The score is 0 if the answer is none of the actions.

    With several labels the answer is the likeliest action, whatever the score of background is.
    """
    only_NK = np.where(wanted_K, scores_NK, np.float32(0)) if task == "multilabel" else scores_NK
    actions_N = only_NK.argmax(axis=1)
    scores_N = np.take_along_axis(only_NK, actions_N[:, None], axis=1)[:, 0]
    return np.where(wanted_K[actions_N], scores_N, 0).astype(np.float64), actions_N.astype(np.int64)


def stored_promise(runtime: Runtime, alarms_per_day: float) -> AlarmPromise:
    """Return the promise in a model, if it is one of so few alarms a day. Raises ConfigError if it is not, or if there is none."""
    check_rate(alarms_per_day)
    remedy = "name uneventful footage with --background"
    values = runtime.provenance.get(STORED)
    if values is None:
        raise ConfigError(
            f"{runtime.name}: holds no promise of alarms, so {alarms_per_day:g} a day need a threshold of their own; {remedy}, or "
            "train with --background and --alarms-per-day"
        )
    if not isinstance(values, dict):
        raise ConfigError(f"{runtime.name}: its promise of alarms is damaged ({type(values).__name__}); {remedy}")
    promise = AlarmPromise.from_dict(values, f"{runtime.name}: its promise of alarms")
    if promise.alarms_per_day > alarms_per_day:
        raise ConfigError(
            f"{runtime.name}: promises {promise.alarms_per_day:g} alarms a day, and {alarms_per_day:g} are asked for; {remedy}"
        )
    return promise


def check_promise(promise: AlarmPromise, runtime: Runtime, config: StreamConfig) -> None:
    """Raise ConfigError if a promise does not hold for this stream, or if nothing would ever be reported."""
    differing = [
        f"{name} {getattr(config, name)} instead of {getattr(promise, name)}"
        for name in HELD_SETTINGS
        if getattr(config, name) != getattr(promise, name)
    ]
    if differing:
        raise ConfigError(
            f"the promise of alarms does not hold for {', '.join(differing)}; leave that as it is, or name footage with "
            "--background"
        )
    if config.memory != "window":
        raise ConfigError(
            f"the promise of alarms was made with windows, not with memory {config.memory!r}; leave that out, or make events by "
            "rules"
        )
    actions = {label for label, wanted in zip(runtime.labels, is_action(runtime.labels), strict=True) if wanted}
    if actions != promise.actions.keys():
        raise ConfigError(
            f"{runtime.name}: the promise of alarms is about {', '.join(sorted(promise.actions)) or 'no action'}, and the model "
            f"has {', '.join(sorted(actions)) or 'no action'}; make one for this model"
        )
    if promise.is_silent:
        raise ConfigError(f"nothing would ever be reported: {promise.full_of_actions()}")
