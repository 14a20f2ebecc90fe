"""Open videos: used by one thread at a time, by the process that opened them, until they are closed."""

from __future__ import annotations

import os
from threading import RLock

from fewframes.errors import VideoError


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
