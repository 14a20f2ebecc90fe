"""Training examples -> batches, in an order that the seed and the number of the step decide alone.

So a run that was interrupted goes on with exactly the batch that would have come next, whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fewframes.augment import TrainingView
from fewframes.config import AugmentConfig, ViewConfig
from fewframes.errors import DataError, VideoError
from fewframes.layouts import Sample
from fewframes.sampling import centre_times, jittered_times
from fewframes.video import open_video

Draw = tuple[int, int]
"""Which example, and the seed of what is drawn for it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """`inputs` (B, T, D) tokens or (B, T, C, H, W) uint8 frames of the examples `rows` (B,); `failed` maps the rows that could
    not be read to the reason; `waited_s` is how long the batch was waited for."""

    inputs: Tensor
    rows: Tensor
    failed: dict[int, str] = field(default_factory=dict)
    waited_s: float = 0.0


class TokenExamples(Dataset[Batch]):
    """Tokens (B, V, T, W) that lie ready, one view drawn each time."""

    def __init__(self, tokens_BVTW: Tensor) -> None:
        self.tokens_BVTW = tokens_BVTW

    def __len__(self) -> int:
        return len(self.tokens_BVTW)

    def __getitem__(self, draws: Sequence[Draw]) -> Batch:
        rows_B = torch.tensor([row for row, _ in draws])
        views_B = torch.tensor([seed % self.tokens_BVTW.shape[1] for _, seed in draws])
        return Batch(self.tokens_BVTW[rows_B, views_B], rows_B)


@dataclass(frozen=True)
class VideoExamples(Dataset[Batch]):
    """Videos that are decoded and changed each time anew."""

    samples: tuple[Sample, ...]
    num_frames: int
    view: ViewConfig
    augment: AugmentConfig
    mirror: bool

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draws: Sequence[Draw]) -> Batch:
        frames: list[Tensor] = []
        rows: list[int] = []
        failed: dict[int, str] = {}
        for row, seed in draws:
            try:
                frames.append(self._read(self.samples[row], torch.Generator().manual_seed(seed)))
                rows.append(row)
            except VideoError as error:
                failed[row] = str(error)
        return Batch(torch.stack(frames) if frames else torch.empty(0), torch.tensor(rows), failed)

    def _read(self, sample: Sample, generator: torch.Generator) -> Tensor:
        drawn = TrainingView(self.view, self.augment, generator, mirror=self.mirror)
        with closing(open_video(sample.path, threads=1)) as video:
            length, start_s, end_s = (video.duration_s, self.num_frames), sample.start_s, sample.end_s
            try:
                if self.augment.jitter:
                    times_s = jittered_times(*length, generator, start_s=start_s, end_s=end_s)
                else:
                    times_s = centre_times(*length, start_s=start_s, end_s=end_s)
            except ValueError as error:
                raise VideoError(f"{video.name}: {error}") from None
            clip = video.frames_at(times_s, drawn.fit_frame)
        return drawn.finish(clip.frames)


@dataclass(frozen=True)
class Order:
    """Which examples come when: each once in every pass, in an order of its own; or drawn with `weights`.

    Of each batch of the run, numbered from 0, this is the part of process `rank`.
    """

    num_examples: int
    batch_size: int
    seed: int
    rank: int = 0
    num_processes: int = 1
    weights: tuple[float, ...] = ()

    def batches(self, start: int, stop: int) -> Iterator[list[Draw]]:
        """The batches from `start` up to `stop`."""
        passes: dict[int, list[int]] = {}
        for number in range(start, stop):
            first = (number * self.num_processes + self.rank) * self.batch_size
            draws = []
            for place in range(first, first + self.batch_size):
                turn, at = divmod(place, self.num_examples)
                if turn not in passes:
                    passes = {old: rows for old, rows in passes.items() if old == turn - 1} | {turn: self._pass(turn)}
                draws.append((passes[turn][at], _seed_of(self.seed, place)))
            yield draws

    def _pass(self, turn: int) -> list[int]:
        generator = torch.Generator().manual_seed(_seed_of(self.seed, turn, "pass"))
        if self.weights:
            chosen = torch.multinomial(torch.tensor(self.weights), self.num_examples, True, generator=generator)
        else:
            chosen = torch.randperm(self.num_examples, generator=generator)
        order: list[int] = chosen.tolist()
        return order


def read_batches(
    examples: TokenExamples | VideoExamples, order: Order, start: int, stop: int, workers: int
) -> Iterator[Batch]:
    """The batches `start` to `stop` of an order, made ahead by `workers` processes."""
    loader = DataLoader(
        examples,
        sampler=_Numbers(order, start, stop),
        batch_size=None,
        generator=torch.Generator(),
        num_workers=workers,
        # Not forked: threads of torch that have already computed do not survive that.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
    )
    batches = iter(loader)
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        if len(batch.rows) == 0:
            raise DataError(f"not one video of a batch could be read: {'; '.join(batch.failed.values())}")
        yield Batch(batch.inputs, batch.rows, batch.failed, time.perf_counter() - began)


@dataclass(frozen=True)
class _Numbers:
    order: Order
    start: int
    stop: int

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.order.batches(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def _seed_of(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest())
