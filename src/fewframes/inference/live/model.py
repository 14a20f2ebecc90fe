"""A model of a stream: a ring of the last frame embeddings, smoothed scores, a label with hysteresis, and alarms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import ConfigError, nearest
from fewframes.inference.alarms import Alarm, AlarmRaiser, check_promise
from fewframes.inference.live.spans import LiveSpan, LiveSpans
from fewframes.inference.promise import AlarmPromise
from fewframes.inference.unknowns import UnknownRule
from fewframes.results import UNKNOWN, Familiarity, is_background
from fewframes.runtime.protocol import CachesMotion, Floats, KeepsState, Runtime, WindowEncoding, scores_of
from fewframes.video.live_settings import StreamConfig

MotionCache = Callable[[Floats, Floats], Floats | None]
"""A function of two embeddings (D,), the earlier first, that returns what `CachesMotion.motion_cache` does."""


class Smoother:
    """An exponential mean of scores over time with a time constant, and a label with hysteresis."""

    def __init__(self, smooth_s: float, enter: float, leave: float, wanted_K: NDArray[np.bool_] | None = None) -> None:
        """Begin. `wanted_K` are the classes that can become the label; None is all."""
        self._smooth_s, self._enter, self._leave, self._wanted_K = smooth_s, enter, leave, wanted_K
        self._smoothed_K: Floats | None = None
        self._time_s = 0.0
        self.choice: int | None = None
        """Index of the label. A class becomes it when it is the likeliest and its smoothed score reaches `enter`; it stays until
        another class does so, or its own score falls below `leave`.
        """

    def step(self, scores_K: Floats, time_s: float) -> Floats:
        """Add the scores (K,) of a time and return the smoothed scores (K,)."""
        if self._smoothed_K is None or self._smooth_s == 0:
            self._smoothed_K = scores_K
        else:
            old = math.exp(-(time_s - self._time_s) / self._smooth_s)  # the weight of all scores before
            self._smoothed_K = np.float32(old) * self._smoothed_K + np.float32(1 - old) * scores_K
        self._time_s = time_s
        wanted_K = self._smoothed_K if self._wanted_K is None else np.where(self._wanted_K, self._smoothed_K, -1)
        best = int(wanted_K.argmax())
        if float(self._smoothed_K[best]) >= self._enter:
            self.choice = best
        elif self.choice is not None and float(self._smoothed_K[self.choice]) < self._leave:
            self.choice = None
        return self._smoothed_K


class EmbeddingRing:
    """The embeddings of the last T timestamps, oldest first: `embeddings_TD`. `cached_T2W` is the cached part of each motion token.

    A timestamp that was dropped repeats the embedding before it.
    """

    def __init__(self, size: int, motion_cache: MotionCache | None = None) -> None:
        self._size, self._motion_cache = size, motion_cache
        self.index = -1
        """Index of the newest timestamp."""
        self.embeddings_TD: Floats = np.empty((0, 0), np.float32)
        self.cached_T2W: Floats | None = None

    def push(self, index: int, embedding_D: Floats) -> None:
        """Add the embedding of a timestamp that is later than all before."""
        num_missing = min(index - self.index - 1, self._size) if len(self.embeddings_TD) else 0
        before_D = self.embeddings_TD[-1] if len(self.embeddings_TD) else embedding_D
        for shown_D in (*[before_D] * num_missing, embedding_D):
            cached_2W = None if self._motion_cache is None else self._motion_cache(before_D, shown_D)
            self.embeddings_TD = self._pushed(self.embeddings_TD, shown_D)
            if cached_2W is not None:
                self.cached_T2W = self._pushed(
                    np.empty(0, np.float32) if self.cached_T2W is None else self.cached_T2W, cached_2W
                )
            before_D = shown_D
        self.index = index

    def _pushed(self, row: Floats, new: Floats) -> Floats:
        return np.concatenate([row, new[None]])[-self._size :] if len(row) else new[None]


Judged = list[tuple[WindowEncoding, Familiarity | None]]
"""The encoding of a window by each model, and its judgement whether the window shows one of its actions."""
Judge = Callable[[EmbeddingRing], Judged]
"""A function that returns what all models of a stream say of the newest window."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer of a model about a window."""

    scores: Floats
    """The scores (K,)."""
    smoothed: Floats
    """Their mean over earlier answers (K,)."""
    label: str | None
    """The action with hysteresis; None while none is certain."""
    is_known: bool
    """False while the last seconds seem to show none of the actions."""
    familiarity: Familiarity | None
    """The judgement whether the window shows one of the actions."""
    alarm: Alarm | None
    """The alarm that this answer raises."""
    spans: tuple[LiveSpan, ...] | None
    """The actions that the detector has told since the answer before; None without a detector."""


