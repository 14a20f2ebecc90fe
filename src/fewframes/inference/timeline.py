"""Detect action spans in a long video. Each frame is encoded once, and windows of several lengths slide over the embeddings.

Frames are taken at a steady rate and embedded chunk by chunk. Each chunk is cached at once, so an interrupted run continues where
it stopped, and other windows over the same frames encode nothing. Only the frames that a window still needs are in memory.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as settings

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.core.settings import STRICT, Positive, StillLevel
from fewframes.core.text import count_of, for_csv
from fewframes.errors import ConfigError
from fewframes.inference.detection.frame_row import SAME_INTERVAL, FrameRow, SteadyFrames, opened_row
from fewframes.inference.detection.learned import Detected, SpanReader, is_long_enough, span_reader
from fewframes.inference.detection.spans import Span, clock, most_over_time, subtitles
from fewframes.inference.detection.window_spans import (
    WindowScores,
    confidences,
    known_over_time,
    spans_of,
    window_reader,
)
from fewframes.inference.detection.windows import WindowReader
from fewframes.inference.frame_features import Gap, Times
from fewframes.inference.predictor import Predictor
from fewframes.inference.unknowns import known_windows
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.results import Mark, bars_html, named
from fewframes.runtime.protocol import Floats, Runtime, clip_length_s
from fewframes.video.source import DEFAULT_FPS, Source

SpanMethod = Literal["auto", "learned", "windows"]

WINDOW_S, THRESHOLD = 4.0, 0.8
"""Seconds of a window for models that do not say how long their clips were, and the usual threshold of windows."""
CSV_COLUMNS = ("source", "start_s", "end_s", "label", "confidence")


def csv_columns(*names: str) -> tuple[str, ...]:
    """Return the columns of a timeline's CSV, with those of names (`model`, `zone`, `track`) where several things are answered."""
    return (CSV_COLUMNS[0], *names, *CSV_COLUMNS[1:])


@settings(frozen=True, kw_only=True, config=STRICT)
class TimelineConfig:
    """Settings of a timeline: the windows over a long video, and the confidence from which an action counts."""

    spans: SpanMethod = "auto"
    """`learned`: spans are found by the detector in the model's file. `windows`: by sliding windows, so that a span is as long as a
    window. `auto` takes the detector if there is one and no window is asked for."""
    window_s: Positive | None = None
    """Seconds of the shortest windows, each of the model's number of frames: about the length of an action. None is the median
    length of the clips that the model learned from, or 4 s if its file does not say."""
    lengths: tuple[Annotated[int, Field(ge=1, le=16)], ...] | None = None
    """Lengths of windows as multiples of `window_s`. They use the same frames: every second or every fourth of them, and so on.
    None is one length, or 1 and 2 if the model's file does not say how long its clips were."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Confidence from which an action counts as happening. None is the detector's own, 0.5, or 0.8
    with windows (docs/guide/timeline.md says how it was chosen)."""
    temperature: Positive = 1.0
    """Divisor of the logits before they become scores. Models that this version trained have calibrated logits already; those of
    earlier versions were too sure, and 2 suits them."""
    still_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Fraction of the change in the liveliest tenth of the windows. Confidence falls where embeddings change less within a window,
    because where nothing moves nothing happens. 0 is for actions that show in a single frame. None is 0 for a model that was made
    from words, which name what a frame shows, and 0.5 for others."""

    still: StillLevel = 0.0
    """Largest change of brightness (0-255) in any part of the picture up to which a frame reuses the embedding of the last one that
    was embedded. 0 is exact: the same pixels only.
    """

    @model_validator(mode="after")
    def _check_lengths(self) -> TimelineConfig:
        if self.lengths is not None and list(self.lengths) != sorted({1, *self.lengths}):
            raise ValueError(f"lengths {self.lengths}: needs ascending numbers that begin with 1")
        if self.spans == "learned" and (self.window_s is not None or self.lengths is not None):
            raise ValueError(
                "spans 'learned' takes no windows; leave window_s and lengths out, or take spans 'windows'"
            )
        return self


STILL_SHARE = 0.5
DEFAULTS = TimelineConfig()


def uses_detector(runtime: Runtime, config: TimelineConfig) -> bool:
    """Return True if spans are found by the model's detector. Raises ConfigError if one is asked for and there is none."""
    if config.spans == "learned" and runtime.boundaries is None:
        raise no_detector(runtime)
    asked = config.window_s is not None or config.lengths is not None
    return runtime.boundaries is not None and config.spans != "windows" and not asked


