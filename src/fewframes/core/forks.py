"""Forked processes: objects whose threads stay behind in the parent are never taken down in a child."""

from __future__ import annotations

import ctypes
import os
from threading import RLock
from weakref import WeakSet

_owners: WeakSet[object] = WeakSet()
_lock = RLock()
"""Held during a fork, and while an owner is added: the set must not change while it is copied."""
_held: list[object] = []
"""Owners during a fork: a child frees what other threads held before it calls anything of ours."""


def keep_in_forks(owner: object) -> None:
    """Let a process that is forked from this one never free `owner`, which has threads of FFmpeg.

    A fork copies the objects but not their threads. FFmpeg waits for its threads when it frees a decoder, so a child in which
    the collector meets one would stand still for ever.
    """
    with _lock:
        _owners.add(owner)


def _hold() -> None:
    _lock.acquire()
    _held.extend(_owners)


def _let_go() -> None:
    _held.clear()
    _lock.release()


def _keep() -> None:
    for owner in _held:
        # A list would not do: what modules hold is freed when the interpreter ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    _let_go()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_keep)
