"""The decoder: a video file -> the frames shown at given moments, exactly, from as few packets as it can.

Wanted moments are taken in runs between which a jump to a key frame is worth it. Within a run, pictures that no other picture
needs are left out unless they are wanted, and nothing is decoded after the last wanted one (`packets.Feed`). What comes out is
compared with what the packets promised; where the two differ, everything is decoded and looked at instead.

A jump to a key frame is only trusted once the key frame has been decoded and found not to lie after the wanted moment,
so that neither a container's index nor an open group of pictures can put a wrong frame in.

At the first sign of damage a decoder with several threads is given up for one with a single thread, for they part an error from the
packet that it is about, or lose it. `damage.Damage` says which pictures are built on what is damaged; these are refused.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any

from av.error import FFmpegError

from fewframes.core.forks import keep_in_forks
from fewframes.core.guards import Guard
from fewframes.core.storage import unbroken
from fewframes.errors import VideoError
from fewframes.results import Clip, ClockStep, Reading
from fewframes.video.decode.clock import steps_of
from fewframes.video.decode.complaints import Complaints
from fewframes.video.decode.container import (
    DECODE_CLOCK,
    FROM_THE_START,
    NO_LIMITS,
    READ_ERRORS,
    ContainerIndex,
    Limits,
    OpenContainer,
    VideoFile,
    cut_short,
    goes_back,
    packets_of,
)
from fewframes.video.decode.packets import SAME_S, Feed
from fewframes.video.decode.passes import DecodeCounts, Decoding, ShownFrame, UnreliableOutput
from fewframes.video.pictures.arrays import NewStack, Stack
from fewframes.video.pictures.display import Display
from fewframes.video.times import cheapest_times

if TYPE_CHECKING:  # exported graphs read videos without torch, by `clip_at`
    from torch import Tensor

    from fewframes.video.pictures.tensors import Prepare

log = logging.getLogger("fewframes")

JUMP_S = 10.0
"""Without a list of key frames, a moment this far ahead is jumped to, a nearer one decoded towards."""
MOST_LATE_FRAMES = 6
"""How many pictures a key frame may be shown later than its index says, which has times of decoding."""
PROBED_SHARES = (0.07, 0.31, 0.55, 0.83)
"""Which key frames are asked how late they are: at odd places, for those at a joined file's joints differ, at regular distances."""
WORTH_FRAMES = 4
"""A move by fewer frames than this saves nothing: it may end at a picture that needs later ones."""
ERRORS = "explode+crccheck+bitstream+buffer+careful"
"""What is an error to FFmpeg: all damage that it would patch up in silence, and what no encoder writes."""


