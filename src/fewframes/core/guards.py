"""Open videos: used by one thread at a time, by the process that opened them, until they are closed.

A fork copies objects, but not the threads that they own. So such objects are never freed in a forked process, and what would wait
there for a thread that does not exist is an error instead.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from threading import RLock
from weakref import WeakSet

from fewframes.errors import VideoError

_owners: WeakSet[object] = WeakSet()
_lock = RLock()
"""Held during a fork, and while an owner is added: the set must not change while it is copied."""
_held: list[object] = []
"""References to the owners during a fork. Without them a child could free objects that other threads held, before it calls
`_keep`."""


class Guard:
    """Let one thread in at a time. FFmpeg and Pillow keep their place in a file, and a second thread in a decoder ends the process.

    A forked process shares the place in the file but has none of the decoder's threads, for which it would wait for ever.
    """

    def __init__(self, name: str) -> None:
        self._name, self._process_id, self._lock = name, os.getpid(), RLock()
        self.is_closed = False

    @property
    def is_own(self) -> bool:
        """True in the process that opened the video, False in a child forked from it."""
        return self._process_id == os.getpid()

    def __enter__(self) -> None:
        if not self.is_own:  # asked before the lock, which a thread of the other process may have held
            raise VideoError(f"{self._name}: opened by another process, before a fork; open it again in this one")
        self._lock.acquire()
        if self.is_closed:
            self._lock.release()
            raise VideoError(f"{self._name}: the video is closed; open it again")

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def close(self) -> bool:
        """Let nobody in any more, once whoever is inside has left; return whether there is something left to close here."""
        if not self.is_own:
            return False
        with self._lock:
            was_open, self.is_closed = not self.is_closed, True
            return was_open


def check_process(process_id: int, what: str) -> None:
    """Raise VideoError in any other process than that of this id: in one forked from it, which has none of its threads.

    Args:
        process_id: the process that began the work.
        what: what the message calls the work.
    """
    if process_id != os.getpid():
        raise VideoError(
            f"{what}: begun by another process, before a fork, and its threads are not in this one; begin it again here, or "
            'start processes with multiprocessing.get_context("spawn")'
        )


def keep_in_forks(owner: object) -> None:
    """Make sure that no process forked from this one ever frees `owner`, an object with threads of FFmpeg.

    A fork copies the objects but not their threads. FFmpeg waits for its threads when it frees a decoder, so a child whose
    garbage collector frees one would hang for ever.
    """
    with _lock:
        _owners.add(owner)


def _hold() -> None:
    """Keep all owners alive while the process forks."""
    _lock.acquire()
    _held.extend(_owners)


def _let_go() -> None:
    _held.clear()
    _lock.release()


def _keep() -> None:
    """Keep all owners alive for ever, in the child."""
    for owner in _held:
        # A list is not enough, because the interpreter frees the variables of modules when it ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    _let_go()


@cache  # so that nothing is called twice
def in_every_fork(act: Callable[[], None]) -> None:
    """Call `act` in every process that is forked from this one from now on."""
    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(after_in_child=act)


def take_one_thread() -> None:
    """Let torch compute in one thread: it would wait for ever for threads that it had before a fork."""
    sys.modules["torch"].set_num_threads(1)


def end_without_destructors() -> None:
    """Let this process, a fork, end at once when it exits.

    When a process exits, ONNX Runtime and OpenVINO wait for threads that a fork does not have (docs/decisions). What glibc's
    `on_exit` is given last runs first, so `_exit` ends the process before that. Python has written its files by then.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_keep)
