"""Decode the frames shown at given timestamps of a video file, exactly, from as few packets as possible.

Wanted timestamps are split into runs; between two runs a jump to a key frame is worth it. Within a run, pictures that no other
picture needs are left out unless they are wanted, and nothing is decoded after the last wanted one (`packets.Feed`). The frames
that come out are compared with what the packets announced (`cursor.Cursor`). Where the two differ, everything is decoded instead.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
from numpy.typing import ArrayLike

from fewframes.core.guards import Guard, keep_in_forks
from fewframes.core.process import num_cores
from fewframes.core.storage import unbroken
from fewframes.errors import VideoError
from fewframes.results import Clip, ClockStep, Reading, Work
from fewframes.video.clock import steps_of
from fewframes.video.decode.container import BLOCK_BYTES, NO_LIMITS, Limits, VideoFile, goes_back
from fewframes.video.decode.cursor import Cursor
from fewframes.video.decode.packets import SAME_S
from fewframes.video.decode.passes import ShownFrame, UnreliableOutput
from fewframes.video.decode.session import DecoderSession
from fewframes.video.pictures.arrays import FrameStack, Prepare
from fewframes.video.pictures.display import Pixels

log = logging.getLogger("fewframes")

MOST_TOGETHER = 8
"""The most decoders of one file that work at the same time; each holds pictures of its own."""
LEAST_PIXELS = 5e6
"""The least work that several decoders share, as the pixels of all decoded pictures, since each decoder has to open the file."""
CHEAP, CHEAPER = frozenset({"mpeg1video", "mpeg2video", "mpeg4"}), 4
"""Decoders of old formats, and the factor by which their pictures are decoded faster than others of their size."""


class FileVideo:
    """An open video file: an `OpenVideo` that decodes the frames shown at given timestamps.

    Unless a method says otherwise, its times are seconds from the start of the video, that is from its first picture. The
    container's own clock may begin elsewhere: at `_origin_s`.
    """

    def __init__(
        self,
        file: str | IO[bytes],
        name: str,
        size_bytes: int,
        threads: int = 0,
        bytes_fetched: Callable[[], int] | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        """Open a video file and decode its first picture.

        Args:
            file: a path, or an open binary file, which stays open.
            name: what messages call the file.
            size_bytes: the size of the file.
            threads: the threads of the decoder; 0 is one a core.
            bytes_fetched: for a remote file, a function that returns how many bytes of it were fetched so far.
            limits: the largest frames and the longest video that are decoded.

        Raises:
            VideoError: if the file holds no video that can be decoded.
            TooLarge: if the video is above the limits.
        """
        self.name = name
        self._guard = Guard(name)
        self._file = VideoFile(file, name, size_bytes, is_far=bytes_fetched is not None, limits=limits)
        self._threads, self._bytes_fetched = threads, bytes_fetched
        self._twins: dict[int, FileVideo] = {}
        """Further decoders of the same file, by the part of the timestamps that each decodes."""
        self._session = DecoderSession(self._file, threads)
        self._cursor = Cursor(self._file, self._session)
        keep_in_forks(self)
        try:
            with unbroken(file):
                self._cursor.open()
            self._origin_s, self._index, self._keys = self._cursor.origin_s, self._cursor.index, self._cursor.keys
            self.duration_s = self._index.end_s - self._origin_s
            limits.check_length(name, self.duration_s)
        except BaseException:
            self.close()
            raise

    @property
    def origin_s(self) -> float:
        """Return when the first picture is shown on the container's clock, in seconds."""
        return self._origin_s

    def close(self) -> None:
        """Close the file, the decoder and its threads. A file that the caller opened stays open."""
        if not self._guard.close():
            return
        for twin in self._twins.values():
            twin.close()
        self._session.close()
        self._cursor.close()

    __del__ = close  # a video that nobody closed: its threads must not log after `Complaints` has stopped listening

    def frames_at(self, times_s: ArrayLike, prepare: Prepare | None = None, tolerance_s: float = 0.0) -> Clip:
        """Return the frames shown at timestamps (T,), and when each was first shown.

        Args:
            times_s: timestamps (T,) in seconds, in any order.
            prepare: a function that is applied to each frame (C, H, W) as soon as it is decoded.
            tolerance_s: the most seconds by which a timestamp may move to where a frame is cheaper to decode; nothing moves
                where the key frames are not known.

        Raises:
            VideoError: if a wanted frame is damaged, or the file ends before it.
        """
        with self._guard, unbroken(self._file.file):
            return self._clip_at(np.asarray(times_s, np.float64).tolist(), prepare, tolerance_s)

    def _clip_at(self, times_s: Sequence[float], prepare: Prepare | None, tolerance_s: float) -> Clip:
        given_s = sorted(set(times_s))
        moved_s = dict(zip(given_s, self._moved(given_s, tolerance_s), strict=True))
        distinct_s = sorted(set(moved_s.values()))  # two timestamps may have moved to the same one
        wanted_s = [moved_s[time_s] for time_s in times_s]
        parts = self._parts(distinct_s)
        try:
            stack, decoded = self._together(parts, prepare) if len(parts) > 1 else self._attempt(distinct_s, prepare)
        finally:
            self._session.want([])
        indices, shown_s = zip(*(decoded[time_s] for time_s in wanted_s), strict=True)
        return stack.clip(list(indices), shown_s, self.duration_s, self.name, self._reading())

    def _parts(self, times_s: list[float]) -> list[list[float]]:
        """Return ascending timestamps in parts for several decoders; one part if a decoder with threads is as good, or asked for.

        A decoder with threads has its pictures only some time after each jump. So decoders with one thread each are faster where
        there are many jumps.
        """
        num_parts = min(self._threads or num_cores(), MOST_TOGETHER)
        # What was opened by the caller has one position, and what was scanned to be opened would be scanned for each decoder.
        if num_parts < 2 or not isinstance(self._file.file, str) or self._index.has_moved:
            return [times_s]
        source = self._session.source
        size = source.stream.codec_context
        pixels = max(1, size.width * size.height) / (CHEAPER if source.codec in CHEAP else 1)
        return self._keys.parts(times_s, num_parts, LEAST_PIXELS / pixels)

    def _together(
        self, parts: list[list[float]], prepare: Prepare | None
    ) -> tuple[FrameStack, dict[float, tuple[int, float]]]:
        """Decode parts of ascending timestamps at the same time, each with one thread. Returns the same as `_attempt`."""
        file = self._file

        def read(number: int) -> Clip:
            if number not in self._twins:
                self._twins[number] = FileVideo(file.file, self.name, file.size_bytes, 1, limits=file.limits)
            return self._twins[number].frames_at(parts[number], prepare)

        with ThreadPoolExecutor(len(parts), thread_name_prefix="fewframes-decode") as pool:
            clips = list(pool.map(read, range(len(parts))))
        stack = FrameStack(sum(map(len, parts)))
        decoded: dict[float, tuple[int, float]] = {}
        last_s = 0.0
        for part, clip in zip(parts, clips, strict=True):
            for time_s, shown_s, frame in zip(part, clip.times_s.tolist(), clip.frames, strict=True):
                if shown_s < last_s - SAME_S:
                    raise goes_back(self.name, last_s)
                decoded[time_s], last_s = (stack.put(frame), shown_s), shown_s
        return stack, decoded

    def _attempt(
        self, times_s: list[float], prepare: Prepare | None
    ) -> tuple[FrameStack, dict[float, tuple[int, float]]]:
        """Decode the frames at ascending timestamps into a stack, again and more carefully where that fails.

        The second attempt has a careful decoder, which tells what is damaged. The third also decodes every picture. Both let jumps
        end one key frame earlier. Returns the stack and what `_decode_into` says of it.
        """
        last = 2
        for number in range(last + 1):
            try:
                self._cursor.goes_back = self._session.is_careful = number > 0
                if number > 0:
                    self._cursor.rewind()
                stack = FrameStack(len(times_s), prepare)
                return stack, self._decode_into(stack, times_s, all_pictures=number == last)
            except (UnreliableOutput, VideoError) as reason:
                if number == last:
                    raise
                log.debug("%s: read again: %s", self.name, reason)
        raise AssertionError

    def _moved(self, times_s: list[float], tolerance_s: float) -> list[float]:
        """Return each of ascending timestamps moved to where a frame is cheapest, by at most `tolerance_s` seconds.

        All stay where they are if moving saves little, as in clips of a few seconds: an exact frame is worth more then.
        """
        if tolerance_s <= 0 or not self._index.key_times_s:
            return times_s
        moved_s = self._keys.cheaper_times(self._session.source, times_s, tolerance_s, self.duration_s)
        if moved_s is not times_s and self._index.by_decoding:
            self._session.is_astray = True  # such an index is corrected by seeking in the file
        return moved_s

    def _reading(self) -> Reading:
        """Return the work done since the video was opened, by all of its decoders."""
        own = Reading(
            frames_decoded=self._session.counts.decoded,
            frames_left_out=self._session.num_left_out,
            jumps=self._session.num_jumps,
            bytes_read=self._session.counts.bytes if self._bytes_fetched is None else self._bytes_fetched(),
        )
        return sum((twin._reading() for twin in self._twins.values()), start=own)

    def _decode_into(
        self, stack: FrameStack, times_s: list[float], *, all_pictures: bool
    ) -> dict[float, tuple[int, float]]:
        """Decode the frames at ascending timestamps into a stack; every picture on the way if `all_pictures`.

        Returns for each timestamp the index of its frame in the stack, and when that frame was first shown.
        """
        decoded: dict[float, tuple[int, float]] = {}
        last: tuple[ShownFrame, int] | None = None
        while len(decoded) < len(times_s):
            run = self._keys.first_run(times_s[len(decoded) :])
            self._session.want([] if all_pictures else [self._origin_s + time_s for time_s in run])
            for time_s in run:
                shown = self._cursor.frame_at(self._origin_s + time_s)
                if last is None or shown is not last[0]:
                    if last is not None:
                        self._cursor.check_order(last[0], shown)
                    last = shown, stack.add(self._session.pixels(shown))
                decoded[time_s] = last[1], max(0.0, shown.start_s - self._origin_s)
        return decoded

    @property
    def frame_s(self) -> float:
        """Return the usual seconds from one picture to the next, as the file tells it."""
        return self._session.source.frame_s

    def span_s(self, times_s: ArrayLike) -> float:
        """Return about how many seconds of the video are decoded for the frames at timestamps (T,)."""
        return self._keys.span_s(_ascending(times_s))

    def work(self, times_s: ArrayLike, tolerance_s: float = 0.0) -> Work:
        """Return about what is read for the frames at timestamps (T,), as `OpenVideo.work` does. Nothing is read for that.

        Bytes are the mean of the file for these seconds, and a block more for each jump in a remote file.
        """
        given_s = _ascending(times_s)
        if tolerance_s > 0 and self._index.key_times_s:
            given_s = sorted(set(self._keys.likely_times(given_s, tolerance_s, self.duration_s)))
        num_runs, seconds = self._keys.work(given_s)
        blocks = 0 if self._bytes_fetched is None else num_runs * BLOCK_BYTES
        size_bytes = self._file.size_bytes
        return Work(seconds, min(size_bytes, blocks + size_bytes * seconds / max(self.duration_s, seconds)))

    def pictures(self, start_s: float = 0.0, end_s: float = math.inf) -> Iterator[tuple[float, float, Pixels]]:
        """Yield every picture that is shown between two times, with when it is first shown and how long, in seconds.

        Pictures are (H, W, C) uint8 RGB. Damaged ones are left out. Raises VideoError if the first one is.
        """
        last_s = -math.inf
        with self._guard, unbroken(self._file.file):
            self._session.want([])
            while True:
                try:
                    first_s = self._origin_s + max(start_s, last_s)
                    for shown in self._cursor.shown_from(first_s, self._origin_s + end_s):
                        shown_s = shown.start_s - self._origin_s
                        if shown_s > last_s:
                            yield shown_s, shown.end_s - shown.start_s, self._session.pixels(shown)
                            last_s = shown_s
                    return
                except UnreliableOutput as reason:
                    log.debug("%s: goes on with a careful decoder: %s", self.name, reason)
                    self._session.is_careful = True
                    self._cursor.rewind()

    def steps(self) -> tuple[ClockStep, ...]:
        """Return the gaps in the video's timestamps (`clock.steps_of`)."""
        with self._guard:
            found = steps_of(self._file, self._origin_s)
            self._cursor.rewind()  # listing the packets has moved a file that the caller opened
            return found

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between two times, in seconds.

        Raises:
            VideoError: if a picture is damaged, a packet cannot be decoded, or the file ends before `end_s`.
        """
        with self._guard, unbroken(self._file.file):
            self._session.is_careful = False
            try:
                num_before = self._check(start_s, end_s)
            except UnreliableOutput as reason:
                log.debug("%s: checked with a careful decoder: %s", self.name, reason)
                self._session.is_careful = True
                self._cursor.rewind()
                num_before = self._check(start_s, end_s)
        num_bad = self._session.counts.undecodable - num_before
        if num_bad > 0:
            raise VideoError(
                f"{self.name}: {num_bad} packets between {start_s:.2f} s and {end_s:.2f} s cannot "
                "be decoded; copy the file again or re-encode it"
            )

    def _check(self, start_s: float, end_s: float) -> int:
        """Decode these pictures. Return how many packets could not be decoded before them."""
        self._cursor.frame_at(self._origin_s + start_s)
        num_before = self._session.counts.undecodable
        self._cursor.walk_to(self._origin_s + end_s)
        return num_before


def _ascending(times_s: ArrayLike) -> list[float]:
    """Return distinct timestamps in order. `np.unique` would load masked arrays first, which takes as long as reading a clip."""
    return sorted(set(np.asarray(times_s, np.float64).tolist()))
