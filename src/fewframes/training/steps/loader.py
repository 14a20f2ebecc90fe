"""Make batches of training examples, in an order that depends on nothing but the seed and the number of the step.

A run that was interrupted therefore continues with exactly the batch that would have come next, whatever the number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fewframes.data.layouts import Sample
from fewframes.errors import DataError, VideoError
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.steps.augment import read_one_drawn, seed_of
from fewframes.video.view import ViewConfig

Draw = tuple[int, int]
"""The index of an example, and the seed of what is drawn for it."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """A batch of training examples."""

    inputs: Tensor
    """Tokens (B, T, W), or uint8 frames (B, T, C, H, W)."""
    rows: Tensor
    """The indices (B,) of these examples."""
    failed: dict[int, str] = field(default_factory=dict)
    """The reason for each index whose video could not be read."""
    waited_s: float = 0.0
    """Seconds that training waited for the batch."""

    def pin_memory(self) -> TrainingBatch:
        """Return the batch in pinned memory, from which a GPU copies while it computes. DataLoader calls this."""
        return replace(self, inputs=self.inputs.pin_memory(), rows=self.rows.pin_memory())


class TokenExamples(Dataset[TrainingBatch]):
    """Examples whose tokens (B, V, T, W) are in memory. Each time, one of the V views is drawn."""

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
    """Examples that are decoded, and randomly augmented, each time anew."""

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
                frames.append(
                    read_one_drawn(
                        self.samples[row], self.num_frames, self.view, self.augment, seed, mirror=self.mirror
                    )
                )
                rows.append(row)
            except VideoError as error:
                failed[row] = str(error)
        return TrainingBatch(torch.stack(frames) if frames else torch.empty(0), torch.tensor(rows), failed)


@dataclass(frozen=True)
class ExampleOrder:
    """The order in which examples are trained on: each once in every pass, shuffled anew; or drawn with `weights`.

    Batches are numbered from 0 over the whole run. Of each, this is the part of process `rank`.
    """

    num_examples: int
    batch_size: int
    seed: int
    rank: int = 0
    num_processes: int = 1
    weights: tuple[float, ...] = ()

    def batches(self, start: int, stop: int) -> Iterator[list[Draw]]:
        """Yield the draws of each batch from number `start` up to, but without, `stop`."""
        passes: dict[int, list[int]] = {}
        for number in range(start, stop):
            first = (number * self.num_processes + self.rank) * self.batch_size
            draws = []
            # Positions count all examples of the run. A batch may begin in one pass and end in the next.
            for position in range(first, first + self.batch_size):
                epoch, at = divmod(position, self.num_examples)
                if epoch not in passes:
                    passes = {old: rows for old, rows in passes.items() if old == epoch - 1}
                    passes[epoch] = self._pass(epoch)
                draws.append((passes[epoch][at], seed_of(self.seed, position)))
            yield draws

    def _pass(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch, "pass"))
        if self.weights:
            chosen = torch.multinomial(torch.tensor(self.weights), self.num_examples, True, generator=generator)
        else:
            chosen = torch.randperm(self.num_examples, generator=generator)
        order: list[int] = chosen.tolist()
        return order


def read_batches(
    examples: TokenExamples | VideoExamples,
    order: ExampleOrder,
    start: int,
    stop: int,
    workers: int,
    *,
    pinned: bool = False,
) -> Iterator[TrainingBatch]:
    """Yield the batches of an order, read ahead by worker processes.

    Args:
        examples: The examples to read.
        order: The order in which they come.
        start: Number of the first batch.
        stop: Number after that of the last batch.
        workers: Number of processes that read; 0 reads in this one.
        pinned: Put batches in pinned memory, in a thread of its own if there are workers. For GPUs.

    Raises:
        DataError: Not a single video of a batch could be read.
    """
    loader = DataLoader(
        examples,
        sampler=_BatchSampler(order, start, stop),
        batch_size=None,
        generator=torch.Generator(),
        num_workers=workers,
        # Not forked: torch's threads do not survive a fork once they have computed.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
        pin_memory=pinned,
    )
    batches = iter(loader)
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        if len(batch.rows) == 0:
            raise DataError(f"none of the videos of a batch could be read: {'; '.join(batch.failed.values())}")
        yield replace(batch, waited_s=time.perf_counter() - began)


@dataclass(frozen=True)
class _BatchSampler:
    """The batches `start` to `stop` of an order, as a sampler of DataLoader."""

    order: ExampleOrder
    start: int
    stop: int

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.order.batches(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start
