"""FFmpeg's log as a sign of damage: some decoders only log what they patch up.

PyAV passes on what a decoder's own threads log under Python's lock, which its owner has while it ends them: both would wait for
each other. So a decoder is heard from its opening until it has been flushed (`flush_buffers` waits for its threads without the
lock), and only then ended. Where none is open PyAV ignores the log, as it does by default.
"""

from __future__ import annotations

import os
import re
from threading import RLock

import av.logging

WRONG_PIXELS = re.compile(
    r"co located POCs unavailable|error while decoding|error at MB|conceal|damaged|CRC mismatch|slice mismatch|end mismatch"
    r"|decode failed|no keyframe|could not find ref|missing reference|overread|exceeds containing|EBML"
    r"|zlib resync|inflat|decompress|used \d+ of \d+ bytes",
    re.IGNORECASE,
)
"""What FFmpeg logs of pictures that it patches up, and of parts of a file that it passes over. Other errors in the log are of what
no picture depends on."""
OF_THE_PAST = "unref short failure"
"""What H.264 logs, as an error, where a picture gives up one that is not there, and is complete itself."""

Message = tuple[int, str, str]


class _Log:
    """FFmpeg's log, switched on for as long as anybody hears it."""

    def __init__(self) -> None:
        self.lock, self._num_hearing, self._is_ours, self._skipped = RLock(), 0, False, True
        self._of_threads = av.logging.Capture(local=False)
        self.of_threads: list[Message] = []
        """What decoders' threads said, whosoever they are. It is kept from the program's own log."""

    def open(self) -> None:
        with self.lock:
            if self._num_hearing == 0 and av.logging.get_level() is None:  # else the program has it already
                self.of_threads = self._of_threads.__enter__()
                self.of_threads.clear()
                self._skipped = av.logging.get_skip_repeated()
                av.logging.set_skip_repeated(False)
                av.logging.set_level(av.logging.ERROR)
                self._is_ours = True
            self._num_hearing += 1

    def close(self) -> None:
        with self.lock:
            self._num_hearing -= 1
            if self._num_hearing == 0 and self._is_ours:
                av.logging.set_level(None)
                av.logging.set_skip_repeated(self._skipped)
                self._of_threads.__exit__(None, None, None)
                self._is_ours = False


_log = _Log()
if hasattr(os, "register_at_fork"):  # Windows has no forks
    # Were another thread to hold the lock at a fork, nobody in the child would ever release it.
    os.register_at_fork(before=_log.lock.acquire, after_in_parent=_log.lock.release, after_in_child=_log.lock.release)


class Complaints:
    """What is logged of wrong pixels by a decoder, with threads of its own or without, until it is closed."""

    def __init__(self, *, has_threads: bool) -> None:
        self.found = self.only_of_the_past = False
        """Whether anything was, in the last packet; with threads, which may be anybody's, since the decoder was opened."""
        self.has_threads = has_threads
        _log.open()
        self._num_before = len(_log.of_threads)

    def close(self) -> None:
        """Hear no more: the decoder has been flushed."""
        _log.close()

    def __enter__(self) -> None:
        self._capture = av.logging.Capture()  # of the thread that makes it
        self._said: list[Message] = self._capture.__enter__()

    def __exit__(self, *error: object) -> None:
        self._capture.__exit__(None, None, None)
        said = self._said
        if self.has_threads and len(_log.of_threads) > self._num_before:
            said = [*said, *_log.of_threads[self._num_before :]]
        self.found = self.only_of_the_past = False
        if said:  # rarely: this is asked twice a packet
            self.found = any(WRONG_PIXELS.search(message) for _, _, message in said)
            self.only_of_the_past = all(OF_THE_PAST in message for _, _, message in said)
