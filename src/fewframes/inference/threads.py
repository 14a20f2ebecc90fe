"""How the cores of a CPU share the frames: side by side, each core with frames of its own.

torch splits every single operation over all cores and lets them wait for each other after it. A network of many small
operations waits a lot, and on a machine that does other work too the slowest core holds up all the others (docs/decisions.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

MOST_LANES = 8
"""Lanes at most: a clip has few frames, so more cores than that share a lane."""


def num_lanes() -> int:
    """How many parts of the work can run side by side, by the threads that torch may use in this thread."""
    cores = torch.get_num_threads()
    return cores // _share(cores)


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """The results of the parts, in their order. `work` must bear being called from several threads at once."""
    cores = torch.get_num_threads()
    pool = _lanes(os.getpid(), cores) if cores > 1 and len(parts) > 1 else None
    return [work(part) for part in parts] if pool is None else list(pool.map(work, parts))


@lru_cache(maxsize=1)
def _lanes(process_id: int, cores: int) -> ThreadPoolExecutor | None:  # noqa: ARG001
    """Threads that have their share of the cores each; None where torch counts threads for the whole process alone.

    They belong to the process that started them: a fork has none of its parent's, hence its number among the arguments.
    """
    lanes, share = cores // _share(cores), _share(cores)
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="fewframes-lane")
    all_here = threading.Barrier(lanes)

    def take_share(_: int) -> None:
        torch.get_num_threads()  # a thread's first look takes the process's number, and would take back what was set before it
        torch.set_num_threads(share)
        all_here.wait()

    list(pool.map(take_share, range(lanes)))
    torch.set_num_threads(cores)  # what threads that start later begin with
    kept = set(pool.map(lambda _: torch.get_num_threads(), range(lanes)))
    if kept == {share}:
        return pool
    pool.shutdown()
    return None


def _share(cores: int) -> int:
    return -(-cores // MOST_LANES)


def _take_one_thread() -> None:
    # A fork has none of the threads that torch splits its work over, and torch would wait for them for ever.
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_take_one_thread)
