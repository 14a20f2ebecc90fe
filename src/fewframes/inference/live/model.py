"""A model of a stream: a ring of the last frame embeddings, smoothed scores, a label with hysteresis, and alarms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fewframes.errors import ConfigError
from fewframes.inference.alarms import Alarm, AlarmRaiser, check_promise
from fewframes.inference.promise import AlarmPromise
from fewframes.inference.unknowns import UnknownRule
from fewframes.results import UNKNOWN, Familiarity, is_background
from fewframes.runtime.protocol import CachesMotion, Floats, Runtime, WindowEncoding, scores_of
from fewframes.video.live_settings import StreamConfig

MotionCache = Callable[[Floats, Floats], Floats | None]
"""A function of two embeddings (D,), the earlier first, that returns what `CachesMotion.motion_cache` does."""


class Smoother:
    """An exponential mean of scores over time with a time constant, and a label with hysteresis."""

    def __init__(self, smooth_s: float, enter: float, leave: float) -> None:
        self._smooth_s, self._enter, self._leave = smooth_s, enter, leave
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
        best = int(self._smoothed_K.argmax())
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
            ConfigError: The model has no embeddings of single frames, or the promise does not hold for these settings.
        """
        if not runtime.embeds_frames:
            raise ConfigError(
                f"a stream needs embeddings of single frames, and {runtime.name} mixes frames inside its encoder; use a model "
                "of the 'factorised' layout"
            )
        if promise is not None:
            check_promise(promise, runtime, config)
        self.runtime, self.promise, self.name = runtime, promise, name
        self.raiser = None if promise is None else AlarmRaiser(promise, runtime.labels, runtime.task)
        self._config, self._unknown = config, unknown
        self.restart()

    def restart(self) -> None:
        """Forget the answers before: a new stretch of the source begins."""
        config, threshold = self._config, 0.0 if self._unknown is None else self._unknown.threshold
        self._smoother = Smoother(config.smooth_s, config.enter, config.leave)
        self._known = Smoother(config.smooth_s, threshold, threshold)

    def judge(self, ring: EmbeddingRing) -> Judged:
        """Return what this model says of the newest window."""
        window_1TD, cached_T2W = ring.embeddings_TD[None], ring.cached_T2W
        if cached_T2W is not None and isinstance(self.runtime, CachesMotion):
            encoded = self.runtime.encode_cached(window_1TD, cached_T2W[None])
        else:
            encoded = self.runtime.encode_windows(window_1TD)
        return [(encoded, None if self._unknown is None else self._unknown.familiarity(window_1TD)[0])]

    def step(
        self, encoded: WindowEncoding, familiarity: Familiarity | None, time_s: float, end_s: float, *, is_whole: bool
    ) -> tuple[Floats, Floats, str | None, Alarm | None]:
        """Return the scores (K,), the smoothed scores (K,), the label, and the alarm that this answer raises.

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
        if not is_known or (label is not None and is_background(label)):
            label = None if label is None else UNKNOWN
        raiser = self.raiser if is_whole else None
        alarm = None if raiser is None else raiser.step(smoothed_K, end_s, is_known=is_known)
        return scores_K, smoothed_K, label, alarm

    def _is_known(self, familiarity: Familiarity | None, time_s: float) -> bool:
        """Return True if the smoothed value of `known` reaches the threshold, or if there is none."""
        if familiarity is None:
            return True
        self._known.step(np.array([familiarity.known], np.float32), time_s)
        return self._known.choice is not None
