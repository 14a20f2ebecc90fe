"""Threads that work ahead of the caller, and the memory of this process.

Threads help because FFmpeg releases Python's global lock.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fewframes.errors import FewframesError

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""The numbers of two parameters of mallopt, from malloc.h."""

Done = TypeVar("Done")


def worked_ahead(
    sources: Iterable[str | os.PathLike[str]], work: Callable[[str | os.PathLike[str]], Done], workers: int
) -> Iterator[tuple[str, Done | FewframesError]]:
    """Yield each source, in order, with the result of `work` or the error that it raised.

    `workers` sources are worked on at a time, and as many more are finished or waiting. Only errors of this package are
    yielded; any other is raised.

    Args:
        sources: the videos, taken from the iterable only as they are needed.
        work: called with each source, in a thread.
        workers: the number of threads.
    """
    remaining = iter(sources)
    waiting: deque[tuple[str, Future[Done]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="fewframes-decode") as pool:
        try:
            while True:
                for source in islice(remaining, 2 * workers - len(waiting)):
                    waiting.append((os.fspath(source), pool.submit(work, source)))
                if not waiting:
                    return
                name, future = waiting.popleft()
                try:
                    done = future.result()
                except FewframesError as error:
                    yield name, error
                    continue
                yield name, done
        finally:  # the caller may stop early; closing the pool then waits for running work alone
            for _, future in waiting:
                future.cancel()


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
