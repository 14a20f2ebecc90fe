"""Work on many videos that runs ahead of who takes its results (FFmpeg works outside Python's lock)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from fewframes.errors import FewframesError

Done = TypeVar("Done")


def worked_ahead(
    sources: Iterable[str | os.PathLike[str]], work: Callable[[str | os.PathLike[str]], Done], workers: int
) -> Iterator[tuple[str, Done | FewframesError]]:
    """Each source, in their order, with what `work` made of it or the error that it raised; `workers` are worked on at a time, and
    as many more are ready or next."""
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
        finally:
            for _, future in waiting:
                future.cancel()
