"""A model and labelled videos -> what it says of each: the one function behind `fewframes evaluate` and measuring while training.

Nothing is written but the cache of frame embeddings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewframes.core.cache import EmbeddingCache
from fewframes.core.settings import Task
from fewframes.data.dataset import VideoSet
from fewframes.inference.early_exit import stage_logits
from fewframes.inference.predictor import Predictor
from fewframes.models.exit_plan import ExitPlan
from fewframes.results import Failure
from fewframes.training.features import check_some, see_videos
from fewframes.training.shares import ALONE, Share
from fewframes.video.sampling import ONE_PASS, Views

Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class ScoringSpeed:
    """What was computed here and how long it took, waiting for frames included and without; what came from the cache and other
    orders of the frames do not count. `total_s` is None where decoding went on while other orders were tried."""

    num_videos: int
    total_s: float | None
    network_s: float


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model says of the videos that could be read: `logits` (N, K), `others` (N, O, K) the same with the frames in
    other orders, `places` (N,) of these videos in the data, `lengths_s` how long each lasts (None where nobody asked and it
    came from the cache), `failures` the other videos, `num_cached` how many came from the cache, and how fast it went. `stages`
    (S, N, K) are the logits after each stage of an exit plan, S = 0 where none was asked for."""

    logits: Tensor
    others: Tensor
    stages: Tensor
    places: Tensor
    lengths_s: tuple[float | None, ...]
    failures: tuple[Failure, ...]
    num_cached: int
    pace: ScoringSpeed


def judge(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None = None,
    *,
    views: Views = ONE_PASS,
    num_frames: int | None = None,
    orders_BOT: Tensor | None = None,
    with_lengths: bool = False,
    exits: ExitPlan | None = None,
    share: Share = ALONE,
    progress: Progress = lambda stage, done, total: None,
) -> Scores:
    """Run the model over every video, `num_frames` frames (its own number) a view; scores of several views are averaged.

    `orders_BOT` (B, O, T) are orders of frames to try as well, for each video of the data. Embeddings of single frames are
    reordered as they are; for a model that mixes frames inside its encoder the pictures are, and it runs again. With a
    `share` the other processes do theirs at the same time, and each gets what is said of all. Raises DataError when no video
    could be read.
    """
    num_frames = num_frames or predictor.config.num_frames
    mixes = predictor.config.layout != "factorised"
    verdicts: list[_Verdict] = []
    failures: list[tuple[int, Failure]] = []
    total_s, network_s = 0.0, 0.0
    mine = share.of(len(data.samples))
    began = time.perf_counter()
    videos = see_videos(
        data.subset(mine), predictor, cache, views=views, num_frames=num_frames, with_lengths=with_lengths
    )
    for place, seen in zip(mine, videos, strict=True):
        if isinstance(seen, Failure):
            failures.append((place, seen))
        else:
            met = time.perf_counter()
            logits_K = averaged(_logits(predictor, seen.frames), predictor.config.task)
            if not seen.cached:
                network_s += seen.network_s + time.perf_counter() - met
                total_s += time.perf_counter() - began
            stages_SK, others_OK = logits_K[None][:0], logits_K[None][:0]
            if exits is not None:
                frames_1TD = seen.frames[:1].to(predictor.device)
                stages_SK = stage_logits(predictor.model, frames_1TD, exits.stages)[:, 0].cpu()
            if orders_BOT is not None:
                others_OK = _in_other_orders(predictor, seen.frames, orders_BOT[place])
            verdicts.append(_Verdict(place, logits_K, others_OK, stages_SK, seen.length_s, seen.cached))
        progress(f"judging by {num_frames} frames", place + 1, len(data.samples))
        began = time.perf_counter()
    verdicts = sorted(share.gathered(verdicts), key=lambda verdict: verdict.place)
    failures = sorted(share.gathered(failures), key=lambda failed: failed[0])
    seconds = share.gathered([(total_s, network_s)])
    total_s, network_s = (sum(spent) / len(seconds) for spent in zip(*seconds, strict=True))
    check_some(data, len(verdicts), [failure for _, failure in failures])
    others_NOK = torch.stack([verdict.others for verdict in verdicts])
    num_cached = sum(verdict.cached for verdict in verdicts)
    return Scores(
        logits=torch.stack([verdict.logits for verdict in verdicts]),
        others=others_NOK,
        stages=torch.stack([verdict.stages for verdict in verdicts], dim=1),
        places=torch.tensor([verdict.place for verdict in verdicts]),
        lengths_s=tuple(verdict.length_s for verdict in verdicts),
        failures=tuple(failure for _, failure in failures),
        num_cached=num_cached,
        pace=ScoringSpeed(len(verdicts) - num_cached, None if mixes and others_NOK.shape[1] else total_s, network_s),
    )


@dataclass(frozen=True, eq=False)
class _Verdict:
    """What is said of one video: `logits` (K,), in other orders (O, K), after each stage (S, K)."""

    place: int
    logits: Tensor
    others: Tensor
    stages: Tensor
    length_s: float | None
    cached: bool


def averaged(logits_VK: Tensor, task: Task) -> Tensor:
    """Logits (K,) whose scores are the mean of the scores of the views (V, K); those of one view as they are."""
    if len(logits_VK) == 1:
        return logits_VK[0]
    if task == "single":
        return logits_VK.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits_VK))
    yes_K = F.logsigmoid(logits_VK).logsumexp(dim=0)
    return yes_K - F.logsigmoid(-logits_VK).logsumexp(dim=0)  # log p - log(1 - p); the number of views cancels


def logits_of(predictor: Predictor, frames_NTD: Tensor) -> Tensor:
    """Logits (N, K) on the CPU from frame embeddings (N, T, D)."""
    with torch.inference_mode():
        parts = [
            predictor.model.encode_video(part_NTD.to(predictor.device)).logits.cpu()
            for part_NTD in frames_NTD.split(256)
        ]
    return torch.cat(parts)


def _logits(predictor: Predictor, frames: Tensor) -> Tensor:
    """Logits (V, K) of views as `Seen.frames` has them."""
    return logits_of(predictor, frames if frames.ndim == 3 else predictor.encode_clips(frames))


def _in_other_orders(predictor: Predictor, frames: Tensor, orders_OT: Tensor) -> Tensor:
    """Logits (O, K) with the frames of every view in these orders."""
    views_VOK = torch.stack([_logits(predictor, view[orders_OT]) for view in frames])
    return torch.stack([averaged(views_VK, predictor.config.task) for views_VK in views_VOK.unbind(1)])
