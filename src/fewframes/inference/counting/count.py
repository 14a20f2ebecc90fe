"""Count repetitions in a video. Each frame is encoded once, at a steady rate, and its embedding is cached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.core.settings import Task
from fewframes.inference.counting.candidates import Candidates
from fewframes.inference.counting.config import DEFAULTS, CountConfig
from fewframes.inference.counting.counter import FoundRepetition, RepetitionCounter
from fewframes.inference.counting.picture import SimilarityPicture
from fewframes.inference.counting.results import Repetition, RepetitionCount, Stretch
from fewframes.inference.detection.windows import VideoScores, score_windows
from fewframes.inference.frame_features import PART_FRAMES
from fewframes.inference.predictor import Predictor
from fewframes.inference.unknowns import known_windows
from fewframes.results import UNKNOWN, is_background
from fewframes.runtime.protocol import Floats, scores_of
from fewframes.runtime.still import each_once
from fewframes.video.source import DEFAULT_FPS, Source

ANOTHER_FIT = 0.5
"""After a pause another movement begins if the fit is below this fraction of the median fit of the chain."""
STRIDES = (1, 2, 4)
"""Lengths of the windows that name a stretch, as multiples of the model's number of frames."""
WINDOWS_PER_LENGTH = 2
"""Windows that begin during the length of one."""