def told_labels(runtime: Runtime, config: StreamConfig) -> frozenset[str]:
    """Return the labels that are told. Raises ConfigError for one that the model does not have."""
    actions = frozenset(label for label in runtime.labels if not is_background(label))
    for label in config.only or ():
        if label not in actions:
            raise ConfigError(f"{runtime.name} has no action {label!r}; {nearest(label, actions)}")
    return actions if config.only is None else frozenset(config.only)


def live_spans(runtime: Runtime, config: StreamConfig) -> LiveSpans | None:
    """Return what detects actions in a stream by the model's detector, if it is to. Raises ConfigError if there is none."""
    if config.spans == "learned" and runtime.boundaries is None:
        raise ConfigError(
            f"{runtime.name} has no detector; train one with its model (fewframes train DATA --boundaries), or take spans 'auto'"
        )
    if config.spans == "off" or runtime.boundaries is None:
        return None
    return LiveSpans(runtime, runtime.boundaries, config.window_s / runtime.num_frames)


class StateKeeper:
    """The state of a recurrent model in a stream: one step for each timestamp, and the same size however long the stream is."""

    def __init__(self, runtime: Runtime) -> None:
        """Begin. Raises ConfigError if the model keeps no state, or if what runs it cannot."""
        config = runtime.config
        if config is None or config.temporal != "recurrent":
            style = "an exported file" if config is None else f"a model of temporal {config.temporal!r}"
            raise ConfigError(
                f"memory 'state': {runtime.name} is {style} and keeps no state of a stream; take memory 'window', or a model of "
                "temporal 'recurrent'"
            )
        if not isinstance(runtime, KeepsState):
            raise ConfigError(
                f"memory 'state': {runtime.kind} runs whole windows of {runtime.name}; take memory 'window', or runtime 'torch'"
            )
        self._runtime = runtime
        self._most_missing = runtime.num_frames
        self.restart()

    def restart(self) -> None:
        """Forget all frames."""
        self._state: Any = None
        self._index, self._last_D = -1, np.empty(0, np.float32)
        self.encoded: WindowEncoding | None = None
        """The encoding of all frames so far; None before the first."""

    def push(self, index: int, embedding_D: Floats) -> None:
        """Add the embedding of a timestamp. One that was dropped repeats the embedding before it, as in `EmbeddingRing`."""
        num_missing = 0 if self._state is None else min(index - self._index - 1, self._most_missing)
        for shown_D in (*[self._last_D] * num_missing, embedding_D):
            self.encoded, self._state = self._runtime.step(shown_D, self._state)
        self._index, self._last_D = index, embedding_D


