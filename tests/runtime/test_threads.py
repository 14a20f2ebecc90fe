"""Frames side by side on the cores: in order, with a share of the threads each, and nothing changed for anybody else."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from fewframes.runtime.threads import MOST_THREADS, num_threads, side_by_side


@pytest.fixture
def cores() -> Iterator[None]:
    """Four threads for torch, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("cores")
def test_parts_run_at_the_same_time_and_come_back_in_order() -> None:
    together = threading.Barrier(4)

    def square(number: int) -> int:
        together.wait(timeout=30)  # passes only when four are here at once
        return number**2

    assert side_by_side(square, range(8)) == [0, 1, 4, 9, 16, 25, 36, 49]


@pytest.mark.usefixtures("cores")
def test_each_lane_has_its_share_and_others_keep_theirs() -> None:
    assert num_threads() == 4
    assert side_by_side(lambda _: torch.get_num_threads(), range(8)) == [1] * 8
    assert torch.get_num_threads() == 4
    seen: list[int] = []
    started_later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    started_later.start()
    started_later.join()
    assert seen == [4]


@pytest.mark.parametrize(("cores", "threads", "cores_each"), [(1, 1, 1), (2, 2, 1), (8, 8, 1), (12, 6, 2), (32, 8, 4)])
def test_many_cores_share_a_thread(cores: int, threads: int, cores_each: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        assert num_threads() == threads <= MOST_THREADS
        assert set(side_by_side(lambda _: torch.get_num_threads(), range(16))) == {cores_each}
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("cores")
def test_one_part_stays_in_the_callers_thread() -> None:
    assert side_by_side(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]
    inside = side_by_side(lambda _: side_by_side(lambda _: threading.current_thread().name, range(2)), range(4))
    assert all(len(set(names)) == 1 for names in inside)  # a lane has one core: nothing to share any further


@pytest.mark.usefixtures("cores")
def test_what_goes_wrong_in_a_lane_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 // number, range(4))
    assert side_by_side(abs, range(4)) == [0, 1, 2, 3]


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("cores")
def test_a_forked_process_has_lanes_of_its_own() -> None:
    assert set(side_by_side(lambda _: os.getpid(), range(4))) == {os.getpid()}
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(side_by_side(lambda _: os.getpid(), range(4))))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert answers.get() == [child.pid] * 4
