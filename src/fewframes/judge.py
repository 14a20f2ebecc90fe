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

from fewframes.cache import EmbeddingCache
from fewframes.clip import Failure
from fewframes.config import Task
from fewframes.data import VideoSet
from fewframes.embed import check_some, see_videos
from fewframes.exits import ExitPlan, stage_logits
from fewframes.predictor import Predictor
from fewframes.sampling import ONE_PASS, Views

Progress = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Pace:
    """What was computed here and how long it took, waiting for frames included and without; what came from the cache and other
    orders of the frames do not count. `total_s` is None where decoding went on while other orders were tried."""

    num_videos: int
    total_s: float | None
    network_s: float


@dataclass(frozen=True, eq=False)
class Judged:
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
    pace: Pace


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
    progress: Progress = lambda stage, done, total: None,
) -> Judged:
    """Run the model over every video, `num_frames` frames (its own number) a view; scores of several views are averaged.

    `orders_BOT` (B, O, T) are orders of frames to try as well, for each video of the data. Embeddings of single frames are
    reordered as they are; for a model that mixes frames inside its encoder the pictures are, and it runs again. Raises
    DataError when no video could be read.
    """
    num_frames = num_frames or predictor.config.num_frames
    mixes = predictor.config.layout != "factorised"
    logits: list[Tensor] = []
    others: list[Tensor] = []
    stages: list[Tensor] = []
    places: list[int] = []
    lengths_s: list[float | None] = []
    failures: list[Failure] = []
    num_cached, total_s, network_s = 0, 0.0, 0.0
    began = time.perf_counter()
    videos = see_videos(data, predictor, cache, views=views, num_frames=num_frames, with_lengths=with_lengths)
    for place, seen in enumerate(videos):
        if isinstance(seen, Failure):
            failures.append(seen)
        else:
            met = time.perf_counter()
            logits.append(averaged(_logits(predictor, seen.frames), predictor.config.task))
            if not seen.cached:
                network_s += seen.network_s + time.perf_counter() - met
                total_s += time.perf_counter() - began
            if exits is not None:
                frames_1TD = seen.frames[:1].to(predictor.device)
                stages.append(stage_logits(predictor.model, frames_1TD, exits.stages)[:, 0].cpu())
            if orders_BOT is not None:
                others.append(_in_other_orders(predictor, seen.frames, orders_BOT[place]))
            places.append(place)
            lengths_s.append(seen.length_s)
            num_cached += seen.cached
        progress(f"judging by {num_frames} frames", place + 1, len(data.samples))
        began = time.perf_counter()
    check_some(data, len(logits), failures)
    logits_NK = torch.stack(logits)
    return Judged(
        logits=logits_NK,
        others=torch.stack(others) if others else logits_NK[:, None][:, :0],
        stages=torch.stack(stages, dim=1) if stages else logits_NK[None][:0],
        places=torch.tensor(places),
        lengths_s=tuple(lengths_s),
        failures=tuple(failures),
        num_cached=num_cached,
        pace=Pace(len(logits) - num_cached, None if mixes and others else total_s, network_s),
    )


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
