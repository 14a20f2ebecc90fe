"""Embeddings and films of movements that are repeated a known number of times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fewframes.runtime.protocol import Floats

WIDTH = 24
FPS = 20


class Movement:
    """A smooth path through embeddings (D,), one for each phase (0-1). It does not end where it begins."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._waves = rng.normal(0, 1, (4, 2, WIDTH)) / np.arange(1, 5)[:, None, None]
        self._drift_D = rng.normal(0, 1, WIDTH)
        self._base_D = rng.normal(0, 2, WIDTH)

    def at(self, phase: float) -> NDArray[np.float64]:
        turns = 2 * np.pi * phase * np.arange(1, 5)[:, None]
        waves = np.sin(turns) * self._waves[:, 0] + np.cos(turns) * self._waves[:, 1]
        point_D: NDArray[np.float64] = self._base_D + waves.sum(axis=0) + phase * self._drift_D
        return point_D


def repeated(movement: Movement, lengths: Sequence[float], *, noise: float = 0.05, seed: int = 0) -> Floats:
    """Embeddings (N, D) of a movement that is repeated; each repetition takes so many frames, and they need not be whole."""
    ends = np.cumsum(lengths)
    frames = []
    for number in range(int(ends[-1])):
        place = int(np.searchsorted(ends, number + 0.5, side="right"))
        phase = (number + 0.5 - (ends[place] - lengths[place])) / lengths[place]
        frames.append(movement.at(float(phase)))
    return noisy(np.array(frames), noise, seed)


def held(movement: Movement, phase: float, frames: int, *, noise: float = 0.05, seed: int = 1) -> Floats:
    """Embeddings of a movement that stands still at a phase."""
    return noisy(np.repeat(movement.at(phase)[None], frames, axis=0), noise, seed)


def wandering(frames: int, seed: int) -> Floats:
    """Embeddings of something that never comes back: a smooth random walk."""
    steps_ND = np.random.default_rng(seed).normal(0, 1, (frames + 4, WIDTH))
    smooth_ND = np.stack([np.convolve(column, np.ones(5) / 5, "valid") for column in steps_ND.T], axis=1)
    return noisy(smooth_ND.cumsum(axis=0), 0.05, seed)


def noisy(frames_ND: NDArray[np.float64], noise: float, seed: int) -> Floats:
    return (frames_ND + np.random.default_rng(seed).normal(0, noise, frames_ND.shape)).astype(np.float32)


def write_square(path: Path, phases: Iterable[float | None]) -> Path:
    """Write a film of a square that crosses the picture and turns red on its way; None shows the ground alone."""
    rng = np.random.default_rng(0)
    ground = rng.integers(90, 130, (6, 8, 1)).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for phase in phases:
            pixels = ground.repeat(3, axis=2).astype(np.uint8)
            if phase is not None:
                left = int(44 * phase)
                pixels[14:34, left : left + 20] = (int(255 * phase), 40, int(255 * (1 - phase)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def crossings(seconds: Sequence[float]) -> list[float | None]:
    """Phases of a square that crosses once in each of these seconds."""
    return [frame / round(FPS * length) for length in seconds for frame in range(round(FPS * length))]
