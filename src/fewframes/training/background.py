"""The footage of a run in which nothing of interest happens: found before training, read with the finished model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from fewframes.core.cache import EmbeddingCache, content_key
from fewframes.core.process import Progress, num_cores, worked_ahead
from fewframes.core.settings import Task
from fewframes.core.text import count_of
from fewframes.data.config import DataConfig
from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, DataError, FewframesError
from fewframes.inference.alarms import STORED, answers_of, is_action
from fewframes.inference.footage import Background, Encode, Footage, find_footage, promise_alarms, read_footage
from fewframes.inference.predictor import Predictor
from fewframes.inference.promise import AlarmPromise, check_hours
from fewframes.results import Failure
from fewframes.runtime.protocol import Floats
from fewframes.training.features import EmbeddedVideos
from fewframes.video.live_settings import StreamConfig
from fewframes.video.source import open_video

MOST_MEASURED = 200
"""The clips whose durations are measured for the record of a model."""


@dataclass(frozen=True)
class RunFootage:
    """The footage of a run, and the streams that it stands for."""

    footage: Footage
    config: StreamConfig
    """Windows are as long as the median training clip; the other settings are those of streams by default."""
    alarms_per_day: float | None
    """The rate of false alarms to promise; None promises none."""


@dataclass(frozen=True, eq=False)
class ReadBackground:
    """The background of a run, read with its model, and the promise that rests on it."""

    background: Background | None
    """None if no footage could be read."""
    promise: AlarmPromise | None
    """The promised rate of false alarms; None if none was asked for, or if what could be read is not enough for it."""
    failures: tuple[Failure, ...]
    """The footage that could not be read."""
    note: str = ""
    """The reason why there is no promise although one was asked for; empty if there is none."""
    reached: float | None = None
    """The fraction of clips kept out of training whose score is above the threshold: what is left to report; None if unknown."""

    @property
    def embeddings(self) -> Floats | None:
        """Return the frame embeddings (W, T, D) of windows of the footage, for what learns from it; None if there are none."""
        return None if self.background is None else self.background.embeddings

    def provenance(self) -> dict[str, object]:
        """Return what the model file keeps: the hours of footage and the thresholds."""
        found = self.background
        kept = {} if found is None else {"background": {"hours": round(found.hours, 4), "num_videos": found.num_videos}}
        return {**kept, **({} if self.promise is None else {STORED: self.promise.to_dict()})}

    def lines(self) -> list[str]:
        """Return what was read and promised, in words for people."""
        found = self.background
        read = (
            []
            if found is None
            else [f"uneventful footage: {found.hours:.2f} hours of {count_of(found.num_videos, 'video')}"]
        )
        promised = [] if self.promise is None else self.promise.lines()
        if self.reached is not None:
            promised.append(f"  {self.reached:.0%} of the clips that were kept out of training score above it")
        return read + promised + ([self.note] if self.note else [])

    def with_reached(self, scores_NK: Floats, labels: Sequence[str], task: Task) -> ReadBackground:
        """Return the same with the fraction of clips that would be reported.

        Args:
            scores_NK: The scores of clips that the model did not learn from.
            labels: The names of the K actions.
            task: The kind of labels.
        """
        if self.promise is None or not len(scores_NK):
            return self
        scores_N, _ = answers_of(scores_NK, is_action(labels), task)
        return replace(self, reached=float((scores_N > self.promise.overall.threshold).mean()))

    def facts(self) -> dict[str, object]:
        """Return what the file of metrics has beside the provenance."""
        return {
            "footage_failed": [failure.to_dict() for failure in self.failures],
            "clips_above_threshold": None if self.reached is None else round(self.reached, 4),
        }


def find_run_footage(data: DataConfig, training: Sequence[Sample], clips: Sequence[Sample]) -> RunFootage | None:
    """Return the footage of a run, or None if it has none.

    Raises DataError if no footage can be used, and ConfigError if it cannot be enough for the promise: before minutes of work.

    Args:
        data: The settings.
        training: The training clips, which say how long a window is.
        clips: All clips of actions, also those that are held out. Footage with the content of one of them is left out.
    """
    if not data.background:
        if data.alarms_per_day is not None:
            raise ConfigError(
                f"alarms_per_day = {data.alarms_per_day:g} without background: the threshold comes from footage in which nothing "
                "of interest happens; name it with --background"
            )
        return None
    config = StreamConfig()
    config = replace(config, window_s=median_length_s(training) or config.window_s)
    footage = _without_clips(find_footage(data.background, config.window_s), clips)
    if data.alarms_per_day is not None:
        check_hours(data.alarms_per_day, footage.hours)
    return RunFootage(footage, config, data.alarms_per_day)


def _without_clips(footage: Footage, clips: Sequence[Sample]) -> Footage:
    """Return the footage without the videos that clips of actions are of; these are failures. Raises DataError if none is left."""
    by_size: dict[int, list[Sample]] = {}
    for path, sample in {sample.path: sample for sample in clips}.items():
        if os.path.isfile(path):
            by_size.setdefault(os.path.getsize(path), []).append(sample)
    kept: list[tuple[str, float]] = []
    failures = list(footage.failures)
    for video, length_s in zip(footage.videos, footage.lengths_s, strict=True):
        alike = by_size.get(os.path.getsize(video), []) if os.path.isfile(video) else []
        same = next((sample for sample in alike if content_key(sample.path) == content_key(video)), None)
        if same is None:
            kept.append((video, length_s))
        else:
            shown = ", ".join(same.labels) or "no action"
            words = f"{video}: the same video as {same.path}, a clip of {shown}; footage shows none of the actions"
            failures.append(Failure(video, words))
    if not kept:
        raise DataError(f"no footage can be used; the first: {failures[0].error}")
    return Footage(tuple(video for video, _ in kept), tuple(length_s for _, length_s in kept), tuple(failures))


def median_length_s(samples: Sequence[Sample]) -> float | None:
    """Return the median duration of these videos to a hundredth of a second, or None if none of them can be opened."""
    with closing(worked_ahead(samples, _length_s, num_cores())) as found:
        lengths_s = [length_s for _, length_s in found if not isinstance(length_s, FewframesError)]
    return max(0.01, round(median(lengths_s), 2)) if lengths_s else None


def typical_length_s(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the median duration of clips for the record of a model, as `clip_length_s`; empty if none of them can be opened.

    At most `MOST_MEASURED` of them are opened, spread over all.
    """
    some = samples[:: max(1, len(samples) // MOST_MEASURED)]
    length_s = median_length_s(some)
    return {} if length_s is None else {"clip_length_s": length_s}


def _length_s(sample: Sample) -> float:
    if sample.end_s is not None:
        return sample.end_s - sample.start_s
    with closing(open_video(sample.path, threads=1)) as video:
        return max(0.0, video.duration_s - sample.start_s)


def read_background(
    predictor: Predictor,
    found: RunFootage,
    labels: Sequence[str],
    task: Task,
    *,
    encode: Encode | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> ReadBackground:
    """Read the footage of a run with its finished model, and make the promise that was asked for.

    A promise that cannot be kept is none, with a note: the model took minutes or hours, and is good without.

    Args:
        predictor: The model, or a model with the same frame encoder.
        found: The footage.
        labels: The names of the K actions.
        task: The kind of labels.
        encode: The logits of windows, if they are not those of `predictor`.
        cache: Where embeddings are cached, if anywhere.
        progress: A callback.
    """
    try:
        background = read_footage(predictor, found.footage, found.config, encode=encode, cache=cache, progress=progress)
    except DataError as error:
        return ReadBackground(None, None, found.footage.failures, f"no promise of alarms: {error}")
    if found.alarms_per_day is None:
        return ReadBackground(background, None, background.failures)
    try:
        promise = promise_alarms(background, labels, task, found.config, found.alarms_per_day)
    except ConfigError as error:
        return ReadBackground(background, None, background.failures, f"no promise of alarms: {error}")
    return ReadBackground(background, promise, background.failures)


def rejection_background(
    clips: EmbeddedVideos | None, clip_groups: Sequence[str], footage: ReadBackground | None
) -> tuple[Floats | None, list[str] | None]:
    """Return what the judge of unknown videos learns from: embeddings (B, V, T, D) without any of the actions, and their groups.

    Both are None if there is no background.

    Args:
        clips: The clips labelled as background, or None.
        clip_groups: The groups of all these clips, also of those that could not be read.
        footage: The uneventful footage, or None.
    """
    parts, groups = [], []
    windows = None if footage is None else footage.background
    if clips is not None and len(clips.indices):
        parts.append(clips.embeddings)
        groups += [clip_groups[index] for index in clips.indices.tolist()]
    if windows is not None and len(windows.embeddings):
        parts.append(windows.embeddings[:, None])
        groups += windows.groups
    if not parts:
        return None, None
    num_views = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :num_views] for part in parts]), groups
