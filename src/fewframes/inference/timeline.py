"""Detect action spans in a long video. Each frame is encoded once, and windows of several lengths slide over the embeddings.

Frames are taken at a steady rate and embedded chunk by chunk. Each chunk is cached at once, so an interrupted run continues where
it stopped, and other windows over the same frames encode nothing. Only the frames that a window still needs are in memory.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as settings

from fewframes.core.arguments import check_time_range
from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.core.settings import STRICT, Positive, StillLevel, Task
from fewframes.core.text import count_of, for_csv
from fewframes.errors import ConfigError, VideoError
from fewframes.inference.frame_features import FrameFeatures, Gap, Indices, Times, features_key, slide
from fewframes.inference.predictor import Predictor
from fewframes.inference.spans import Span, clock, most_over_time, subtitles, without_repeats
from fewframes.inference.unknowns import known_windows
from fewframes.results import Mark, bars_html, is_background
from fewframes.runtime.protocol import Floats, scores_of
from fewframes.runtime.still import each_once
from fewframes.sampling import centre_times, steady_times
from fewframes.video.decode.packets import SAME_S
from fewframes.video.source import DEFAULT_FPS, Source, range_in

WINDOWS_PER_LENGTH = 8
"""Windows that begin during the length of one."""
STEEP, TINY = 8.0, 1e-6
LIVELY_FRACTION = 0.9
"""The fraction of windows that change less than the level at which this video's changes are measured."""
CSV_COLUMNS = ("source", "start_s", "end_s", "label", "confidence")
SHARED_CSV_COLUMNS = ("source", "model", *CSV_COLUMNS[1:])
"""The columns where several models answer in one pass."""


