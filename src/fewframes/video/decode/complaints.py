"""Listen to FFmpeg's log for signs of damage, because some decoders patch pictures up and only log that.

PyAV takes Python's lock to pass on what a decoder's threads log. Whoever ends a decoder holds that lock and waits for the threads,
so that both would wait for each other. So the log is on from the opening of a decoder until it has been flushed (`flush_buffers`
waits for the threads without the lock), and only then the decoder ends. While no decoder is open PyAV ignores FFmpeg's log, as it
does by default.
"""

from __future__ import annotations

import os
import re
from threading import RLock, get_ident

import av.logging

WRONG_PIXELS = re.compile(
    r"co located POCs unavailable|error while decoding|error at MB|conceal|damaged|CRC mismatch|slice mismatch|end mismatch"
    r"|decode failed|no keyframe|could not find ref|missing reference|overread|exceeds containing|EBML"
    r"|zlib resync|inflat|decompress|used \d+ of \d+ bytes",
    re.IGNORECASE,
)
"""The messages of FFmpeg about pictures that it patches up, and about parts of a file that it passes over. No picture depends on
what other messages are about."""
OF_THE_PAST = "unref short failure"
"""The error that FFmpeg's H.264 decoder logs where a picture gives up a reference that is missing, and is complete itself."""

Message = tuple[int, str, str]
"""A message of FFmpeg as PyAV gives it: its level, the name of what logged it, and the text."""


class _Log:
    """The log of FFmpeg, switched on for as long as anybody listens."""

    def __init__(self) -> None:
        self.lock, self._num_hearing, self._is_ours, self._skipped = RLock(), 0, False, True
        self._of_threads = av.logging.Capture(local=False)
        self.of_threads: list[Message] = []
        """The messages of the threads of all decoders. They do not reach the program's own log."""

    def open(self) -> None:
        """Listen, and switch the log on for the first listener."""
        with self.lock:
            if self._num_hearing == 0 and av.logging.get_level() is None:  # else the program uses the log itself
                self.of_threads = self._of_threads.__enter__()
                self.of_threads.clear()
                self._skipped = av.logging.get_skip_repeated()
                av.logging.set_skip_repeated(False)
                av.logging.set_level(av.logging.ERROR)
                self._is_ours = True
            self._num_hearing += 1

    def close(self) -> None:
        """Stop listening, and switch the log off after the last listener."""
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
    """The messages about wrong pixels that a decoder logs, from its opening until `close`.

    Packets are read and decoded inside a `with` block of this object. After each of them, `judge` says whether FFmpeg complained.
    """

    def __init__(self, *, has_threads: bool) -> None:
        """Listen to a decoder that is opened next; `has_threads` if it has threads of its own."""
        self.only_of_the_past = False
        """True if there were messages at the last judgement, and all of them were `OF_THE_PAST`."""
        self._has_threads = has_threads
        self._listen()
        _log.open()
        self._num_before = len(_log.of_threads)

    def close(self) -> None:
        """Stop listening. The decoder must have been flushed before."""
        _log.close()

    def __enter__(self) -> None:
        if get_ident() != self._thread:
            self._listen()
        self._capture.__enter__()

    def __exit__(self, *error: object) -> None:
        self._capture.__exit__(None, None, None)

    def judge(self) -> bool:
        """Return whether any message since the last judgement is about wrong pixels.

        With threads, all messages since the opening count, and those of other decoders' threads as well.
        """
        of_threads = _log.of_threads[self._num_before :] if self._has_threads else ()
        if not (self._said or of_threads):  # nearly always, and this runs twice a packet
            self.only_of_the_past = False
            return False
        said = [*self._said, *of_threads]
        self._said.clear()
        self.only_of_the_past = all(OF_THE_PAST in message for _, _, message in said)
        return any(WRONG_PIXELS.search(message) for _, _, message in said)

    def _listen(self) -> None:
        """Prepare to capture what this thread logs. One capture serves all packets: making one costs more than using it."""
        self._thread = get_ident()
        self._capture = av.logging.Capture()
        self._said: list[Message] = self._capture.logs