class FileVideo:
    """An open video file: its length, and the frames shown at given moments."""

    def __init__(
        self,
        file: str | IO[bytes],
        name: str,
        size_bytes: int,
        threads: int = 0,
        bytes_fetched: Callable[[], int] | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        """`bytes_fetched` tells how much of a file elsewhere has come here so far."""
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
        """The moments that are being read, on the container's clock; empty where every picture is to be decoded."""
        self._current: ShownFrame
        self._ahead: ShownFrame | None
        self._index: ContainerIndex
        self._late_keys: tuple[int, list[float]] = 0, []
        self._goes_back = False
        self._is_astray = False
        """Whether the container stands elsewhere than where decoding would go on."""
        self._decoding: Decoding
        self._counts = DecodeCounts()
        self._num_left_out = self._num_jumps = 0
        keep_in_forks(self)
        try:
            with unbroken(file):
                self._rewind()
                self._origin_s = self._start_s()
                self._index = self._file.index(self._source, self._origin_s)
                self._is_astray = self._index.has_jumped
                if self._index.has_moved and not isinstance(file, str):
                    self._rewind()
            self.duration_s = self._index.end_s - self._origin_s
            limits.check_length(name, self.duration_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back the file (one that the caller opened stays open), the decoder and its threads."""
        if not self._guard.close():
            return
        self._close_file()
        # Whatever holds the decoder goes with it, so that its threads end here.
        for name in ("_frames", "_decoding", "_feed", "_current", "_ahead", "_source", "_stream"):
            self.__dict__.pop(name, None)
        self._display.close()

    def _close_file(self) -> None:
        if self._opened is not None:
            if self._opened.stream.codec_context.is_open:
                self._opened.stream.codec_context.flush_buffers()
            self._complaints.close()
            self._opened.container.close()
            self._opened = None

    __del__ = close  # its threads must not outlive its hearing

    def frames_at(self, times_s: Tensor, prepare: Prepare | None = None, slack_s: float = 0.0) -> Clip:
        """The frames shown at these moments (T,), in any order, and when each was first shown.

        Each moment may move by up to `slack_s` to where a frame is cheaper, which only key frames that are known make it.
        Raises VideoError when a wanted frame is damaged, or the file ends before it.
        """
        from fewframes.video.pictures.tensors import FrameStack  # late: it loads torch

        return self.clip_at(times_s.tolist(), lambda count: FrameStack(count, prepare), slack_s)

    def clip_at(self, times_s: Sequence[float], new_stack: NewStack, slack_s: float = 0.0) -> Clip[Any]:
        """As `frames_at`, of what a stack makes of the pictures."""
        with self._guard, unbroken(self._file.file):
            return self._clip_at(times_s, new_stack, slack_s)

    def _clip_at(self, times_s: Sequence[float], new_stack: NewStack, slack_s: float) -> Clip[Any]:
        given_s = sorted(set(times_s))
        moved_s = dict(zip(given_s, self._moved(given_s, slack_s), strict=True))
        moments_s = sorted(set(moved_s.values()))  # two may have moved to the same
        wanted_s = [moved_s[time_s] for time_s in times_s]
        try:
            stack, prepared = self._tried(moments_s, new_stack)
        finally:
            self._set_run([])
        places, shown_s = zip(*(prepared[time_s] for time_s in wanted_s), strict=True)
        return stack.clip(list(places), shown_s, self.duration_s, self.name, self._reading())

    def _tried(self, moments_s: list[float], new_stack: NewStack) -> tuple[Stack, dict[float, tuple[int, float]]]:
        """The pictures of these moments, and where they are; with less and less left to chance: with one thread where several met
        damage, so that the number of threads changes nothing; with nothing left out, and jumps that end a key frame earlier."""
        self._threads_now = self._threads
        ways = ((self._threads, False), (1, False), (1, True))
        for number, (threads, careful) in enumerate(ways):
            try:
                if number > 0:
                    self._threads_now = threads
                    self._rewind()
                self._goes_back = number > 0
                stack = new_stack(len(moments_s))
                return stack, self._prepared(moments_s, stack, careful=careful)
            except (UnreliableOutput, VideoError) as reason:
                if careful:
                    raise
                log.debug("%s: read again: %s", self.name, reason)
        raise AssertionError

    def _moved(self, moments_s: list[float], slack_s: float) -> list[float]:
        if slack_s <= 0 or not self._index.key_times_s:
            return moments_s
        frame_s, keys_s = self._source.frame_s, [key_s - self._origin_s for key_s in self._key_times_s() or ()]
        if self._index.by_decoding:
            reach_s = slack_s + MOST_LATE_FRAMES * frame_s
            near = {
                key_s
                for time_s in moments_s
                for key_s in keys_s[bisect_left(keys_s, time_s - reach_s) : bisect_right(keys_s, time_s + reach_s)]
            }
            late_s = self._late_s(sorted(near))
            keys_s = keys_s[:1] + [key_s + late_s for key_s in keys_s[1:]]  # the first one's is right
        # Aimed at their middle, so that a rounded time does not name the picture before.
        middles_s, last_s = [key_s + frame_s / 2 for key_s in keys_s], max(0.0, self.duration_s - frame_s / 2)
        cheapest_s = cheapest_times(moments_s, middles_s, slack_s, worth_s=WORTH_FRAMES * frame_s)
        return [min(time_s, last_s) for time_s in cheapest_s]

    def _late_s(self, keys_s: list[float]) -> float:
        """How much later key frames are shown, at most, that stand in the index with times of decoding: by the packets of some of
        them; nothing is decoded. Where one is less late than that, a picture or two more are decoded for it."""
        late_s, most_s = [0.0], MOST_LATE_FRAMES * self._source.frame_s
        self._is_astray = True
        for key_s in {keys_s[int(len(keys_s) * share)] for share in PROBED_SHARES} if keys_s else ():
            try:
                self._source.container.seek(int((self._origin_s + key_s + most_s) / self._tick_s), stream=self._stream)
                with closing(packets_of(self._source.container, self._stream)) as packets:
                    packet = next(packets)
            except (*READ_ERRORS, StopIteration) as error:
                log.debug("%s: the key frame at %.3f s: %s", self.name, key_s, error)
                continue
            if packet.pts is not None:
                late_s.append(packet.pts * self._tick_s - self._origin_s - key_s)
        return max(one_s for one_s in late_s if one_s <= most_s)

    def _reading(self) -> Reading:
        return Reading(
            frames_decoded=self._counts.decoded,
            frames_left_out=self._num_left_out + self._feed.num_left_out,
            jumps=self._num_jumps,
            bytes_read=self._counts.bytes if self._bytes_fetched is None else self._bytes_fetched(),
        )

    def _prepared(
        self, moments_s: list[float], stack: Stack, *, careful: bool = False
    ) -> dict[float, tuple[int, float]]:
        """For each moment where its picture is put and when that was first shown, in seconds from the start of the video."""
        prepared: dict[float, tuple[int, float]] = {}
        last: tuple[ShownFrame, int] | None = None
        while len(prepared) < len(moments_s):
            run = self._run(moments_s[len(prepared) :])
            self._set_run([] if careful else [self._origin_s + time_s for time_s in run])
            for time_s in run:
                shown = self._frame_at(self._origin_s + time_s)
                if last is None or shown is not last[0]:
                    if last is not None:
                        self._check_order(last[0], shown)
                    last = shown, stack.add(self._display.pixels(shown.frame, shown.geometry))
                prepared[time_s] = last[1], max(0.0, shown.start_s - self._origin_s)
        return prepared

    def _run(self, moments_s: list[float]) -> list[float]:
        """Those of ascending moments before which no jump to a key frame saves decoding, the first anyway."""
        places = range(1, len(moments_s))
        ends = (
            place
            for place in places
            if self._key_between(self._origin_s + moments_s[place - 1], self._origin_s + moments_s[place])
        )
        return moments_s[: next(ends, len(moments_s))]

    def _set_run(self, run_s: list[float]) -> None:
        """Set what is read next. Where packets do not say when they are shown, or not of all, everything is."""
        self._run_s = self._feed.wanted_s = [] if self._source.format in DECODE_CLOCK | FROM_THE_START else run_s

    def span_s(self, times_s: Tensor) -> float:
        """How many seconds of the video are decoded, about, for the frames at these moments."""
        moments_s, total_s = sorted(set(times_s.tolist())), 0.0
        keys_s = [key_s - self._origin_s for key_s in self._key_times_s() or [self._origin_s]]
        while moments_s:
            run = self._run(moments_s)
            total_s += run[-1] - keys_s[max(0, bisect_right(keys_s, run[0] + SAME_S) - 1)]
            moments_s = moments_s[len(run) :]
        return total_s

    def steps(self) -> tuple[ClockStep, ...]:
        """Return where its clock steps on (`clock.steps_of`)."""
        with self._guard:
            found = steps_of(self._file, self._origin_s)
            self._rewind()  # a file that the caller opened has moved
            return found

    def check(self, start_s: float, end_s: float) -> None:
        """Decode every picture that is shown between these moments.

        Raises VideoError for a damaged one, a packet that cannot be decoded, or where the file ends before.
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
        """Decode these pictures; how many packets could not be decoded before them."""
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
        """The frame shown at `time_s` of the container's clock."""
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
        if self._run_s:
            self._compare(time_s)
        if self._current.damaged or self._current.start_s > time_s + SAME_S or self._is_lost(time_s):
            at_s = (self._current.start_s if self._current.damaged else time_s) - self._origin_s
            raise VideoError(
                f"{self.name}: the picture at {at_s:.2f} s is damaged; copy the file again, re-encode it, "
                "or leave that part out with a start and an end"
            )
        return self._current

    def _is_lost(self, time_s: float) -> bool:
        """Whether another picture should be shown at this moment than the current one, and could not be decoded."""
        if self._decoding.damage is None:
            return False
        return self._decoding.damage.lost(
            (self._current.start_s + SAME_S) / self._tick_s, (time_s + SAME_S) / self._tick_s
        )

    def _compare(self, time_s: float) -> None:
        """Raise Unsure when the packets promised another picture at this moment than the decoder gave."""
        promised_s = self._feed.shown_s(time_s)
        if promised_s is None and (self._feed.complete or self._feed.num_left_out):
            raise UnreliableOutput(f"no packet says what is shown at {time_s - self._origin_s:.3f} s")
        if promised_s is not None and abs(promised_s - self._current.start_s) > SAME_S:
            raise UnreliableOutput(
                f"{promised_s:.6f} s was promised for {time_s:.6f} s, {self._current.start_s:.6f} s came"
            )

    def _check_order(self, before: ShownFrame, after: ShownFrame) -> None:
        if after.start_s < before.start_s - SAME_S:
            raise goes_back(self.name, before.start_s - self._origin_s)

    def _worth_a_jump(self, time_s: float) -> bool:
        if time_s < self._current.start_s - SAME_S:
            return True
        if self._is_astray or (self._feed.stopped and not self._feed.complete):
            return True
        return self._key_between(self._current.end_s if self._ahead is None else self._ahead.end_s, time_s)

    def _key_between(self, position_s: float, time_s: float) -> bool:
        """Whether a key frame lies after the one and up to the other; where none are known, whether one may."""
        keys_s = self._key_times_s()
        if keys_s is None:
            return time_s > position_s + JUMP_S
        keys_up_to = bisect_right(keys_s, time_s + SAME_S)
        return keys_up_to > 0 and keys_s[keys_up_to - 1] > position_s

    def _key_times_s(self) -> list[float] | None:
        """When key frames are shown, as far as is known, ascending on the container's clock."""
        keys_s = self._index.key_times_s
        if keys_s is None or not self._index.by_decoding or len(self._counts.key_delays) < 2:
            return keys_s
        late = self._counts.key_delays[-1] - self._counts.key_delays[0]
        if late != self._late_keys[0]:  # asked for every moment, and changes once or twice
            self._late_keys = late, keys_s[:1] + [key_s + late * self._tick_s for key_s in keys_s[1:]]
        return self._late_keys[1] if late else keys_s

    def _jump(self, time_s: float) -> None:
        """Go on decoding at a key frame that is shown at or before `time_s`."""
        back_s = self._back_s(time_s) if self._goes_back else 0.0
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

    def _back_s(self, time_s: float) -> float:
        """Return how far before a moment the key frame before the usual one lies.

        Pictures behind an open group may give up ones before it, which FFmpeg takes for damage in the first group after a jump.
        """
        keys_s = self._key_times_s() or []
        num_before = bisect_right(keys_s, time_s + SAME_S)
        return time_s - keys_s[num_before - 2] if num_before >= 2 else JUMP_S

    def _rewind(self) -> None:
        """Open the file (again) and decode its first picture; with one thread where several meet damage."""
        try:
            self._begin()
        except UnreliableOutput as reason:
            log.debug("%s: opened with one thread: %s", self.name, reason)
            self._threads_now = 1
            self._begin()

    def _begin(self) -> None:
        """Decode from the start. In a recording that was cut, pictures before the first key frame lack what
        they build on and are passed over, as are those shown before it that build on what was cut off."""
        self._frames = self._reopened()
        shown = next((one for one in self._frames if not (one.damaged and self._is_before_start(one))), None)
        if shown is None:
            raise VideoError(
                f"{self.name}: its video stream ({self._stream.codec_context.name}) holds no picture that can be "
                "decoded; copy the file again or re-encode it"
            )
        self._current, self._ahead = shown, None

    def _is_before_start(self, shown: ShownFrame) -> bool:
        start = None if self._decoding.damage is None else self._decoding.damage.start
        return start is not None and shown.start_s < start * self._tick_s - SAME_S

    def _start_s(self) -> float:
        """When the first picture is shown, decoded or not, on the container's clock."""
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
        self._close_file()
        self._opened = self._source = self._file.open()
        self._complaints = Complaints(has_threads=self._threads_now != 1)
        self._stream, self._tick_s, self._frame_s = self._source.stream, self._source.tick_s, self._source.frame_s
        self._display.begin(self._stream)
        context, is_single = self._stream.codec_context, self._threads_now == 1
        # Threads for the slices of one picture lose their errors; only decoders that have no others do without threads for that.
        context.thread_type, context.thread_count, context.copy_opaque = "FRAME", self._threads_now, is_single
        # Pictures that FFmpeg would patch up (greying, smearing, holding back) are errors here.
        max_pixels = str(self._file.limits.coded_pixels)
        context.options = {"err_detect": ERRORS, "max_pixels": max_pixels}
        return self._decode(from_start=True)

    def _decode(self, *, from_start: bool) -> Iterator[ShownFrame]:
        """Frames in the order of showing, from where the container stands."""
        self._is_astray = False
        if not from_start:
            self._num_left_out += self._feed.num_left_out
        self._decoding = Decoding(self._source, self._display, self._counts, self._complaints, from_start=from_start)
        self._feed = self._decoding.feed()
        self._feed.wanted_s = self._run_s
        return self._decoding.frames(self._feed)

    def _check_end(self, time_s: float) -> None:
        """Raise VideoError when the file ended before the frame of `time_s` could be decoded."""
        end_s = max(self._current.end_s, self._counts.repeats_until_s)
        if time_s > end_s + self._index.slack_s:
            raise cut_short(self.name, end_s - self._origin_s, self.duration_s)