@settings(frozen=True, kw_only=True, config=STRICT)
class TimelineConfig:
    """Settings of a timeline: the windows over a long video, and the confidence from which an action counts."""

    window_s: Positive = 4.0
    """Seconds of the shortest windows, each of the model's number of frames: about the length of an action."""
    lengths: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (1, 2)
    """Lengths of windows as multiples of `window_s`. They use the same frames: every second or every fourth of them, and so on."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Confidence from which an action counts as happening (docs/guide/timeline.md says how it was chosen)."""
    temperature: Positive = 1.0
    """Divisor of the logits before they become scores. Models that this version trained have calibrated logits already; those of
    earlier versions were too sure, and 2 suits them."""
    still_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Fraction of the change in the liveliest tenth of the windows. Confidence falls where embeddings change less within a window,
    because where nothing moves nothing happens. 0 is for actions that show in a single frame.
    """

    still: StillLevel = 0.0
    """Largest change of brightness (0-255) in any part of the picture up to which a frame reuses the embedding of the last one that
    was embedded. 0 is exact: the same pixels only.
    """

    @model_validator(mode="after")
    def _check_lengths(self) -> TimelineConfig:
        if list(self.lengths) != sorted({1, *self.lengths}):
            raise ValueError(f"lengths {self.lengths}: needs ascending numbers that begin with 1")
        return self


DEFAULTS = TimelineConfig()


@dataclass(frozen=True, eq=False)
class WindowScores:
    """The model's output for windows of one length: window w covers `length_s` seconds from `starts_s[w]` (W,).

    `known` (W,) says how likely each shows one of the actions at all (0-1); None if that was not judged.

    `logits` (W, K) are those of `predict` for the same seconds, NaN where a frame could not be decoded. `changes` (W,) say how much
    the embeddings change from frame to frame, as a fraction of their size. Windows longer than the shortest use every second frame
    or fewer, and may begin or end just outside of the video.
    """

    length_s: float
    starts_s: Times
    logits: Floats
    changes: Floats
    known: Floats | None = None


@dataclass(frozen=True, eq=False)
class Timeline:
    """The actions in a video between `start_s` and `end_s`.

    `scores` (N, K), in the order of `labels`, are those at `times_s` (N,): the highest confidence of the windows over a time, so
    that a span stands where its label passes `threshold`, and 0 in `gaps`. `known` (N,) is how likely the windows over a time show
    one of the actions at all; windows below `unknown_below` have no spans. Both are None if that was not judged. `spans` are in the
    order of time. `windows` hold the model's output for each length of window. Of the N frames `num_encoded` were encoded now,
    `num_reused` showed nothing new and got the embedding of one before, and `num_missing` could not be decoded; the others came
    from the cache.
    """

    source: str
    duration_s: float
    start_s: float
    end_s: float
    labels: tuple[str, ...]
    threshold: float
    times_s: Times
    scores: Floats
    spans: tuple[Span, ...]
    gaps: tuple[Gap, ...]
    windows: tuple[WindowScores, ...]
    num_encoded: int
    num_missing: int
    known: Floats | None = None
    unknown_below: float | None = None
    num_reused: int = 0
    model: str = ""
    """The name of the model, if several answered in one pass; empty if one did."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as `fewframes timeline --json` writes them, with scores of the labels that have spans."""
        seen = {span.label for span in self.spans}
        return {
            "source": self.source,
            **({"model": self.model} if self.model else {}),
            "duration_s": round(self.duration_s, 3),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "threshold": self.threshold,
            "frames": {"embedded": self.num_encoded, "reused": self.num_reused, "missing": self.num_missing},
            "spans": [span.to_dict() for span in self.spans],
            "gaps": [gap.to_dict() for gap in self.gaps],
            "times_s": [round(time_s, 3) for time_s in self.times_s.tolist()],
            "scores": {
                label: [round(score, 3) for score in scores_N]
                for label, scores_N in zip(self.labels, self.scores.T.tolist(), strict=True)
                if label in seen
            },
            **(
                {}
                if self.known is None or self.unknown_below is None
                else {
                    "unknown_below": round(self.unknown_below, 4),
                    "known": [round(known, 3) for known in self.known.tolist()],
                }
            ),
        }

    def to_rows(self) -> list[dict[str, object]]:
        """Return one flat row for each span, for a data frame or CSV."""
        model = {"model": self.model} if self.model else {}
        return [{"source": self.source, **model, **span.to_dict()} for span in self.spans]

    def to_csv(self, *, header: bool = True) -> str:
        """Return `to_rows` as CSV."""
        file = io.StringIO()
        writer = csv.DictWriter(file, SHARED_CSV_COLUMNS if self.model else CSV_COLUMNS, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({name: for_csv(cell) for name, cell in row.items()} for row in self.to_rows())
        return file.getvalue()

    def to_vtt(self) -> str:
        """Return the spans as subtitles (WebVTT), for any player."""
        return subtitles(self.spans)

    def __repr__(self) -> str:
        return f"Timeline({self.source!r}: {count_of(len(self.spans), 'span')} in {self.end_s - self.start_s:.1f} s)"

    def _repr_html_(self) -> str:
        """Return the spans as a table for notebooks, each with its place in the video."""
        spans, length_s = count_of(len(self.spans), "span"), self.end_s - self.start_s
        return bars_html(
            f"{self.source}: {spans} in {clock(length_s)}",
            ("start", "end", "action"),
            [(clock(span.start_s), clock(span.end_s), span.label) for span in self.spans],
            [span.confidence for span in self.spans],
            spans=[Mark((span.start_s - self.start_s) / length_s, span.length_s / length_s) for span in self.spans],
        )


def sweep(
    predictor: Predictor,
    source: Source,
    config: TimelineConfig = DEFAULTS,
    *,
    cache: EmbeddingCache | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> Timeline:
    """Detect action spans in a long video. Encodes each frame once and scores sliding windows.

    A video, or part, shorter than `window_s` is one window, as for `predict`. Frames that cannot be decoded are left out and named
    in `gaps`. Raises VideoError, also where nothing can be decoded, and ConfigError for a model that mixes frames inside its
    encoder.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`; so are `start_s`, `end_s` and `fps`.
        config: Windows and thresholds. Frames lie `window_s / num_frames` apart.
        cache: Where embeddings are cached, if anywhere.
        progress: A callback.
    """

    def encode(windows_WTD: Floats) -> list[Floats]:
        logits_WK = predictor.runtime.encode_windows(windows_WTD).logits
        return [logits_WK, known_windows(predictor.unknown_rule, windows_WTD)[:, None]]

    return sweep_models(predictor, [predictor], source, encode, config, cache, start_s, end_s, fps, progress)[0]


def sweep_models(
    reading: Predictor,
    predictors: Sequence[Predictor],
    source: Source,
    encode: Callable[[Floats], list[Floats]],
    config: TimelineConfig,
    cache: EmbeddingCache | None,
    start_s: float,
    end_s: float | None,
    fps: float,
    progress: Progress,
) -> list[Timeline]:
    """Detect action spans by one or several models that share a frame encoder. Return the timeline of each.

    The arguments are those of `sweep`. `reading` reads and embeds frames. `encode` returns, for windows (W, T, D), the logits
    (W, K) of each model and how likely each window shows one of its actions (W, 1), one after the other.
    """

    def with_changes(windows_WTD: Floats) -> Floats:
        return np.concatenate([_changes(windows_WTD)[:, None], *encode(windows_WTD)], axis=1)

    video = score_windows(
        reading,
        source,
        partial(each_once, with_changes),
        window_s=config.window_s,
        strides=config.lengths,
        intervals=[max(1, reading.num_frames * stride // WINDOWS_PER_LENGTH) for stride in config.lengths],
        still=config.still,
        cache=cache,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        progress=progress,
    )
    timelines, start = [], 1
    for predictor in predictors:
        known = start + len(predictor.labels)
        windows = tuple(
            WindowScores(
                length_s,
                starts_s,
                found_WK[:, start:known],
                found_WK[:, 0],
                None if predictor.unknown_rule is None else found_WK[:, known],
            )
            for length_s, starts_s, found_WK in video.windows
        )
        timelines.append(_timeline(predictor, video, windows, config))
        start = known + 1
    return timelines


@dataclass(frozen=True, eq=False)
class VideoScores:
    """The findings of sliding windows over the frames of a video between `range_s`, taken at `times_s` (N,).

    `windows` has, for each length that has any: its seconds, the seconds at which windows start (W,), and the findings (W, ...).
    Parts that could not be decoded are named in `gaps`, and their windows are NaN.
    """

    source: str
    duration_s: float
    range_s: tuple[float, float]
    times_s: Times
    windows: tuple[tuple[float, Times, Floats], ...]
    gaps: tuple[Gap, ...]
    num_encoded: int
    num_missing: int
    num_reused: int = 0

    def no_answers(self) -> VideoError:
        """Return the error for a video in which no window has an answer."""
        return VideoError(self.gaps[0].error if self.gaps else f"{self.source}: the network's answers are no numbers")


def score_windows(
    predictor: Predictor,
    source: Source,
    encode: Callable[[Floats], Floats],
    *,
    window_s: float,
    strides: Sequence[int] = (1,),
    intervals: Sequence[int],
    still: float = 0.0,
    cache: EmbeddingCache | None = None,
    encoder: str = "",
    content: str = "",
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> VideoScores:
    """Encode each frame of a video once, and run `encode` on sliding windows of the embeddings.

    Raises VideoError, and ConfigError for a model that mixes frames inside its encoder.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`; so are the arguments that are not listed here.
        encode: A function of windows (W, T, D) that returns one row for each (W, ...).
        window_s: Seconds of the shortest windows.
        strides: Frames from one frame of a window to the next, for each length of window.
        intervals: Frames from the start of one window to the next, for each length.
        still: Level of the gate for frames that show nothing new; 0 is exact.
        cache: Where embeddings are cached, if anywhere.
        encoder, content: Keys of the encoder and of a file's content, where they are known: computing them takes a while.
        progress: A callback.
    """
    if not predictor.runtime.embeds_frames:
        raise ConfigError(
            f"{predictor.name} mixes frames inside its encoder, so none can be encoded once for all windows; use a model of the "
            "'factorised' layout"
        )
    num_frames = predictor.num_frames
    check_time_range(start_s, end_s, fps)
    with closing(predictor.reader.open_video(source, fps=fps)) as video:
        start_s, end_s = range_in(video, start_s, end_s)
        grid = _grid(video.duration_s, start_s, end_s, window_s, num_frames)
        setting = features_key(predictor, source, fps, encoder, content) if cache else ""
        features = FrameFeatures(video, predictor, grid.interval_s, cache, setting, still)

        def chunks(found: Iterator[Floats]) -> Iterator[Floats]:
            done = 0
            progress("frames", done, len(grid.times_s))
            for chunk_ND in found:
                done += len(chunk_ND)
                yield chunk_ND
                progress("frames", done, len(grid.times_s))

        # For each stride the start indices and findings of its windows, chunk by chunk.
        parts: list[list[tuple[Indices, Floats]]] = [[] for _ in strides]
        # Closing the generator ends its decoding thread, which must happen before the video is closed.
        with closing(features.chunks(grid.times_s, grid.first)) as read:
            for found in slide(chunks(read), encode, num_frames, strides, intervals):
                for number, part in enumerate(found):
                    parts[number].extend([part] if len(part[0]) else [])
    windows = tuple(
        _joined(part, grid, stride, num_frames)
        for part, stride in zip(parts, strides, strict=True)
        if part  # a short video has no windows of the longer lengths
    )
    return VideoScores(
        video.name,
        video.duration_s,
        (start_s, end_s),
        grid.times_s,
        windows,
        tuple(features.gaps),
        features.num_encoded,
        features.num_missing,
        features.num_reused,
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """The timestamps of a run: `times_s` (N,), `interval_s` apart.

    `first` is the index of the first of them in the whole video's row of frames, or 0 in a row of their own.
    """

    times_s: Times
    interval_s: float
    first: int


def _grid(duration_s: float, start_s: float, end_s: float, window_s: float, num_frames: int) -> _Grid:
    """Return the part of the whole video's row of timestamps that lies inside, so that parts and the whole share what is cached.

    Where that is less than one window, the timestamps are those of `predict`.
    """
    interval_s = window_s / num_frames
    whole_s = np.asarray(steady_times(0.0, duration_s, interval_s))
    edge_s = interval_s / 2 - SAME_S  # a frame stands for half an interval on either side
    inside = np.flatnonzero((whole_s >= start_s + edge_s) & (whole_s <= end_s - edge_s))
    if len(inside) >= num_frames:
        return _Grid(whole_s[inside], interval_s, int(inside[0]))
    times_s = np.asarray(centre_times(duration_s, num_frames, start_s=start_s, end_s=end_s))
    return _Grid(times_s, (end_s - start_s) / num_frames, 0)


def _changes(windows_WTD: Floats) -> Floats:
    """Return how much each window changes (W,): the mean step between frames as a fraction of the mean size; NaN for one frame."""
    if windows_WTD.shape[1] == 1:
        return np.full(len(windows_WTD), np.nan, np.float32)
    steps_W = np.linalg.norm(np.diff(windows_WTD, axis=1), axis=-1).mean(axis=1)
    changes_W: Floats = steps_W / np.linalg.norm(windows_WTD, axis=-1).mean(axis=1).clip(min=TINY)
    return changes_W


def _joined(
    parts: list[tuple[Indices, Floats]], grid: _Grid, stride: int, window_frames: int
) -> tuple[float, Times, Floats]:
    """Join all windows of one length: their seconds, the seconds at which they start, and their findings."""
    indices_W, found_W = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    # A frame stands for the `stride` parts around it, so that T of them are the centres of T equal parts of the window.
    starts_s = grid.times_s[indices_W] - stride * grid.interval_s / 2
    return window_frames * stride * grid.interval_s, starts_s, found_W


def confidences(
    windows: Sequence[WindowScores], config: TimelineConfig, task: Task, least_known: float = 0.0
) -> list[Floats]:
    """Return the confidence of each window of each length in each action: (W, K) in 0-1, NaN where it could not be decoded.

    It is the softened score, times a factor that is small where a window changes little for this video. It is NaN where a window
    shows none of the actions.

    Args:
        windows: Windows of each length, the shortest first.
        config: Temperature and `still_share`.
        task: The kind of labels, which decides how logits become scores.
        least_known: The value of `known` below which a window shows none of the actions.
    """
    changes_W = windows[0].changes[~np.isnan(windows[0].changes)]
    lively = float(np.quantile(changes_W, LIVELY_FRACTION)) if len(changes_W) else 0.0
    found = []
    for length in windows:
        scores_WK = scores_of(length.logits / np.float32(config.temperature), task)
        if config.still_share and len(changes_W):
            liveliness_W = length.changes / max(lively, TINY)
            factor_W = scores_of((liveliness_W - config.still_share) * STEEP, "multilabel")
            scores_WK = (scores_WK * factor_W[:, None]).astype(np.float32)
        if length.known is not None:
            scores_WK[length.known < least_known] = np.nan
        found.append(scores_WK)
    return found


def spans_of(
    windows: Sequence[WindowScores],
    found: Sequence[Floats],
    labels: Sequence[str],
    range_s: tuple[float, float],
    least: float,
) -> tuple[Span, ...]:
    """Return the windows that are confident enough of an action, in the order of time, without repeats of more confident ones.

    Args:
        windows: Windows of each length.
        found: Their confidences (W, K), as `confidences` returns them.
        labels: Names of the K labels.
        range_s: Seconds between which spans must lie; they are cut to it.
        least: The lowest confidence of a span.
    """
    candidates = [
        Span(
            max(range_s[0], float(length.starts_s[window])),
            min(range_s[1], float(length.starts_s[window]) + length.length_s),
            labels[label],
            float(confidences_WK[window, label]),
        )
        for length, confidences_WK in zip(windows, found, strict=True)
        for window, label in np.argwhere(confidences_WK >= least).tolist()
        if not is_background(labels[label])
    ]
    return tuple(sorted(without_repeats(candidates), key=lambda span: (span.start_s, span.end_s)))


def _timeline(
    predictor: Predictor, video: VideoScores, windows: tuple[WindowScores, ...], config: TimelineConfig
) -> Timeline:
    """Make scores and spans of the windows' output. Raises VideoError where nothing could be decoded."""
    if all(bool(np.isnan(length.logits).any(axis=-1).all()) for length in windows):
        raise video.no_answers()
    rule = predictor.unknown_rule
    found = confidences(windows, config, predictor.runtime.task, 0.0 if rule is None else rule.threshold)
    scores_LNK = np.stack(
        [
            most_over_time(confidences_WK, length.starts_s, length.length_s, video.times_s)
            for length, confidences_WK in zip(windows, found, strict=True)
        ]
    )
    return Timeline(
        source=video.source,
        duration_s=video.duration_s,
        start_s=video.range_s[0],
        end_s=video.range_s[1],
        labels=predictor.labels,
        threshold=config.threshold,
        times_s=video.times_s,
        scores=scores_LNK.max(axis=0),
        spans=spans_of(windows, found, predictor.labels, video.range_s, config.threshold),
        gaps=video.gaps,
        windows=windows,
        num_encoded=video.num_encoded,
        num_missing=video.num_missing,
        num_reused=video.num_reused,
        known=None if rule is None else _known_over_time(windows, video.times_s),
        unknown_below=None if rule is None else rule.threshold,
    )


def _known_over_time(windows: Sequence[WindowScores], times_s: Times) -> Floats:
    """Return how likely each timestamp is in a window that shows one of the actions: (N,), the most of the windows over it."""
    found = [
        most_over_time(length.known[:, None], length.starts_s, length.length_s, times_s)[:, 0]
        for length in windows
        if length.known is not None
    ]
    return np.stack(found).max(axis=0)
