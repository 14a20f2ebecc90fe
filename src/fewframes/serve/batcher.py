"""Embed frames of several requests together, in rounds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.runtime.protocol import Runtime

PART_FRAMES = 16
"""The most frames of one request in a round, so that a long video does not keep short ones waiting until its end."""
ROUND_FRAMES = 256
"""The most frames of all requests in a round."""


@dataclass(eq=False)
class _Job:
    """The frames of one request, and the embeddings of those that are done."""

    frames: NDArray[np.uint8]  # (T, C, H, W)
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)  # one (N, D) for each round
    num_done: int = 0

    @property
    def is_done(self) -> bool:
        return self.num_done == len(self.frames)


class BatchingRuntime:
    """A runtime that embeds the frames of several threads together. All else is done by the runtime `inner`.

    Frames are embedded in rounds, each with some frames of every thread that waits. Nobody waits for a batch to fill: a round
    takes what has gathered during the one before it.
    """

    def __init__(self, inner: Runtime, on_round: Callable[[int], None] = lambda num_frames: None) -> None:
        """Wrap the runtime `inner`. `on_round` is called with the number of frames of each round."""
        self.inner, self._on_round = inner, on_round
        self._jobs: list[_Job] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fewframes-encode")

    def __getattr__(self, name: str) -> Any:
        if name == "label_clips":  # it would not go through rounds
            raise AttributeError(name)
        return getattr(self.inner, name)

    def encode_clips(self, frames_BTCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings (B, T, D) of clips (B, T, C, H, W). A model that mixes frames encodes them by itself."""
        if not self.inner.embeds_frames:
            return self.inner.encode_clips(frames_BTCHW)
        num_videos, num_frames = frames_BTCHW.shape[:2]
        flat = self.embed_frames(frames_BTCHW.reshape(-1, *frames_BTCHW.shape[2:]))
        return flat.reshape(num_videos, num_frames, -1)

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Wait for and return the embeddings (T, D) of at least one frame (T, C, H, W), in the order of the frames."""
        job = _Job(frames_TCHW)
        with self._lock:
            self._jobs.append(job)
        try:
            while not job.is_done:
                self._pool.submit(self._round).result()
        finally:
            with self._lock:
                if job in self._jobs:
                    self._jobs.remove(job)
        return np.concatenate(job.embeddings)

    def _round(self) -> None:
        """Embed some frames of every job.

        Each job asks for rounds until it is done, so the work of a round that fails is done by a later one.
        """
        with self._lock:
            jobs = [job for job in self._jobs if not job.is_done][: ROUND_FRAMES // PART_FRAMES]
        if not jobs:
            return
        parts = [job.frames[job.num_done : job.num_done + PART_FRAMES] for job in jobs]
        embeddings_ND = np.asarray(self.inner.embed_frames(np.concatenate(parts)), np.float32)
        self._on_round(len(embeddings_ND))
        ends = np.cumsum([len(part) for part in parts])[:-1]
        for job, part_ND in zip(jobs, np.split(embeddings_ND, ends), strict=True):
            job.embeddings.append(part_ND)
            job.num_done += len(part_ND)
        with self._lock:  # jobs that need more rounds go behind those that have not had one
            self._jobs = [job for job in self._jobs if job not in jobs] + [job for job in jobs if job in self._jobs]

    def close(self) -> None:
        """Start no more rounds. Threads that wait for one get an error."""
        self._pool.shutdown(wait=False, cancel_futures=True)