def no_detector(runtime: Runtime) -> ConfigError:
    """Return the error for a model without a detector of which learned spans are asked."""
    return ConfigError(
        f"{runtime.name} has no detector; train one with its model (fewframes train DATA --boundaries), or take spans 'auto'"
    )


def still_share_of(runtime: Runtime, config: TimelineConfig) -> float:
    """Return the fraction of the liveliest change below which a window is still: the one asked for, or that of the model's kind."""
    if config.still_share is None:
        return 0.0 if "words" in runtime.provenance else STILL_SHARE
    return config.still_share


def windows_for(runtime: Runtime, config: TimelineConfig) -> tuple[float, tuple[int, ...]]:
    """Return the seconds of the shortest windows and the lengths of windows: those asked for, or those that suit the model."""
    length_s = clip_length_s(runtime.provenance)
    usual = (1, 2) if length_s is None and config.window_s is None else (1,)
    return config.window_s or length_s or WINDOW_S, config.lengths or usual


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
    method: Literal["learned", "windows"] = "windows"
    """The way in which spans were found: by the model's detector, or by sliding windows."""
    cuts_s: tuple[float, ...] = ()
    """The times at which one shot is cut to the next, as far as embeddings show it; found with learned spans alone."""
    model: str = ""
    """The name of the model, if several answered in one pass; empty if one did."""
    zone: str = ""
    """The name of the zone of the picture that was looked at; empty for the whole picture."""
    track: str = ""
    """The name of the person or thing that was followed; empty for the whole picture."""
    weights: str = ""
    """The key of the model's weights, which tells whether two timelines are of one model."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as `fewframes timeline --json` writes them, with scores of the labels that have spans."""
        seen = {span.label for span in self.spans}
        return {
            "source": self.source,
            **self._names,
            "weights": self.weights,
            "duration_s": round(self.duration_s, 3),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "method": self.method,
            "threshold": round(self.threshold, 4),
            "frames": {"embedded": self.num_encoded, "reused": self.num_reused, "missing": self.num_missing},
            "spans": [span.to_dict() for span in self.spans],
            "gaps": [gap.to_dict() for gap in self.gaps],
            **({"cuts_s": [round(cut_s, 3) for cut_s in self.cuts_s]} if self.method == "learned" else {}),
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
        return [{"source": self.source, **self._names, **span.to_dict()} for span in self.spans]

    @property
    def _names(self) -> dict[str, str]:
        return named(model=self.model, zone=self.zone, track=self.track)

    def to_csv(self, *, header: bool = True) -> str:
        """Return `to_rows` as CSV."""
        file = io.StringIO()
        writer = csv.DictWriter(file, csv_columns(*self._names), lineterminator="\n")
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
    """Detect action spans in a long video. Encodes each frame once.

    The model's detector finds where actions begin and end, and the model says which they are. Without a detector, or if windows are
    asked for, sliding windows are scored. A video, or part, shorter than the model's number of frames is one window. Frames that
    cannot be decoded are left out and named
    in `gaps`. Raises VideoError, also where nothing can be decoded, and ConfigError for a model that mixes frames inside its
    encoder.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`; so are `start_s`, `end_s` and `fps`.
        config: The method, windows and thresholds. Frames lie as far apart as the detector learned, or `window_s / num_frames`.
        cache: Where embeddings are cached, if anywhere.
        progress: A callback.
    """

    def encode(_numbers: Sequence[int], windows_WTD: Floats) -> list[Floats]:
        logits_WK = predictor.runtime.encode_windows(windows_WTD).logits
        return [logits_WK, known_windows(predictor.unknown_rule, windows_WTD)[:, None]]

    return sweep_models(predictor, [predictor], source, encode, config, cache, start_s, end_s, fps, progress)[0]


EncodeModels = Callable[[Sequence[int], Floats], list[Floats]]
"""A function that returns, for the numbers of some models and windows (W, T, D), the logits (W, K) of each of these models and how
likely each window shows one of its actions (W, 1), one after the other."""


def sweep_models(
    reading: Predictor,
    predictors: Sequence[Predictor],
    source: Source,
    encode: EncodeModels,
    config: TimelineConfig,
    cache: EmbeddingCache | None,
    start_s: float,
    end_s: float | None,
    fps: float,
    progress: Progress,
) -> list[Timeline]:
    """Detect action spans by one or several models that share a frame encoder. Return the timeline of each.

    Models with a detector use it, as far as the settings allow, and the others use windows of their own length. Frames are read
    once, as near to each other as the model needs that needs the nearest. Models that need others get the nearest ones of these.

    The arguments are those of `sweep`. `reading` reads and embeds frames, `encode` scores windows.
    """
    detectors = [
        predictor.runtime.boundaries if uses_detector(predictor.runtime, config) else None for predictor in predictors
    ]

    def ways(length_s: float) -> list[_Way]:
        return [
            _way_of(predictor, detector, config, length_s)
            for predictor, detector in zip(predictors, detectors, strict=True)
        ]

    with opened_row(
        reading,
        source,
        lambda length_s: min(way.interval_s for way in ways(length_s)),
        still=config.still,
        cache=cache,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        progress=progress,
    ) as row:
        chosen = ways(row.range_s[1] - row.range_s[0])
        groups = {way: [number for number, own in enumerate(chosen) if own == way] for way in dict.fromkeys(chosen)}
        nearest_s = min(way.interval_s for way in chosen)
        readers: list[tuple[SpanReader | WindowReader, SteadyFrames]] = []
        for way, numbers in groups.items():
            # Windows take the frames that are read for them as they come: those of a store may lie a little off.
            is_own = way.boundaries is None and way.interval_s <= nearest_s * (1 + SAME_INTERVAL)
            frames = row.frames if is_own else row.frames.at(way.interval_s, reading.num_frames)
            reader = (
                window_reader(way.lengths, frames, reading.num_frames, partial(encode, numbers))
                if way.boundaries is None
                else span_reader(predictors[numbers[0]].runtime, way.boundaries, frames)
            )
            readers.append((reader, frames))
        row.read(readers)
    if row.missing.all():
        raise row.no_answers()
    timelines: dict[int, Timeline] = {}
    for numbers, (reader, _) in zip(groups.values(), readers, strict=True):
        models = [predictors[number] for number in numbers]
        found = (
            [_timeline_of_spans(models[0], row, reader.found(row.frames.times_s), config)]
            if isinstance(reader, SpanReader)
            else _timelines_of_windows(models, row, reader.found(), config)
        )
        timelines.update(zip(numbers, found, strict=True))
    return [timelines[number] for number in range(len(predictors))]


@dataclass(frozen=True)
class _Way:
    """The way in which a model's spans are found: by its detector, or else by windows of some lengths.

    Frames lie `interval_s` apart.
    """

    interval_s: float
    boundaries: Boundaries | None = None
    lengths: tuple[int, ...] = ()


def interval_for(predictor: Predictor, config: TimelineConfig, length_s: float) -> float:
    """Return the seconds between the frames that `sweep` looks at in a part of a video of this many seconds."""
    detector = predictor.runtime.boundaries if uses_detector(predictor.runtime, config) else None
    return _way_of(predictor, detector, config, length_s).interval_s


def _way_of(predictor: Predictor, detector: Boundaries | None, config: TimelineConfig, length_s: float) -> _Way:
    """Return the way for a part of a video: shorter ones than the model's number of frames are one window, as for `predict`."""
    if detector is not None and is_long_enough(detector, predictor.num_frames, length_s):
        return _Way(detector.interval_s, detector)
    window_s, lengths = windows_for(predictor.runtime, config)
    return _Way(window_s / predictor.num_frames, None, lengths)


def _timeline_of_spans(predictor: Predictor, row: FrameRow, found: Detected, config: TimelineConfig) -> Timeline:
    """Make a timeline of what a detector found."""
    boundaries = predictor.runtime.boundaries
    assert boundaries is not None  # it found this
    threshold = boundaries.threshold if config.threshold is None else config.threshold
    spans = tuple(
        Span(max(row.range_s[0], span.start_s), min(row.range_s[1], span.end_s), span.label, span.confidence)
        for span in found.spans
        if span.confidence >= threshold
    )
    scores_NK = np.where(row.missing[:, None], np.float32(0), found.scores)
    return _timeline(
        predictor, row, threshold, scores=scores_NK, spans=spans, windows=(), method="learned", cuts_s=found.cuts_s
    )


def _timelines_of_windows(
    predictors: Sequence[Predictor],
    row: FrameRow,
    found: Sequence[tuple[float, Times, Floats]],
    config: TimelineConfig,
) -> list[Timeline]:
    """Make the timelines of models that answered the same windows, whose findings `window_reader` has."""
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
            for length_s, starts_s, found_WK in found
        )
        timelines.append(_timeline_of_windows(predictor, row, windows, config))
        start = known + 1
    return timelines


