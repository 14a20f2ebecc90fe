"""The requests inside a server: how long each may take, and why it ends before that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import IO

from fewframes.errors import FewframesError, Refusal

CLIENT_GONE = 499
"""The status in the metrics of a request whose client went away."""
MOST_CHARS = 1000
"""The most characters of an error in an answer."""


@dataclass(eq=False)
class RequestTask:
    """A request inside the service: its time, its slot, and whether its client still waits."""

    timeout_s: float
    began: float = field(default_factory=time.monotonic)
    has_slot: bool = False
    """True once the whole body has come: the request then counts among those that are worked on or wait."""
    cut: Refusal | None = None
    """The reason for which it ends before its time is over; None if it does not."""
    on_end: Callable[[], object] = lambda: None
    """Called, from any thread, when it is ended before its time."""

    @property
    def left_s(self) -> float:
        """Return the seconds that the request still has."""
        return 0.0 if self.cut else max(0.0, self.began + self.timeout_s - time.monotonic())

    def end(self, why: Refusal) -> None:
        """End the request as soon as possible, for this reason unless there was one before."""
        self.cut = self.cut or why
        self.on_end()

    def refusal(self) -> Refusal:
        """Return the refusal for a request that was ended, or whose time is over (408)."""
        return self.cut or Refusal(
            408,
            f"not done after {self.timeout_s:g} s, the limit of this server; send a shorter video, or try again later",
        )

    def check(self) -> None:
        """Raise Refusal if the request was ended, or its time is over."""
        if not self.left_s:
            raise self.refusal()


class NamedFile:
    """An open file under the name that its sender gave it.

    Once its task is over it reads as ended, so that a decoder stops, and `failure` has the reason (`core.storage.unbroken`).
    """

    def __init__(self, file: IO[bytes], name: str, task: RequestTask) -> None:
        self.name, self._file, self._task = name, file, task
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) if self._task.left_s else b""

    @property
    def failure(self) -> Refusal | None:
        """Return the reason for which the file ended early; None if it did not."""
        return None if self._task.left_s else self._task.refusal()


def gone() -> Refusal:
    """Return the refusal that is counted for a request whose client went away."""
    return Refusal(CLIENT_GONE, "the client went away")


def stopping() -> Refusal:
    """Return the refusal (503) of a server that stops."""
    return Refusal(503, "this server is stopping; try again in a moment", retry_s=5)


@asynccontextmanager
async def in_time(task: RequestTask) -> AsyncIterator[None]:
    """Limit what is awaited inside to the time of the task. Raises Refusal if its time is over or it is ended early."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the block is left already
            limit.reschedule(0)

    try:
        async with asyncio.timeout(task.left_s) as limit:
            task.on_end = lambda: loop.call_soon_threadsafe(wake)
            yield
    except TimeoutError:
        raise task.refusal() from None
    finally:
        task.on_end = lambda: None


def in_a_line(error: FewframesError) -> str:
    """Return the message of an error in one line of limited length, however long the name of the video in it is."""
    line = " ".join(str(error).splitlines())
    return line if len(line) <= MOST_CHARS else f"{line[: MOST_CHARS // 2]} ... {line[-MOST_CHARS // 2 :]}"


class ProgressLines:
    """A queue of progress, from the thread that works on a task to the event loop that writes the answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

    def report(self, done: int, total: int) -> None:
        """Report that `done` of `total` frames are embedded. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._news.put_nowait, (done, total))

    def end(self) -> None:
        """Report that nothing more comes. May be called from any thread."""
        with suppress(RuntimeError):  # the loop is closed, so nobody reads any more
            self._loop.call_soon_threadsafe(self._news.put_nowait, None)

    async def next(self) -> tuple[int, int] | None:
        """Wait for the next report and return its (done, total); None after the last one."""
        return await self._news.get()
