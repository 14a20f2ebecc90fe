"""Run a model over labelled videos and collect its logits.

`score_videos` is behind both `fewframes evaluate` and the measurements during training. It writes nothing but the cache of frame
embeddings, and compares nothing with the labels: that is done in `evaluate.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import log_softmax
from fewframes.core.settings import Task
from fewframes.core.text import count_of
from fewframes.data.dataset import VideoSet
from fewframes.inference.predictor import Predictor
from fewframes.inference.stages.early_exit import stage_logits
from fewframes.models.config import ExitPlan
from fewframes.results import Failure, Familiarity
from fewframes.runtime.protocol import Floats
from fewframes.sampling import ONE_PASS, Views
from fewframes.training.features import check_some, extract_features
from fewframes.training.ranks import ONLY_PROCESS, ProcessRank

ScoringProgress = Callable[[str, int, int], None]
"""A function that is called with the name of the stage, the number of videos done, and the number in all."""


@dataclass(frozen=True)
class ScoringSpeed:
    """The time that scoring took. Videos from the cache and other orders of the frames do not count."""

    num_videos: int
    """Number of videos that were computed, and not taken from the cache."""
    total_s: float | None
    """Seconds with waiting for decoded frames. None if decoding went on while other orders were tried."""
    network_s: float
    """Seconds of the network alone."""


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's logits for the N videos that could be read."""

    logits: Floats
    """(N, K)."""
    others: Floats
    """(N, O, K): the logits with the frames in O other orders; O = 0 if none were asked for."""
    stages: Floats
    """(S, N, K): the logits after each stage of an exit plan; S = 0 if none was asked for."""
    indices: NDArray[np.int64]
    """(N,): the indices of these videos in the data."""
    lengths_s: tuple[float | None, ...]
    """The duration of each video. None if it came from the cache and no length was asked for."""
    failures: tuple[Failure, ...]
    """The videos that could not be read."""
    num_cached: int
    """Number of videos whose embeddings came from the cache."""
    pace: ScoringSpeed
    familiarity: tuple[Familiarity, ...] = ()
    """The judgement on each video by its first view; empty if the predictor has no rule for unknown videos."""


def score_videos(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None = None,
    *,
    views: Views = ONE_PASS,
    num_frames: int | None = None,
    orders_BOT: NDArray[np.int64] | None = None,
    with_lengths: bool = False,
    exits: ExitPlan | None = None,
    process: ProcessRank = ONLY_PROCESS,
    progress: ScoringProgress = lambda stage, done, total: None,
) -> Scores:
    """Run the model over every video and return its logits. The scores of several views of a video are averaged.

    Args:
        data: The videos to score.
        predictor: The model.
        cache: Where frame embeddings are looked up and stored; None computes all of them.
        views: Clips and crops of each video.
        num_frames: Frames of each view; the model's own number by default.
        orders_BOT: (B, O, T) indices: other orders of the frames to try as well, for each video of the data. Embeddings of
            single frames are reordered as they are. A model that mixes frames inside its encoder runs again on reordered frames.
        with_lengths: Return the duration of cached videos too, which opens their files.
        exits: Also return the logits after each stage of this plan.
        process: This process among several that score at the same time. Each gets the scores of all videos.
        progress: Called after each video.

    Raises:
        DataError: Not a single video could be read.
    """
    num_frames = num_frames or predictor.num_frames
    mixes = not predictor.runtime.embeds_frames
    scored: list[_VideoScores] = []
    failures: list[tuple[int, Failure]] = []
    total_s, network_s = 0.0, 0.0
    mine = process.indices(len(data.samples))
    began = time.perf_counter()
    videos = extract_features(
        data.subset(mine), predictor, cache, views=views, num_frames=num_frames, with_lengths=with_lengths
    )
    for index, result in zip(mine, videos, strict=True):
        if isinstance(result, Failure):
            failures.append((index, result))
        else:
            received = time.perf_counter()
            logits_K = averaged(_logits(predictor, result.features), predictor.runtime.task)
            if not result.cached:
                network_s += result.network_s + time.perf_counter() - received
                total_s += time.perf_counter() - began
            # The clock has stopped: stages and other orders are not part of what scoring a video takes.
            stages_SK, others_OK = logits_K[None][:0], logits_K[None][:0]
            if exits is not None:
                stages_SK = stage_logits(predictor.runtime, result.features[:1], exits.stages)[:, 0]
            if orders_BOT is not None:
                others_OK = _in_other_orders(predictor, result.features, orders_BOT[index])
            familiarity = _familiarity(predictor, result.features)
            scored.append(
                _VideoScores(index, logits_K, others_OK, stages_SK, result.length_s, result.cached, familiarity)
            )
        progress(f"scoring with {count_of(num_frames, 'frame')}", index + 1, len(data.samples))
        began = time.perf_counter()
    scored = sorted(process.gather(scored), key=lambda video: video.index)
    failures = sorted(process.gather(failures), key=lambda failed: failed[0])
    seconds = process.gather([(total_s, network_s)])
    total_s, network_s = (sum(spent) / len(seconds) for spent in zip(*seconds, strict=True))
    check_some(data, len(scored), [failure for _, failure in failures])
    others_NOK = np.stack([video.others for video in scored])
    num_cached = sum(video.cached for video in scored)
    return Scores(
        logits=np.stack([video.logits for video in scored]),
        others=others_NOK,
        stages=np.stack([video.stages for video in scored], axis=1),
        indices=np.array([video.index for video in scored]),
        lengths_s=tuple(video.length_s for video in scored),
        failures=tuple(failure for _, failure in failures),
        num_cached=num_cached,
        pace=ScoringSpeed(len(scored) - num_cached, None if mixes and others_NOK.shape[1] else total_s, network_s),
        familiarity=tuple(judged for video in scored for judged in video.familiarity),
    )