def _timeline_of_windows(
    predictor: Predictor, row: FrameRow, windows: tuple[WindowScores, ...], config: TimelineConfig
) -> Timeline:
    """Make scores and spans of the windows' output. Raises VideoError where nothing could be decoded."""
    if all(bool(np.isnan(length.logits).any(axis=-1).all()) for length in windows):
        raise row.no_answers()
    times_s, rule = row.frames.times_s, predictor.unknown_rule
    threshold = THRESHOLD if config.threshold is None else config.threshold
    found = confidences(
        windows,
        predictor.runtime.task,
        0.0 if rule is None else rule.threshold,
        temperature=config.temperature,
        still_share=still_share_of(predictor.runtime, config),
    )
    scores_LNK = np.stack(
        [
            most_over_time(confidences_WK, length.starts_s, length.length_s, times_s)
            for length, confidences_WK in zip(windows, found, strict=True)
        ]
    )
    return _timeline(
        predictor,
        row,
        threshold,
        scores=scores_LNK.max(axis=0),
        spans=spans_of(windows, found, predictor.labels, row.range_s, threshold),
        windows=windows,
        known=None if rule is None else known_over_time(windows, times_s),
        unknown_below=None if rule is None else rule.threshold,
    )


def _timeline(predictor: Predictor, row: FrameRow, threshold: float, **found: Any) -> Timeline:
    """Return a timeline with what is the same for all ways of finding spans.

    Args:
        predictor: The model.
        row: The video, when its frames were taken, and what could not be decoded.
        threshold: The confidence from which spans count.
        found: The fields of `Timeline` that the way gives.
    """
    return Timeline(
        source=row.source,
        duration_s=row.duration_s,
        start_s=row.range_s[0],
        end_s=row.range_s[1],
        labels=predictor.labels,
        threshold=threshold,
        times_s=row.frames.times_s,
        gaps=row.gaps,
        num_encoded=row.num_encoded,
        num_missing=row.num_missing,
        num_reused=row.num_reused,
        weights=predictor.runtime.model_key(),
        **found,
    )
