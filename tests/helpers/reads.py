"""Tell if a file is opened, whoever opens it: Python, or FFmpeg inside it (Linux only)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

IN_OPEN = 0x20
needs_inotify = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells that a file is opened")


@contextmanager
def opened(path: Path) -> Iterator[list[bool]]:
    """Yield a list that has one value at the end of the block: True if the file was opened in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init1(os.O_NONBLOCK)
    found: list[bool] = []
    try:
        assert libc.inotify_add_watch(watcher, os.fsencode(path), IN_OPEN) >= 0, os.strerror(ctypes.get_errno())
        yield found
        try:
            found.append(bool(os.read(watcher, 2**16)))
        except BlockingIOError:
            found.append(False)
    finally:
        os.close(watcher)
