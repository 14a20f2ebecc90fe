"""Share the frames of a clip among the cores of a CPU: each thread embeds frames of its own.

torch splits every single operation over all cores, and all of them wait for each other after it. A network of many small operations
waits a lot, and on a busy machine the slowest core holds up all the others (docs/decisions).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

from fewframes.core.guards import in_every_fork, take_one_thread

Part = TypeVar("Part")
Result = TypeVar("Result")

MOST_THREADS = 8
"""The most threads that embed frames. A clip has few frames, so with more cores than this several cores share a thread."""


def num_threads() -> int:
    """Return how many threads can embed frames side by side, given the cores that torch may use in this thread."""
    cores = torch.get_num_threads()
    return cores // _cores_each(cores)


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Run `work` on every part, in several threads, and return the results in the order of the parts.

    `work` must be safe to call from several threads at once.
    """
    cores = torch.get_num_threads()
    pool = _thread_pool(os.getpid(), cores) if cores > 1 and len(parts) > 1 else None
    return [work(part) for part in parts] if pool is None else list(pool.map(work, parts))


@lru_cache(maxsize=1)
def _thread_pool(process_id: int, cores: int) -> ThreadPoolExecutor | None:  # noqa: ARG001
    """Return a pool of threads with their own cores each; None where torch counts threads only for the whole process.

    The pool belongs to the process that made it: a forked process has none of its parent's threads, hence `process_id` in the key.
    """
    threads, cores_each = cores // _cores_each(cores), _cores_each(cores)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fewframes-network")
    all_here = threading.Barrier(threads)

    def take_cores(_: int) -> None:
        # A thread's first read takes over the process's number, and would undo a number that was set before it.
        torch.get_num_threads()
        torch.set_num_threads(cores_each)
        all_here.wait()  # so that every thread of the pool runs this once, and none runs it twice

    list(pool.map(take_cores, range(threads)))
    torch.set_num_threads(cores)  # threads that start later begin with the process's number
    found = set(pool.map(lambda _: torch.get_num_threads(), range(threads)))
    if found == {cores_each}:
        return pool
    pool.shutdown()
    return None


def _cores_each(cores: int) -> int:
    return -(-cores // MOST_THREADS)


in_every_fork(take_one_thread)
