"""The speed of frame encoders on this machine, with random weights: what a frame costs one thread."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from fewframes.errors import ConfigError
from fewframes.models.encoders.pull import random_checkpoint
from fewframes.runtime.torch_runtime import TorchRuntime

FRAMES_AT_ONCE = 4


@dataclass(frozen=True)
class EncoderSpeed:
    """The milliseconds of one thread for a frame. Time in which the thread had to wait for its core is not counted."""

    least_ms: float
    median_ms: float
    most_ms: float


def measure_encoder(name: str, *, rounds: int = 7) -> EncoderSpeed:
    """Return what a frame costs one thread of this machine, in float32, with random weights. Nothing is fetched.

    Each round embeds four frames together. The first round is not counted.

    Args:
        name: `timm:NAME` or `clip:ARCHITECTURE/TAG`.
        rounds: the number of rounds that are counted.

    Raises:
        ConfigError: there is no such encoder, or there are no rounds.
        MissingDependency: open_clip is not installed, for one of its names.
    """
    if rounds < 1:
        raise ConfigError(f"rounds {rounds}: needs at least 1")
    runtime = TorchRuntime(random_checkpoint(name), name=name, device="cpu", dtype="float32")
    size = runtime.view.crop_px
    frames_TCHW = np.random.default_rng(0).integers(0, 256, (FRAMES_AT_ONCE, 3, size, size), np.uint8)
    costs = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(rounds + 1):
            began = time.thread_time()
            runtime.embed_frames(frames_TCHW)
            costs.append(1000 * (time.thread_time() - began) / FRAMES_AT_ONCE)
    finally:
        torch.set_num_threads(threads)
    return EncoderSpeed(min(costs[1:]), float(np.median(costs[1:])), max(costs[1:]))
