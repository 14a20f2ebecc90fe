"""Threads that work ahead of the caller, the report of how far work is, and the cores and memory of this process.

Threads help because FFmpeg releases Python's global lock.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fewframes.core.guards import check_process
from fewframes.errors import FewframesError

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""The numbers of two parameters of mallopt, from malloc.h."""

Progress = Callable[[str, int, int], None]
"""A function that is called with the name of the stage, the number done, and the number in all (0 if that is unknown)."""
TalkingProgress = Callable[[str, int, int, str], None]
"""A `Progress` that takes a line of text too."""

Item = TypeVar("Item")
Done = TypeVar("Done")


def worked_ahead(
    items: Iterable[Item], work: Callable[[Item], Done], workers: int, ahead: int | None = None
) -> Generator[tuple[Item, Done | FewframesError], None, None]:
    """Yield each item, in order, with the result of `work` or the error that it raised.

    Only errors of this package are yielded; any other is raised.

    Args:
        items: The items, such as videos, taken from the iterable only as they are needed.
        work: Called with each item, in a thread.
        workers: The number of threads.
        ahead: Items that are worked on, finished or waiting while the caller uses one. Two per thread by default.
    """
    ahead, process_id = 2 * workers - 1 if ahead is None else ahead, os.getpid()
    remaining = iter(items)
    waiting: deque[tuple[Item, Future[Done]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fewframes-decode")

    def fill(most: int) -> None:
        waiting.extend((item, pool.submit(work, item)) for item in islice(remaining, most - len(waiting)))

    try:
        while True:
            check_process(process_id, "videos read ahead")
            fill(max(1, ahead))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                done = future.result()
            except FewframesError as error:
                yield item, error  # nothing more is begun, because the caller may give up
                continue
            fill(ahead)
            yield item, done
    finally:  # the caller may stop early; closing the pool then waits for running work alone
        if process_id == os.getpid():  # a fork has none of the threads, and they may have held locks
            for _, future in waiting:
                future.cancel()
            pool.shutdown()


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the name of the processor for people."""
    cpuinfo = Path("/proc/cpuinfo")  # on Linux `platform` knows only the architecture
    if cpuinfo.is_file():
        models = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        if name := next(models, ""):
            return name
    return platform.processor() or platform.machine()


def keep_memory() -> None:
    """Let malloc keep memory that the network frees, instead of fetching zeroed memory again for each layer (docs/decisions).

    Only processes of the command may call this, because they are its own; a library must not change the allocator. Without
    glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # Older versions of glibc refuse more than 2**25.
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def wait_asleep() -> None:
    """Let the threads of OpenMP sleep while they wait, unless the environment says how they wait.

    By default they keep their cores busy for a while after each operation. Beside other work that stops the thread that they
    wait for, and fitting to cached embeddings takes several times as long (docs/decisions). Only processes of the command may
    call this, before torch is loaded, because OpenMP reads the setting once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
