"""Read footage in which nothing of interest happens: what a model says of it, and windows of it to learn from.

Frames lie as far apart as in a stream, so that windows over them are those of the stream. They are embedded once, chunk by chunk,
into the cache.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, content_key
from fewframes.core.process import Progress, num_cores, worked_ahead
from fewframes.core.settings import Task
from fewframes.core.text import count_of
from fewframes.data.folders import counted_reasons, search
from fewframes.errors import ConfigError, DataError, FewframesError, VideoError
from fewframes.inference.alarms import answers_of, is_action
from fewframes.inference.detection.windows import VideoScores, score_windows
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.live.model import Smoother
from fewframes.inference.predictor import Predictor
from fewframes.inference.promise import (
    AlarmPromise,
    AlarmThreshold,
    Exceedances,
    check_hours,
    choose_threshold,
    num_blocks_of,
)
from fewframes.results import Failure
from fewframes.runtime.protocol import Floats, scores_of
from fewframes.runtime.still import each_once
from fewframes.video.live_settings import StreamConfig
from fewframes.video.source import open_video

MOST_WINDOWS = 2048
"""The most windows whose embeddings are kept, spread evenly over the footage: 300 MB with the packaged model."""
S_PER_HOUR = 3600.0

Encode = Callable[[Floats], Floats]
"""A function of windows of frame embeddings (W, T, D) that returns their logits (W, K)."""


@dataclass(frozen=True)
class Footage:
    """Videos in which nothing of interest happens, and those of them that cannot be read."""

    videos: tuple[str, ...]
    """The paths, in the order in which they are read."""
    lengths_s: tuple[float, ...]
    """Their durations in seconds."""
    failures: tuple[Failure, ...] = ()
    """The videos that could not be opened, are shorter than a window, or have the content of another one."""

    @property
    def hours(self) -> float:
        """Return the duration of all videos together, in hours."""
        return sum(self.lengths_s) / S_PER_HOUR


@dataclass(frozen=True, eq=False)
class Background:
    """The answers of a model about footage, and windows of it to learn from."""

    embeddings: Floats = field(repr=False)
    """The frame embeddings (W, T, D) of windows that do not overlap, 2,048 at most, spread evenly over the footage."""
    groups: tuple[str, ...] = field(repr=False)
    """The video of each of these windows, and the hour of it: windows of one group are alike."""
    hours: float
    """The hours of it that windows cover."""
    num_videos: int
    """The number of videos that could be read."""
    failures: tuple[Failure, ...]
    """The videos, and the parts of videos, that could not be read."""
    stretches: tuple[Stretch, ...] = field(repr=False)
    """The scores, video after video."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """A part of a video without gaps: the logits (N, K) of windows that end at `ends_s` (N,), and the seconds that they cover."""

    logits: Floats
    ends_s: NDArray[np.float64]
    length_s: float


def find_footage(paths: Iterable[str | os.PathLike[str]], window_s: float) -> Footage:
    """Return the videos of these paths and folders, with their durations. Each content is taken once.

    Raises DataError if a folder has no videos, or if no video can be used.

    Args:
        paths: Videos, folders of videos, or addresses.
        window_s: The seconds of a window. Shorter videos are failures.
    """
    named = [video for path in paths for video in _videos_of(os.fspath(path))]
    if not named:
        raise DataError("no footage was named; name videos, or folders of them, in which nothing of interest happens")
    lengths_s: dict[str, float] = {}
    failures: list[Failure] = []
    contents: dict[str, str] = {}
    with closing(worked_ahead(named, _opened, num_cores())) as opened:
        for video, found in opened:
            if isinstance(found, FewframesError):
                failures.append(Failure.of(video, found))
                continue
            length_s, content = found
            first = contents.setdefault(content, video)
            if first is not video:
                failures.append(Failure(video, f"{video}: the same footage as {first}; it is counted once"))
            elif length_s < window_s:
                failures.append(Failure(video, _too_short(video, length_s, window_s)))
            else:
                lengths_s[video] = length_s
    if not lengths_s:
        raise DataError(f"no footage can be used of {count_of(len(named), 'video')}; the first: {failures[0].error}")
    return Footage(tuple(lengths_s), tuple(lengths_s.values()), tuple(failures))


def _too_short(video: str, length_s: float, window_s: float) -> str:
    return f"{video}: {length_s:.2f} s of footage, less than one window of {window_s:g} s; join it to longer videos"


def _videos_of(path: str) -> list[str]:
    """Return the videos below a folder, or the path itself if it is none. Raises DataError for a folder without videos."""
    if not os.path.isdir(path):
        return [path]
    found = search(path)
    if not found.videos:
        left_out = counted_reasons(found.left_out)
        raise DataError(
            f"{path}: no videos in this folder{f' ({left_out})' if left_out else ''}; name one with footage in which nothing of "
            "interest happens"
        )
    return found.videos


def _opened(video: str) -> tuple[float, str]:
    """Return the duration of a video in seconds, and a key of its content. Raises VideoError."""
    with closing(open_video(video, threads=1)) as opened:
        length_s = float(opened.duration_s)
    try:
        return length_s, content_key(video)
    except OSError:  # an address
        return length_s, video


def read_footage(
    predictor: Predictor,
    footage: Footage,
    config: StreamConfig,
    *,
    encode: Encode | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Background:
    """Embed the frames of footage, and score windows over them as a stream does.

    Raises DataError if nothing can be read, and ConfigError for a model that mixes frames inside its encoder.

    Args:
        predictor: The model.
        footage: The videos.
        config: The settings of the stream: seconds of a window, seconds between answers.
        encode: The logits of windows, if they are not those of the model.
        cache: Where embeddings are cached, if anywhere.
        progress: A callback.
    """
    check_can_stream(predictor)
    logits_of = encode or (lambda windows_WTD: predictor.runtime.encode_windows(windows_WTD).logits)
    every_frames = frames_between(config, predictor.num_frames)
    windows = _Windows(footage, config.window_s, predictor.num_frames, every_frames)
    key = encoder_key(predictor) if cache is not None else ""
    stretches: list[Stretch] = []
    failures = list(footage.failures)
    num_read, read_s = 0, 0.0
    for video, length_s in zip(footage.videos, footage.lengths_s, strict=True):
        progress("uneventful footage", round(read_s), round(footage.hours * S_PER_HOUR))
        try:
            scored = score_windows(
                predictor,
                video,
                windows.seen_by(logits_of, video),
                window_s=config.window_s,
                intervals=[every_frames],
                still=config.still,
                cache=cache,
                encoder=key,
            )
        except VideoError as error:
            failures.append(Failure.of(video, error))
            continue
        finally:
            read_s += length_s
        found = stretches_of(scored, every_frames * config.window_s / predictor.num_frames)
        failures += [
            Failure(video, gap.error, start_s=gap.start_s, end_s=gap.end_s) for gap in scored.gaps if not gap.is_pause
        ]
        if not found and not scored.gaps:
            failures.append(Failure(video, _too_short(video, length_s, config.window_s)))
        num_read += bool(found)
        stretches += found
    progress("uneventful footage", round(read_s), round(read_s))
    if not stretches:
        raise DataError(f"no footage could be read; the first failure: {failures[0].error}")
    hours = sum(stretch.length_s for stretch in stretches) / S_PER_HOUR
    embeddings, groups = windows.kept()
    return Background(embeddings, groups, hours, num_read, tuple(failures), tuple(stretches))


def check_can_stream(predictor: Predictor) -> None:
    """Raise ConfigError for a model that has no embeddings of single frames, of which a stream is made."""
    if not predictor.runtime.embeds_frames:
        raise ConfigError(
            f"{predictor.name} mixes frames inside its encoder and cannot label a stream, so there is no rate of alarms to "
            "promise; use a model of the 'factorised' layout"
        )


def frames_between(config: StreamConfig, num_frames: int) -> int:
    """Return the number of frames between two answers of a stream, for a model that takes so many frames."""
    return max(1, round((config.every_s or 0.0) * num_frames / config.window_s))


class _Windows:
    """The windows that are kept of all that are seen: some that do not overlap, spread evenly."""

    def __init__(self, footage: Footage, window_s: float, num_frames: int, every_frames: int) -> None:
        apart = math.ceil(num_frames / every_frames)  # windows between two that do not overlap
        num_apart = sum(length_s // window_s for length_s in footage.lengths_s)
        self._step = apart * max(1, math.ceil(num_apart / MOST_WINDOWS))
        self._every_s = every_frames * window_s / num_frames
        self._num_seen = 0
        self._kept: list[tuple[str, Floats]] = []

    def seen_by(self, encode: Encode, video: str) -> Encode:
        """Return a function that does what `encode` does, and keeps some of the windows of this video."""
        before = self._num_seen

        def keeping(windows_WTD: Floats) -> Floats:
            for row in range(-self._num_seen % self._step, len(windows_WTD), self._step):
                hour = int((self._num_seen - before + row) * self._every_s / S_PER_HOUR)
                if np.isfinite(windows_WTD[row]).all():
                    self._kept.append((f"{video}, hour {hour}", windows_WTD[row].copy()))
            self._num_seen += len(windows_WTD)
            return each_once(encode, windows_WTD)

        return keeping

    def kept(self) -> tuple[Floats, tuple[str, ...]]:
        """Return the windows (W, T, D) that were kept, and the group of each."""
        kept = self._kept[:MOST_WINDOWS]
        windows_WTD = np.stack([window_TD for _, window_TD in kept]) if kept else np.empty((0, 0, 0), np.float32)
        return windows_WTD, tuple(group for group, _ in kept)


def stretches_of(scored: VideoScores, every_s: float) -> list[Stretch]:
    """Return the parts of a video without gaps, with the windows that a stream would answer about.

    Args:
        scored: The logits of its windows.
        every_s: The seconds between two of them.
    """
    window_s, starts_s, logits_WK = scored.windows[0]
    steps_W = (starts_s - starts_s[0]) / every_s
    # The last window ends with the video, for which a stream does not wait.
    on_grid_W = np.abs(steps_W - steps_W.round()) < 0.01
    good = np.flatnonzero(on_grid_W & np.isfinite(logits_WK).all(axis=1))
    parts = np.split(good, np.flatnonzero(np.diff(steps_W[good]) > 1.5) + 1)
    return [
        Stretch(logits_WK[rows], starts_s[rows] + window_s, float(starts_s[rows[-1]] - starts_s[rows[0]]) + window_s)
        for rows in parts
        if len(rows)
    ]


def alarm_promise(
    predictor: Predictor,
    footage: Iterable[str | os.PathLike[str]],
    alarms_per_day: float,
    config: StreamConfig | None = None,
    *,
    cache: EmbeddingCache | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[AlarmPromise, tuple[Failure, ...]]:
    """Return the thresholds with which streams of this model keep a rate of false alarms, and the footage that could not be read.

    Raises DataError if no footage can be read, and ConfigError if it is too short for that promise, or if the model cannot stream.

    Args:
        predictor: The model.
        footage: Videos and folders of videos in which nothing of interest happens.
        alarms_per_day: The most false alarms a day, in the mean.
        config: The settings of the stream.
        cache: Where embeddings are cached, if anywhere.
        progress: A callback.
    """
    config = config or StreamConfig()
    check_can_stream(predictor)
    found = find_footage(footage, config.window_s)
    check_hours(alarms_per_day, found.hours)  # before hours of work
    background = read_footage(predictor, found, config, cache=cache, progress=progress)
    runtime = predictor.runtime
    return promise_alarms(background, runtime.labels, runtime.task, config, alarms_per_day), background.failures


def promise_alarms(
    background: Background, labels: Sequence[str], task: Task, config: StreamConfig, alarms_per_day: float
) -> AlarmPromise:
    """Return the thresholds with which streams keep a rate of false alarms, as far as they see what this footage shows.

    Raises ConfigError if the footage is too short for that promise.

    Args:
        background: The footage, read by `read_footage` with the same settings.
        labels: The names of the K actions.
        task: The kind of labels.
        config: The settings of the stream.
        alarms_per_day: The most false alarms a day, in the mean.
    """
    check_hours(alarms_per_day, background.hours)
    found = exceedances(background, labels, task, config)
    num_blocks = num_blocks_of(background.hours)

    def chosen(part: Exceedances) -> AlarmThreshold:
        return choose_threshold(
            part,
            hours=background.hours,
            num_blocks=num_blocks,
            alarms_per_day=alarms_per_day,
            gap_s=config.alarm_gap_s,
            lowest=config.enter,
        )

    overall = chosen(found)
    actions = {}
    for index in np.flatnonzero(is_action(labels)).tolist():
        try:
            actions[labels[index]] = chosen(found.of(index))
        except ConfigError:  # its alarms alone come in clumps; that of all actions holds for it too
            actions[labels[index]] = overall
    return AlarmPromise(
        alarms_per_day=float(alarms_per_day),
        hours=background.hours,
        num_blocks=num_blocks,
        num_videos=background.num_videos,
        window_s=config.window_s,
        every_s=config.every_s,
        smooth_s=config.smooth_s,
        enter=config.enter,
        alarm_gap_s=config.alarm_gap_s,
        still=config.still,
        at_enter=found.num_alarms(config.alarm_gap_s),
        overall=overall,
        actions=actions,
    )


def exceedances(background: Background, labels: Sequence[str], task: Task, config: StreamConfig) -> Exceedances:
    """Return the windows of footage that may raise an alarm in a stream with these settings, in equal blocks of time.

    Args:
        background: The footage.
        labels: The names of the K actions.
        task: The kind of labels.
        config: The settings of the stream.
    """
    wanted_K = is_action(labels)
    num_blocks = num_blocks_of(background.hours)
    block_s = background.hours * S_PER_HOUR / num_blocks
    parts = []
    before_s = 0.0
    for number, stretch in enumerate(background.stretches):
        smoother = Smoother(config.smooth_s, config.enter, config.leave)
        scores_NK = scores_of(stretch.logits, task)
        steps = zip(scores_NK, stretch.ends_s.tolist(), strict=True)
        smoothed_NK = np.stack([smoother.step(scores_K, time_s) for scores_K, time_s in steps])
        scores_N, actions_N = answers_of(smoothed_NK, wanted_K, task)
        passed_N = before_s + stretch.ends_s - stretch.ends_s[-1] + stretch.length_s
        rows = np.flatnonzero(scores_N >= config.enter)
        # Stretches lie farther apart on the axis of times than alarms may be to be one.
        times_s = passed_N[rows] + number * (config.alarm_gap_s + 1)
        blocks = np.minimum((passed_N[rows] / block_s).astype(np.int64), num_blocks - 1)
        parts.append((scores_N[rows], actions_N[rows], times_s, blocks))
        before_s += stretch.length_s
    return Exceedances(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
