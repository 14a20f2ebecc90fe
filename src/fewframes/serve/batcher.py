"""Frames of several requests, embedded together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

SHARE_FRAMES = 16
"""Frames of each request in a round: a long video must not keep short ones waiting until it is through."""
ROUND_FRAMES = 256
"""Frames of all requests in a round."""


@dataclass(eq=False)
class _Job:
    frames: Tensor  # (T, C, H, W)
    parts: list[Tensor] = field(default_factory=list)
    num_done: int = 0

    @property
    def is_done(self) -> bool:
        return self.num_done == len(self.frames)


class Batcher:
    """`embed` of frames that come from several threads: rounds, one after the other, each with some frames of all that wait.

    Nobody waits for a batch to fill: a round takes what has gathered during the one before it.
    """

    def __init__(
        self, embed: Callable[[Tensor], Tensor], told: Callable[[int], None] = lambda num_frames: None
    ) -> None:
        """`told` hears how many frames a round had."""
        self._embed, self._told = embed, told
        self._jobs: list[_Job] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fewframes-encode")

    def embed(self, frames_TCHW: Tensor) -> Tensor:
        """Embeddings (T, D) of these frames (T, C, H, W), which must be one at least, in their order; waits for them."""
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
        return torch.cat(job.parts)

    def _round(self) -> None:
        """Some frames of every job. What a round that failed would have done, the next ones do: each job asks until it is done."""
        with self._lock:
            jobs = [job for job in self._jobs if not job.is_done][: ROUND_FRAMES // SHARE_FRAMES]
        if not jobs:
            return
        shares = [job.frames[job.num_done : job.num_done + SHARE_FRAMES] for job in jobs]
        rows_ND = self._embed(torch.cat(shares))
        self._told(len(rows_ND))
        for job, part_ND in zip(jobs, rows_ND.split([len(share) for share in shares]), strict=True):
            job.parts.append(part_ND)
            job.num_done += len(part_ND)
        with self._lock:  # those that are not through go behind the others
            self._jobs = [job for job in self._jobs if job not in jobs] + [job for job in jobs if job in self._jobs]

    def close(self) -> None:
        """No more rounds after the one that runs: who waits for one has an error."""
        self._pool.shutdown(wait=False, cancel_futures=True)