class StreamModel:
    """A model of a stream, with all that depends on its answers before: smoothed scores, the label and the alarms."""

    def __init__(
        self,
        runtime: Runtime,
        config: StreamConfig,
        unknown: UnknownRule | None = None,
        promise: AlarmPromise | None = None,
        name: str = "",
    ) -> None:
        """Prepare a model for a stream.

        Args:
            runtime: The model.
            config: Settings of the stream.
            unknown: The rule for windows that show none of its actions.
            promise: The promise of false alarms, if it is to raise alarms.
            name: Its name in answers; empty where it is the only one.

        Raises:
            ConfigError: The model has no embeddings of single frames, the promise does not hold for these settings, or the model
                keeps no state and is to answer by one.
        """
        if not runtime.embeds_frames:
            raise ConfigError(
                f"a stream needs embeddings of single frames, and {runtime.name} mixes frames inside its encoder; use a model "
                "of the 'factorised' layout"
            )
        self.keeper = StateKeeper(runtime) if config.memory == "state" else None
        if promise is not None:
            check_promise(promise, runtime, config)
        self.runtime, self.promise, self.name = runtime, promise, name
        self.raiser = None if promise is None else AlarmRaiser(promise, runtime.labels, runtime.task, config.only)
        self._config, self._unknown = config, unknown
        self._told_labels = told_labels(runtime, config)
        self._spans = live_spans(runtime, config)
        self._told: list[LiveSpan] = []
        self.restart()

    def restart(self) -> None:
        """Forget the answers before: a new stretch of the source begins."""
        if self._spans is not None:
            self._told += self._spans.restart()
        if self.keeper is not None:
            self.keeper.restart()
        config, threshold = self._config, 0.0 if self._unknown is None else self._unknown.threshold
        # Of several labels a video, one that is not wanted must not hide another.
        wanted_K = None
        if self.runtime.task == "multilabel":
            wanted_K = np.array([label in self._told_labels for label in self.runtime.labels])
        self._smoother = Smoother(config.smooth_s, config.enter, config.leave, wanted_K)
        self._known = Smoother(config.smooth_s, threshold, threshold)

    def judge(self, ring: EmbeddingRing) -> Judged:
        """Return what this model says of the newest window."""
        window_1TD, cached_T2W = ring.embeddings_TD[None], ring.cached_T2W
        if self.keeper is not None and self.keeper.encoded is not None:
            encoded = self.keeper.encoded
        elif cached_T2W is not None and isinstance(self.runtime, CachesMotion):
            encoded = self.runtime.encode_cached(window_1TD, cached_T2W[None])
        else:
            encoded = self.runtime.encode_windows(window_1TD)
        return [(encoded, None if self._unknown is None else self._unknown.familiarity(window_1TD)[0])]

    def push(self, index: int, embedding_D: Floats, time_s: float) -> None:
        """Let the detector and the state see one more frame. The arguments are those of `LiveSpans.push`."""
        if self.keeper is not None:
            self.keeper.push(index, embedding_D)
        if self._spans is not None:
            self._told += self._spans.push(index, embedding_D, time_s)

    def take_spans(self) -> tuple[LiveSpan, ...] | None:
        """Return the actions that the detector has told since this was asked last; None without a detector."""
        told, self._told = tuple(span for span in self._told if span.label in self._told_labels), []
        return None if self._spans is None else told

    def step(
        self, encoded: WindowEncoding, familiarity: Familiarity | None, time_s: float, end_s: float, *, is_whole: bool
    ) -> Answer:
        """Return the answer about one more window.

        Args:
            encoded: The encoding of the window.
            familiarity: The judgement on it.
            time_s: The timestamp of its newest frame.
            end_s: Its end.
            is_whole: True if the window has all its frames. The promise was made with whole windows; a causal model answers about
                the beginning of one too.
        """
        scores_K = scores_of(encoded.logits[0], self.runtime.task)
        smoothed_K = self._smoother.step(scores_K, time_s)
        choice = self._smoother.choice
        label = None if choice is None else self.runtime.labels[choice]
        is_known = self._is_known(familiarity, time_s)
        if not is_known or (label is not None and label not in self._told_labels):
            label = None if label is None else UNKNOWN
        raiser = self.raiser if is_whole else None
        alarm = None if raiser is None else raiser.step(smoothed_K, end_s, is_known=is_known)
        return Answer(scores_K, smoothed_K, label, is_known, familiarity, alarm, self.take_spans())

    def _is_known(self, familiarity: Familiarity | None, time_s: float) -> bool:
        """Return True if the smoothed value of `known` reaches the threshold, or if there is none."""
        if familiarity is None:
            return True
        self._known.step(np.array([familiarity.known], np.float32), time_s)
        return self._known.choice is not None
