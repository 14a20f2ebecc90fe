"""Made-up frame embeddings of actions, places and strangers, in which it is known what is near and what is far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.models.rejection.fitting import fit_rejection
from fewframes.models.rejection.rejection import Rejection

WIDTH, NUM_FRAMES = 24, 8
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MadeUp:
    """Videos (B, V, T, D), their actions (B, K) and groups."""

    embeddings: Floats
    targets: NDArray[np.float64]
    groups: list[str]


def actions(
    num_actions: int,
    *,
    num_groups: int = 8,
    repeats: int = 2,
    first: int = 0,
    seed: int = 0,
    place: float = 0.0,
    width: int = WIDTH,
    num_frames: int = NUM_FRAMES,
) -> MadeUp:
    """Videos of actions from the one numbered `first` on, `repeats` of each in each group.

    An action is a direction in which frames lie, and one in which they change. A group moves all its videos a little. A `place` is
    a constant in the last channel, which no video of another place has.
    """
    draw = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(2, 40, width)).astype(np.float32)
    patterns[:, :, -1] = 0
    ramp_T = np.linspace(-1, 1, num_frames, dtype=np.float32)[:, None]
    videos, targets, groups = [], [], []
    for group in range(num_groups):
        moved = 0.3 * draw.normal(size=width)
        for action in range(first, first + num_actions):
            for _ in range(repeats):
                own = 0.3 * draw.normal(size=width)
                steady, moving = patterns[:, action]
                frames_TD = steady + ramp_T * moving + moved + own + 0.2 * draw.normal(size=(num_frames, width))
                frames_TD[:, -1] += place
                videos.append(np.stack([frames_TD, frames_TD + 0.1 * draw.normal(size=frames_TD.shape)]))
                targets.append(action - first)
                groups.append(f"{seed} {group}")
    return MadeUp(np.array(videos, np.float32), np.eye(num_actions)[targets], groups)


def auroc(known_N: Floats, unknown_N: Floats) -> float:
    """Return how often a known video has the higher number, of all pairs."""
    return float((known_N[:, None] > unknown_N).mean())


def rejection_around(embeddings_KTD: Floats) -> Rejection:
    """Return a rejection that knows videos which are almost these (T, D), one for each action, and no others."""
    draw = np.random.default_rng(0)
    size = float(np.abs(embeddings_KTD - embeddings_KTD.mean(axis=(0, 1))).mean())
    num_actions = len(embeddings_KTD)
    groups = [f"{number}" for number in range(12) for _ in range(num_actions)]
    noise = 0.1 * size * draw.normal(size=(12, num_actions, 2, *embeddings_KTD.shape[1:]))
    videos = (embeddings_KTD[None, :, None] + noise).astype(np.float32)
    targets = np.tile(np.eye(num_actions), (12, 1))
    rejection = fit_rejection(videos.reshape(-1, *videos.shape[2:]), targets, groups)
    assert rejection is not None
    return rejection
