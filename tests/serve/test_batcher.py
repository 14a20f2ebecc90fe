"""Frames of several threads embedded together: the same rows as alone, fairly shared, and no failure drags others along."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from fewframes.serve.batcher import PART_FRAMES, ROUND_FRAMES, BatchingRuntime

Frames = NDArray[np.uint8]


def row_of(frames_TCHW: Frames) -> NDArray[np.float32]:
    return frames_TCHW.reshape(len(frames_TCHW), -1).mean(axis=1, keepdims=True, dtype=np.float32)


def grey(count: int, level: int) -> Frames:
    return np.full((count, 1, 1, 1), level, np.uint8)


@dataclass
class Runtime:
    """A runtime that embeds frames with a function, and has labels."""

    embed_frames: Callable[[Frames], NDArray[np.float32]]
    labels: tuple[str, ...] = ("hug", "kick")


def test_all_else_is_asked_of_the_inner_runtime() -> None:
    batcher = BatchingRuntime(Runtime(row_of))  # type: ignore[arg-type]
    assert batcher.labels == ("hug", "kick")
    with pytest.raises(AttributeError, match="view"):
        _ = batcher.view
    batcher.close()


def test_each_gets_its_own_rows_in_their_order() -> None:
    generator = np.random.default_rng(0)
    clips = [generator.integers(0, 256, (length, 3, 4, 4), np.uint8) for length in (1, 16, 17, 40, 3, 64)]
    rounds: list[int] = []
    batcher = BatchingRuntime(Runtime(row_of), rounds.append)  # type: ignore[arg-type]
    with ThreadPoolExecutor(len(clips)) as pool:
        found = list(pool.map(batcher.embed_frames, clips))
    batcher.close()
    for clip, rows in zip(clips, found, strict=True):
        np.testing.assert_array_equal(rows, row_of(clip))
    assert sum(rounds) == sum(map(len, clips))
    assert max(rounds) <= ROUND_FRAMES


def test_what_waits_goes_together_and_a_long_one_keeps_no_short_one_waiting() -> None:
    open_door, order = threading.Event(), []

    def slow(frames_TCHW: Frames) -> NDArray[np.float32]:
        open_door.wait(10)
        order.append(sorted({int(frame.max()) for frame in frames_TCHW}))
        return row_of(frames_TCHW)

    batcher = BatchingRuntime(Runtime(slow))  # type: ignore[arg-type]
    with ThreadPoolExecutor(3) as pool:
        long = pool.submit(batcher.embed_frames, grey(5 * PART_FRAMES, 1))
        time.sleep(0.1)  # its first share is in the round that waits at the door
        short = [pool.submit(batcher.embed_frames, grey(4, number)) for number in (2, 3)]
        time.sleep(0.1)
        open_door.set()
        for future in [*short, long]:
            future.result()
    batcher.close()
    assert order[0] == [1]
    assert order[1] == [1, 2, 3]
    assert order[2:] == [[1]] * 3


def test_a_failed_round_fails_the_one_that_asked_and_no_other() -> None:
    def picky(frames_TCHW: Frames) -> NDArray[np.float32]:
        if (frames_TCHW == 7).any():
            raise RuntimeError("out of memory")
        return row_of(frames_TCHW)

    batcher = BatchingRuntime(Runtime(picky))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.embed_frames(grey(2, 7))
    assert batcher.embed_frames(grey(2, 6)).tolist() == [[6.0], [6.0]]
    batcher.close()
