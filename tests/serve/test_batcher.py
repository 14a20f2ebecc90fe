"""Frames of several threads embedded together: the same rows as alone, fairly shared, and no failure drags others along."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from fewframes.serve.batcher import PART_FRAMES, ROUND_FRAMES, Batcher


def row_of(frames_TCHW: Tensor) -> Tensor:
    return frames_TCHW.flatten(1).double().mean(dim=1, keepdim=True)


def test_each_gets_its_own_rows_in_their_order() -> None:
    clips = [torch.randint(0, 256, (length, 3, 4, 4)).byte() for length in (1, 16, 17, 40, 3, 64)]
    rounds: list[int] = []
    batcher = Batcher(row_of, rounds.append)
    with ThreadPoolExecutor(len(clips)) as pool:
        found = list(pool.map(batcher.embed, clips))
    batcher.close()
    for clip, rows in zip(clips, found, strict=True):
        torch.testing.assert_close(rows, row_of(clip), rtol=0, atol=0)
    assert sum(rounds) == sum(map(len, clips))
    assert max(rounds) <= ROUND_FRAMES


def test_what_waits_goes_together_and_a_long_one_keeps_no_short_one_waiting() -> None:
    open_door, order = threading.Event(), []

    def slow(frames_TCHW: Tensor) -> Tensor:
        open_door.wait(10)
        order.append(sorted({int(frame.max()) for frame in frames_TCHW}))
        return row_of(frames_TCHW)

    batcher = Batcher(slow)
    with ThreadPoolExecutor(3) as pool:
        long = pool.submit(batcher.embed, torch.full((5 * PART_FRAMES, 1, 1, 1), 1).byte())
        time.sleep(0.1)  # its first share is in the round that waits at the door
        short = [pool.submit(batcher.embed, torch.full((4, 1, 1, 1), number).byte()) for number in (2, 3)]
        time.sleep(0.1)
        open_door.set()
        for future in [*short, long]:
            future.result()
    batcher.close()
    assert order[0] == [1]
    assert order[1] == [1, 2, 3]
    assert order[2:] == [[1]] * 3


def test_a_failed_round_fails_the_one_that_asked_and_no_other() -> None:
    def picky(frames_TCHW: Tensor) -> Tensor:
        if (frames_TCHW == 7).any():
            raise RuntimeError("out of memory")
        return row_of(frames_TCHW)

    batcher = Batcher(picky)
    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.embed(torch.full((2, 1, 1, 1), 7).byte())
    assert batcher.embed(torch.full((2, 1, 1, 1), 6).byte()).tolist() == [[6.0], [6.0]]
    batcher.close()