@dataclass(frozen=True, eq=False)
class _VideoScores:
    """The scores of one video: `logits` (K,), `others` (O, K) in other orders of its frames, `stages` (S, K) of an exit plan."""

    index: int
    logits: Floats
    others: Floats
    stages: Floats
    length_s: float | None
    cached: bool
    familiarity: tuple[Familiarity, ...]


def averaged(logits_VK: Floats, task: Task) -> Floats:
    """Return logits (K,) whose scores are the mean of the scores of several views (V, K). A single view's stay as they are."""
    if len(logits_VK) == 1:
        return logits_VK[0]
    if task == "single":
        mean_K = np.logaddexp.reduce(log_softmax(logits_VK), axis=0) - math.log(len(logits_VK))
    else:  # log p - log(1 - p); the number of views cancels
        yes_VK, no_VK = -np.logaddexp(0, -logits_VK), -np.logaddexp(0, logits_VK)
        mean_K = np.logaddexp.reduce(yes_VK, axis=0) - np.logaddexp.reduce(no_VK, axis=0)
    return mean_K.astype(np.float32)


def _familiarity(predictor: Predictor, features: NDArray[Any]) -> tuple[Familiarity, ...]:
    """Return the judgement on the first view of `VideoFeatures.features`; nothing if there is no rule for unknown videos."""
    if predictor.unknown_rule is None:
        return ()
    embeddings = features[:1] if features.ndim == 3 else predictor.runtime.encode_clips(features[:1])
    return tuple(predictor.unknown_rule.familiarity(embeddings))


def _logits(predictor: Predictor, features: NDArray[Any]) -> Floats:
    """Return logits (V, K) of the views in `VideoFeatures.features`."""
    embeddings = features if features.ndim == 3 else predictor.runtime.encode_clips(features)
    return predictor.runtime.encode_windows(embeddings).logits


def _in_other_orders(predictor: Predictor, features: NDArray[Any], orders_OT: NDArray[np.int64]) -> Floats:
    """Return logits (O, K) with the frames of every view in each of the orders (O, T)."""
    views_VOK = np.stack([_logits(predictor, view[orders_OT]) for view in features])
    return np.stack([averaged(views_VOK[:, order], predictor.runtime.task) for order in range(views_VOK.shape[1])])
