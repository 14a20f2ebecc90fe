"""Decode the frames shown at given timestamps of a video file, exactly, from as few packets as possible.

Wanted timestamps are split into runs; between two runs a jump to a key frame is worth it. Within a run, pictures that no other
picture needs are left out unless they are wanted, and nothing is decoded after the last wanted one (`packets.Feed`). The frames
that come out are compared with what the packets announced. Where the two differ, everything is decoded instead.

A jump is trusted only once its key frame has been decoded and found not to lie after the wanted timestamp. So neither a wrong
index of a container nor an open group of pictures can put a wrong frame in.

At the first sign of damage a decoder with several threads is replaced by one with a single thread, because several threads
separate an error from its packet, or lose it. `damage.Damage` says which pictures build on damaged ones; these are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import numpy as np
from av.error import FFmpegError
from numpy.typing import ArrayLike

from fewframes.core.forks import keep_in_forks
from fewframes.core.guards import Guard
from fewframes.core.storage import unbroken
from fewframes.errors import VideoError
from fewframes.results import Clip, ClockStep, Reading
from fewframes.video.clock import steps_of
from fewframes.video.decode.complaints import Complaints
from fewframes.video.decode.container import (
    DECODE_CLOCK,
    FROM_THE_START,
    NO_LIMITS,
    ContainerIndex,
    Limits,
    OpenContainer,
    VideoFile,
    cut_short,
    goes_back,
)
from fewframes.video.decode.key_frames import KeyFrames
from fewframes.video.decode.packets import SAME_S, Feed
from fewframes.video.decode.passes import DecodeCounts, Decoding, ShownFrame, UnreliableOutput
from fewframes.video.pictures.arrays import FrameStack, Prepare
from fewframes.video.pictures.display import Display

log = logging.getLogger("fewframes")

ERRORS = "explode+crccheck+bitstream+buffer+careful"
"""The settings of FFmpeg for what is an error: damage that it would patch up in silence, and data that no encoder writes."""


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
        self._opened: OpenContainer | None = None
        self._file = VideoFile(file, name, size_bytes, is_far=bytes_fetched is not None, limits=limits)
        self._threads = self._threads_now = threads
        self._bytes_fetched = bytes_fetched
        self._display = Display(name, limits.max_pixels, threads)
        self._frames: Iterator[ShownFrame]
        self._feed: Feed
        self._run_s: list[float] = []
        """The timestamps of the current run, on the container's clock; empty where every picture is to be decoded."""
        self._current: ShownFrame
        self._ahead: ShownFrame | None
        self._index: ContainerIndex
        self._keys: KeyFrames
        self._goes_back = False
        """True if jumps end one key frame earlier than needed, after a first attempt failed."""
        self._is_astray = False
        """True if the container stands elsewhere than where decoding would go on."""
        self._decoding: Decoding
        self._counts = DecodeCounts()
        self._num_left_out = self._num_jumps = 0
        keep_in_forks(self)
        try:
            with unbroken(file):
                self._rewind()
                self._origin_s = self._start_s()
                self._index = self._file.index(self._source, self._origin_s)
                self._keys = KeyFrames(self._index, self._source, self._origin_s, self._counts.key_delays)
                self._is_astray = self._index.has_jumped
                if self._index.has_moved and not isinstance(file, str):
                    self._rewind()
            self.duration_s = self._index.end_s - self._origin_s
            limits.check_length(name, self.duration_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, the decoder and its threads. A file that the caller opened stays open."""
        if not self._guard.close():
            return
        self._close_file()
        # Every attribute that holds the decoder is deleted, so that its threads end here.
        for name in ("_frames", "_decoding", "_feed", "_current", "_ahead", "_source", "_stream"):
            self.__dict__.pop(name, None)
        self._display.close()

    def _close_file(self) -> None:
        """Close the container and stop listening to its decoder."""
        if self._opened is not None:
            if self._opened.stream.codec_context.is_open:
                # Flushing waits for the decoder's threads, which may log until then; only after that nobody needs to listen.
                self._opened.stream.codec_context.flush_buffers()
            self._complaints.close()
            self._opened.container.close()
            self._opened = None

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
        try:
            stack, decoded = self._attempt(distinct_s, prepare)
        finally:
            self._set_run([])
        indices, shown_s = zip(*(decoded[time_s] for time_s in wanted_s), strict=True)
        return stack.clip(list(indices), shown_s, self.duration_s, self.name, self._reading())

    def _attempt(
        self, times_s: list[float], prepare: Prepare | None
    ) -> tuple[FrameStack, dict[float, tuple[int, float]]]:
        """Decode the frames at ascending timestamps into a stack, again and more carefully where that fails.

        The second attempt uses one thread, so that the number of threads changes no answer. The third also decodes every picture.
        Both let jumps end one key frame earlier. Returns the stack and what `_decode_into` says of it.
        """
        self._threads_now = self._threads
        ways = ((self._threads, False), (1, False), (1, True))
        for number, (threads, careful) in enumerate(ways):
            try:
                if number > 0:
                    self._threads_now = threads
                    self._rewind()
                self._goes_back = number > 0
                stack = FrameStack(len(times_s), prepare)
                return stack, self._decode_into(stack, times_s, careful=careful)
            except (UnreliableOutput, VideoError) as reason:
                if careful:
                    raise
                log.debug("%s: read again: %s", self.name, reason)
        raise AssertionError

    def _moved(self, times_s: list[float], tolerance_s: float) -> list[float]:
        """Return each of ascending timestamps moved to where a frame is cheapest, by at most `tolerance_s` seconds."""
        if tolerance_s <= 0 or not self._index.key_times_s:
            return times_s
        self._is_astray = (
            self._is_astray or self._index.by_decoding
        )  # such an index is corrected by seeking in the file
        return self._keys.cheaper_times(self._source, times_s, tolerance_s, self.duration_s)

    def _reading(self) -> Reading:
        """Return the work done since the video was opened."""
        return Reading(
            frames_decoded=self._counts.decoded,
            frames_left_out=self._num_left_out + self._feed.num_left_out,
            jumps=self._num_jumps,
            bytes_read=self._counts.bytes if self._bytes_fetched is None else self._bytes_fetched(),
        )

    def _decode_into(
        self, stack: FrameStack, times_s: list[float], *, careful: bool = False
    ) -> dict[float, tuple[int, float]]:
        """Decode the frames at ascending timestamps into a stack; every picture on the way if `careful`.

        Returns for each timestamp the index of its frame in the stack, and when that frame was first shown.
        """
        decoded: dict[float, tuple[int, float]] = {}
        last: tuple[ShownFrame, int] | None = None
        while len(decoded) < len(times_s):
            run = self._keys.first_run(times_s[len(decoded) :])
            self._set_run([] if careful else [self._origin_s + time_s for time_s in run])
            for time_s in run:
                shown = self._frame_at(self._origin_s + time_s)
                if last is None or shown is not last[0]:
                    if last is not None:
                        self._check_order(last[0], shown)
                    last = shown, stack.add(self._display.pixels(shown.frame, shown.geometry))
                decoded[time_s] = last[1], max(0.0, shown.start_s - self._origin_s)
        return decoded

    def _set_run(self, run_s: list[float]) -> None:
        """Set the timestamps that are decoded next, on the container's clock; empty to decode every picture."""
        # In these containers not every packet says when its picture is shown, so nothing can be left out.
        self._run_s = self._feed.wanted_s = [] if self._source.format in DECODE_CLOCK | FROM_THE_START else run_s

    def span_s(self, times_s: ArrayLike) -> float:
        """Return about how many seconds of the video are decoded for the frames at timestamps (T,)."""
        return self._keys.span_s(np.unique(np.asarray(times_s, np.float64)).tolist())

    def steps(self) -> tuple[ClockStep, ...]:
        """Return the gaps in the video's timestamps (`clock.steps_of`)."""
        with self._guard:
            found = steps_of(self._file, self._origin_s)
            self._rewind()  # listing the packets has moved a file that the caller opened
            return found

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between two times, in seconds.

        Raises:
            VideoError: if a picture is damaged, a packet cannot be decoded, or the file ends before `end_s`.
        """
        with self._guard, unbroken(self._file.file):
            self._threads_now = self._threads
            try:
                num_before = self._check(start_s, end_s)
            except UnreliableOutput as reason:
                log.debug("%s: checked with one thread: %s", self.name, reason)
                self._threads_now = 1
                self._rewind()
                num_before = self._check(start_s, end_s)
        if self._counts.undecodable > num_before:
            raise VideoError(
                f"{self.name}: {self._counts.undecodable - num_before} packets between {start_s:.2f} s and {end_s:.2f} s cannot "
                "be decoded; copy the file again or re-encode it"
            )

    def _check(self, start_s: float, end_s: float) -> int:
        """Decode these pictures. Return how many packets could not be decoded before them."""
        self._frame_at(self._origin_s + start_s)
        num_before = self._counts.undecodable
        while True:
            if self._ahead is None:
                self._ahead = next(self._frames, None)
            if self._ahead is None:
                self._check_end(self._origin_s + end_s)
                break
            if self._ahead.start_s > self._origin_s + end_s - SAME_S:
                break
            self._frame_at(self._ahead.start_s)
        return num_before

    def _frame_at(self, time_s: float) -> ShownFrame:
        """Return the frame shown at `time_s` of the container's clock. Raises VideoError and UnreliableOutput."""
        if self._worth_a_jump(time_s):
            self._jump(time_s)
        while True:
            if self._ahead is None:
                self._ahead = next(self._frames, None)
            if self._ahead is None:
                if not self._feed.complete:
                    self._check_end(time_s)
                break
            if self._ahead.start_s > time_s + SAME_S:
                break
            self._check_order(self._current, self._ahead)
            self._current, self._ahead = self._ahead, None
        if self._run_s:  # only then packets were left out
            self._compare(time_s)
        if self._current.damaged or self._current.start_s > time_s + SAME_S or self._is_lost(time_s):
            at_s = (self._current.start_s if self._current.damaged else time_s) - self._origin_s
            raise VideoError(
                f"{self.name}: the picture at {at_s:.2f} s is damaged; copy the file again, re-encode it, "
                "or leave that part out with a start and an end"
            )
        return self._current

    def _is_lost(self, time_s: float) -> bool:
        """Return whether a later picture than the current one should be shown at `time_s`, but could not be decoded."""
        if self._decoding.damage is None:
            return False
        return self._decoding.damage.lost(
            (self._current.start_s + SAME_S) / self._tick_s, (time_s + SAME_S) / self._tick_s
        )

    def _compare(self, time_s: float) -> None:
        """Raise UnreliableOutput if the packets announced another picture for `time_s` than the decoder gave."""
        announced_s = self._feed.shown_s(time_s)
        if announced_s is None and (self._feed.complete or self._feed.num_left_out):
            raise UnreliableOutput(f"no packet says what is shown at {time_s - self._origin_s:.3f} s")
        if announced_s is not None and abs(announced_s - self._current.start_s) > SAME_S:
            raise UnreliableOutput(
                f"{time_s:.6f} s: packets announce the picture of {announced_s:.6f} s, that of {self._current.start_s:.6f} s came"
            )

    def _check_order(self, before: ShownFrame, after: ShownFrame) -> None:
        """Raise VideoError if the later of two decoded frames is shown before the earlier one."""
        if after.start_s < before.start_s - SAME_S:
            raise goes_back(self.name, before.start_s - self._origin_s)

    def _worth_a_jump(self, time_s: float) -> bool:
        """Return whether decoding cannot go on to `time_s` (on the container's clock), or a key frame on the way is nearer."""
        if time_s < self._current.start_s - SAME_S:
            return True
        if self._is_astray or (self._feed.stopped and not self._feed.complete):
            return True  # the packets that would come next are not those after the current picture
        return self._keys.lies_between(self._current.end_s if self._ahead is None else self._ahead.end_s, time_s)

    def _jump(self, time_s: float) -> None:
        """Go on decoding at a key frame that is shown at or before `time_s`, on the container's clock.

        Where a seek leads behind that time, the next one aims twice as far before it; at last decoding begins at the start.
        """
        back_s = self._keys.back_s(time_s) if self._goes_back else 0.0
        while time_s - back_s > self._origin_s and self._source.format not in FROM_THE_START:
            offset = int((time_s - back_s) / self._tick_s)
            try:
                self._source.container.seek(offset, stream=self._stream)
            except FFmpegError:
                break  # a stream that cannot be entered in the middle
            self._num_jumps += 1
            self._frames = self._decode(from_start=False)
            for shown in self._frames:
                if shown.start_s > time_s + SAME_S:
                    break
                if shown.frame.key_frame:
                    self._current, self._ahead = shown, None
                    return
            back_s = 2 * back_s or 1.0
        self._rewind()

    def _rewind(self) -> None:
        """Open the file anew and decode its first picture, with one thread where several meet damage."""
        try:
            self._begin()
        except UnreliableOutput as reason:
            log.debug("%s: opened with one thread: %s", self.name, reason)
            self._threads_now = 1
            self._begin()

    def _begin(self) -> None:
        """Decode from the start up to the first whole picture.

        In a recording that was cut, pictures before the first key frame lack what they build on and are passed over. So are
        pictures that are shown before it and build on what was cut off.
        """
        self._frames = self._reopened()
        shown = next((one for one in self._frames if not (one.damaged and self._is_before_start(one))), None)
        if shown is None:
            raise VideoError(
                f"{self.name}: its video stream ({self._stream.codec_context.name}) holds no picture that can be "
                "decoded; copy the file again or re-encode it"
            )
        self._current, self._ahead = shown, None

    def _is_before_start(self, shown: ShownFrame) -> bool:
        """Return whether a frame is shown before the picture of the first packet."""
        start = None if self._decoding.damage is None else self._decoding.damage.start
        return start is not None and shown.start_s < start * self._tick_s - SAME_S

    def _start_s(self) -> float:
        """Return when the first picture is shown, decoded or not, on the container's clock."""
        if self._decoding.damage is None or not self._decoding.damage.lost_start:
            return self._current.start_s
        start = self._decoding.damage.start
        if start is None or self._source.format in DECODE_CLOCK:
            raise VideoError(
                f"{self.name}: its first picture is damaged, and nothing says when the others are shown; copy the file again "
                "or re-encode it"
            )
        return start * self._tick_s

    def _reopened(self) -> Iterator[ShownFrame]:
        """Open the file anew, set its decoder up, and return the frames from the start."""
        self._close_file()
        self._opened = self._source = self._file.open()
        self._complaints = Complaints(has_threads=self._threads_now != 1)
        self._stream, self._tick_s = self._source.stream, self._source.tick_s
        self._display.begin(self._stream)
        context, is_single = self._stream.codec_context, self._threads_now == 1
        # Threads that share the slices of one picture lose errors, so only threads for whole pictures are used. Decoders that
        # know no such threads run in one. Marks are copied from packets to frames with one thread only; damage.py says why.
        context.thread_type, context.thread_count, context.copy_opaque = "FRAME", self._threads_now, is_single
        # Pictures that FFmpeg would patch up (by greying, smearing or repeating) are errors here.
        max_pixels = str(self._file.limits.coded_pixels)
        context.options = {"err_detect": ERRORS, "max_pixels": max_pixels}
        return self._decode(from_start=True)

    def _decode(self, *, from_start: bool) -> Iterator[ShownFrame]:
        """Return the frames in the order of showing, from where the container stands."""
        self._is_astray = False
        if not from_start:
            self._num_left_out += self._feed.num_left_out
        self._decoding = Decoding(self._source, self._display, self._counts, self._complaints, from_start=from_start)
        self._feed = self._decoding.feed()
        self._feed.wanted_s = self._run_s
        return self._decoding.frames(self._feed)

    def _check_end(self, time_s: float) -> None:
        """Raise VideoError if the file ended before the frame shown at `time_s`, on the container's clock."""
        end_s = max(self._current.end_s, self._counts.repeats_until_s)
        if time_s > end_s + self._index.tolerance_s:
            raise cut_short(self.name, end_s - self._origin_s, self.duration_s)