def count_repetitions(
    predictor: Predictor,
    source: Source,
    config: CountConfig = DEFAULTS,
    *,
    cache: EmbeddingCache | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> RepetitionCount:
    """Count the repetitions of any movement in a video, and say when each begins and ends.

    Raises VideoError, also where nothing can be decoded, and ConfigError for a model that mixes frames inside its encoder.

    Args:
        predictor: The model. Its frame encoder decides what looks alike; its labels name what is repeated.
        source: The video, as for `Predictor.predict`; so are `start_s`, `end_s` and `fps`.
        config: What can be a repetition.
        cache: Where embeddings are cached, if anywhere.
        progress: A callback.
    """

    def encode(windows_WTD: Floats) -> Floats:
        logits_WK = predictor.runtime.encode_windows(windows_WTD).logits
        return np.concatenate([logits_WK, known_windows(predictor.unknown_rule, windows_WTD)[:, None]], axis=1)

    frames = _FrameCounter(config)
    video = score_windows(
        predictor,
        source,
        lambda windows_WTD: each_once(encode, windows_WTD),
        window_s=predictor.num_frames / config.rate,
        strides=STRIDES,
        intervals=[math.ceil(predictor.num_frames * stride / WINDOWS_PER_LENGTH) for stride in STRIDES],
        still=config.still,
        cache=cache,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        progress=progress,
        on_frames=frames.push,
    )
    if all(bool(np.isnan(found_WK).any(axis=-1).all()) for *_, found_WK in video.windows):
        raise video.no_answers()
    interval_s = float(video.times_s[1] - video.times_s[0]) if len(video.times_s) > 1 else 1 / config.rate
    chains = frames.found(interval_s)
    similarity_ML, similarity_times_s, similarity_lags_s = frames.picture.drawn(float(video.times_s[0]), interval_s)
    return RepetitionCount(
        source=video.source,
        duration_s=video.duration_s,
        start_s=video.range_s[0],
        end_s=video.range_s[1],
        stretches=tuple(_stretch(predictor, video, chain, interval_s, config) for chain in chains),
        gaps=video.gaps,
        similarity=similarity_ML,
        similarity_times_s=similarity_times_s,
        similarity_lags_s=similarity_lags_s,
        num_frames=len(video.times_s),
        num_encoded=video.num_encoded,
        num_missing=video.num_missing,
        num_reused=video.num_reused,
    )


class _FrameCounter:
    """Counts in frames that come in chunks. The first chunk waits: frames of a video shorter than a window are closer together.

    Frames before a pause are counted by themselves, because nothing goes on over it.
    """

    def __init__(self, config: CountConfig) -> None:
        self._config = config
        self._first: Floats | None = None
        self._counter: RepetitionCounter | None = None
        self._begun = self._num_frames = 0
        """The frame with which the counter began, and the frames so far."""
        self._chains: list[list[FoundRepetition]] = []
        self.picture = SimilarityPicture()

    def push(self, embeddings_ND: Floats) -> None:
        """Add a chunk of frames, NaN where there is none."""
        if not self._num_frames and self._first is None:
            self._first = embeddings_ND
            return
        self._count(embeddings_ND, self._config.plan(1 / self._config.rate))

    def found(self, interval_s: float) -> list[list[FoundRepetition]]:
        """Return the chains of repetitions in all frames, which were `interval_s` apart."""
        if self._first is not None:
            self._count(None, self._config.plan(interval_s, len(self._first)))
        self._end()
        return [part for chain in self._chains if len(chain) > 1 for part in _parted(chain)]

    def _count(self, embeddings_ND: Floats | None, plan: Candidates) -> None:
        first, self._first = self._first, None
        for chunk_ND in (first, embeddings_ND):
            if chunk_ND is not None:
                missing_N = np.isnan(chunk_ND[:, 0])
                for run_ND in np.split(chunk_ND, np.flatnonzero(missing_N[1:] != missing_N[:-1]) + 1):
                    self._add(run_ND, plan)

    def _add(self, run_ND: Floats, plan: Candidates) -> None:
        """Add frames that are all there, or all missing."""
        if len(run_ND) > PART_FRAMES and np.isnan(run_ND[0, 0]):
            self._end()
            self.picture.add(np.full((len(run_ND), plan.num_lags), np.nan, np.float32))
        else:
            if self._counter is None:
                self._counter, self._begun = RepetitionCounter(plan, self._config.least_fit), self._num_frames
            self.picture.add(self._counter.push(run_ND))
        self._num_frames += len(run_ND)

    def _end(self) -> None:
        """Take the chains of the frames so far, so that no chain goes on."""
        if self._counter is not None:
            self._chains += [
                [replace(one, start=one.start + self._begun, end=one.end + self._begun) for one in chain]
                for chain in self._counter.found()
            ]
            self._counter = None


def _parted(chain: list[FoundRepetition]) -> list[list[FoundRepetition]]:
    """Return a chain in parts of one movement each: two movements may lie close enough to make one chain."""
    least = ANOTHER_FIT * float(np.median([one.fit for one in chain]))
    parts, first = [], 0
    for number in range(2, len(chain) - 1):
        before, one = chain[number - 1 : number + 1]
        if number - first > 1 and one.start > before.end and one.fit < least:
            parts.append(chain[first:number])
            first = number
    return [*parts, chain[first:]]


def _stretch(
    predictor: Predictor, video: VideoScores, chain: Sequence[FoundRepetition], interval_s: float, config: CountConfig
) -> Stretch:
    """Return a chain of repetitions with its times and the model's label."""
    # A frame stands for half an interval on either side.
    first_s = float(video.times_s[0]) - interval_s / 2
    repetitions = tuple(
        Repetition(
            max(video.range_s[0], first_s + one.start * interval_s),
            min(video.range_s[1], first_s + one.end * interval_s),
            min(1.0, max(0.0, one.fit)),
        )
        for one in chain
    )
    nameless = Stretch(UNKNOWN, 0.0, repetitions)
    rule = predictor.unknown_rule
    label, score = _named(
        video, nameless, predictor.labels, predictor.runtime.task, 0.0 if rule is None else rule.threshold
    )
    return Stretch(label, score, repetitions) if score >= config.least_score else nameless


def _named(
    video: VideoScores, stretch: Stretch, labels: Sequence[str], task: Task, least_known: float
) -> tuple[str, float]:
    """Return the label of a stretch and its score (0-1); `unknown` and 0 where the model knows none.

    Both come from the windows in the stretch whose length is closest to that of a repetition.
    """
    length_s, starts_s, found_WK = min(video.windows, key=lambda windows: abs(math.log(windows[0] / stretch.period_s)))
    middles_s = starts_s + length_s / 2
    inside_W = (middles_s >= stretch.start_s) & (middles_s <= stretch.end_s) & ~np.isnan(found_WK).any(axis=1)
    if not inside_W.any() or float(found_WK[inside_W, -1].mean()) < least_known:
        return UNKNOWN, 0.0
    scores_K = scores_of(found_WK[inside_W, :-1], task).mean(axis=0)
    best = int(scores_K.argmax())
    return (UNKNOWN, 0.0) if is_background(labels[best]) else (labels[best], float(scores_K[best]))
