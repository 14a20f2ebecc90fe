"""Training examples -> batches, in an order that the seed and the number of the step decide alone.

So a run that was interrupted goes on with exactly the batch that would have come next, whatever the number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fewframes.data.layouts import Sample
from fewframes.errors import DataError, VideoError
from fewframes.training.augment import AugmentConfig, read_drawn, seed_of
from fewframes.video.view import ViewConfig

Draw = tuple[int, int]
"""Which example, and the seed of what is drawn for it."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """`inputs` (B, T, D) tokens or (B, T, C, H, W) uint8 frames of the examples `rows` (B,); `failed` maps the rows that could
    not be read to the reason; `waited_s` is how long the batch was waited for."""

    inputs: Tensor
    rows: Tensor
    failed: dict[int, str] = field(default_factory=dict)
    waited_s: float = 0.0


class TokenExamples(Dataset[TrainingBatch]):
    """Tokens (B, V, T, W) that lie ready, one view drawn each time."""

    def __init__(self, tokens_BVTW: Tensor) -> None:
        self.tokens_BVTW = tokens_BVTW

    def __len__(self) -> int:
        return len(self.tokens_BVTW)

    def __getitem__(self, draws: Sequence[Draw]) -> TrainingBatch:
        rows_B = torch.tensor([row for row, _ in draws])
        views_B = torch.tensor([seed % self.tokens_BVTW.shape[1] for _, seed in draws])
        return TrainingBatch(self.tokens_BVTW[rows_B, views_B], rows_B)


@dataclass(frozen=True)
class VideoExamples(Dataset[TrainingBatch]):
    """Videos that are decoded and changed each time anew."""

    samples: tuple[Sample, ...]
    num_frames: int
    view: ViewConfig
    augment: AugmentConfig
    mirror: bool

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draws: Sequence[Draw]) -> TrainingBatch:
        frames: list[Tensor] = []
        rows: list[int] = []
        failed: dict[int, str] = {}
        for row, seed in draws:
            try:
                frames += read_drawn(
                    self.samples[row], self.num_frames, self.view, self.augment, [seed], mirror=self.mirror
                )
                rows.append(row)
            except VideoError as error:
                failed[row] = str(error)
        return TrainingBatch(torch.stack(frames) if frames else torch.empty(0), torch.tensor(rows), failed)


@dataclass(frozen=True)
class ExampleOrder:
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
                draws.append((passes[turn][at], seed_of(self.seed, place)))
            yield draws

    def _pass(self, turn: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, turn, "pass"))
        if self.weights:
            chosen = torch.multinomial(torch.tensor(self.weights), self.num_examples, True, generator=generator)
        else:
            chosen = torch.randperm(self.num_examples, generator=generator)
        order: list[int] = chosen.tolist()
        return order


def read_batches(
    examples: TokenExamples | VideoExamples, order: ExampleOrder, start: int, stop: int, workers: int
) -> Iterator[TrainingBatch]:
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
        yield TrainingBatch(batch.inputs, batch.rows, batch.failed, time.perf_counter() - began)


@dataclass(frozen=True)
class _Numbers:
    order: ExampleOrder
    start: int
    stop: int

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.order.batches(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start
