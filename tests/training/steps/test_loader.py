"""Which videos come when, what workers change (nothing), and what cannot be read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from fewframes.data.layouts import Sample
from fewframes.errors import DataError
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.steps.loader import ExampleOrder, TokenExamples, TrainingBatch, VideoExamples, read_batches
from fewframes.video.view import ViewConfig

VIEW = ViewConfig(resize_px=36, crop_px=32)


def rows_of(order: ExampleOrder, start: int, stop: int) -> list[int]:
    return [row for draws in order.batches(start, stop) for row, _ in draws]


def test_every_pass_has_each_video_once_and_an_order_of_its_own() -> None:
    order = ExampleOrder(num_examples=10, batch_size=4, seed=3)
    rows = rows_of(order, 0, 5)
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]
    assert rows_of(order, 2, 5) == rows[8:]  # from the middle of a pass, the same
    assert rows_of(ExampleOrder(num_examples=10, batch_size=4, seed=4), 0, 5) != rows
    seeds = [seed for draws in order.batches(0, 5) for _, seed in draws]
    assert len(set(seeds)) == 20


def test_processes_share_each_batch() -> None:
    alone = list(ExampleOrder(num_examples=9, batch_size=4, seed=0).batches(0, 4))
    parts = [list(ExampleOrder(9, 2, 0, rank=rank, num_processes=2).batches(0, 4)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == alone


def test_weights_decide_how_often() -> None:
    counts = Counter(rows_of(ExampleOrder(4, 8, seed=0, weights=(0.7, 0.1, 0.1, 0.1)), 0, 100))
    assert counts[0] / 800 == pytest.approx(0.7, abs=0.05)


def test_tokens_are_drawn_with_their_view() -> None:
    tokens_BVTW = torch.arange(12.0).view(3, 4, 1, 1)
    batches = list(read_batches(TokenExamples(tokens_BVTW), ExampleOrder(3, 3, seed=0), 0, 40, workers=0))
    seen = {
        (int(row), int(value) - 4 * int(row))
        for batch in batches
        for row, value in zip(batch.rows, batch.inputs.flatten(), strict=True)
    }
    assert seen == {(row, view) for row in range(3) for view in range(4)}


def videos(clips: Path, *, jitter: bool = True) -> VideoExamples:
    samples = tuple(Sample(path=str(clips / "redden" / f"{number}.mp4"), labels=("redden",)) for number in range(4))
    return VideoExamples(samples, 4, VIEW, AugmentConfig(jitter=jitter, colour=0.0), mirror=True)


def test_workers_change_nothing(clips: Path) -> None:
    order = ExampleOrder(4, 2, seed=0)
    alone, ahead = (list(read_batches(videos(clips), order, 1, 4, workers)) for workers in (0, 2))
    assert len(alone) == len(ahead) == 3
    for one, other in zip(alone, ahead, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.rows, other.rows)
    assert alone[0].inputs.shape == (2, 4, 3, 32, 32)
    assert alone[0].inputs.dtype == torch.uint8


def test_moments_are_jittered_and_the_centre_otherwise(clips: Path) -> None:
    def reds(*, jitter: bool) -> set[tuple[int, ...]]:
        batches = read_batches(videos(clips, jitter=jitter), ExampleOrder(4, 4, seed=0), 0, 3, 0)
        return {tuple(video[:, 0, 16, 16].tolist()) for batch in batches for video in batch.inputs}

    assert len(reds(jitter=False)) == 4  # one for each video, whatever the pass
    assert len(reds(jitter=True)) > 8


def test_what_cannot_be_read_is_named_and_left_out(clips: Path) -> None:
    samples = (*videos(clips).samples[:1], Sample(path=str(clips / "redden" / "broken.mp4"), labels=("redden",)))
    examples = VideoExamples(samples, 4, VIEW, AugmentConfig(), mirror=False)
    (batch,) = read_batches(examples, ExampleOrder(2, 2, seed=0), 0, 1, workers=0)
    assert batch.rows.tolist() == [0]
    assert list(batch.failed) == [1]
    assert "broken.mp4: not a video" in batch.failed[1]
    alone = VideoExamples(samples[1:], 4, VIEW, AugmentConfig(), mirror=False)
    for workers in (0, 1):
        with pytest.raises(DataError, match="none of the videos of a batch could be read: .*broken.mp4"):
            list(read_batches(alone, ExampleOrder(1, 1, seed=0), 0, 1, workers))


def test_a_pinned_batch_has_all_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: what is pinned is written down."""
    pinned: list[torch.Tensor] = []

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", noted)
    batch = TrainingBatch(torch.ones(2, 3), torch.tensor([4, 7]), {1: "broken"}, 0.5)
    same = batch.pin_memory()
    assert [tensor.tolist() for tensor in pinned] == [[[1.0] * 3] * 2, [4, 7]]
    assert (same.rows.tolist(), same.failed, same.waited_s) == ([4, 7], {1: "broken"}, 0.5)
