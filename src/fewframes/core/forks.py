"""Protection of forked processes: objects that own threads are never freed in a child, where their threads do not exist."""

from __future__ import annotations

import ctypes
import os
from threading import RLock
from weakref import WeakSet

_owners: WeakSet[object] = WeakSet()
_lock = RLock()
"""Held during a fork, and while an owner is added: the set must not change while it is copied."""
_held: list[object] = []
"""References to the owners during a fork. Without them a child could free objects that other threads held, before it calls
`_keep`."""


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


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_keep)
