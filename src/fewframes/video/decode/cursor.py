"""Walk through the frames of a video: forward to the frame shown at a timestamp, or with a jump to a key frame before it.

A jump is trusted only once its key frame has been decoded and found not to lie after the wanted timestamp. So neither a wrong
index of a container nor an open group of pictures can put a wrong frame in.

Where packets were left out, each frame that comes out is compared with what the packets announced for its timestamp.

At the first sign of damage the decoder is replaced by a careful one with a single thread. Several threads separate an error from
its packet, or lose it, and asking after each picture takes time. `damage.Damage` says which pictures build on damaged ones; these
are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from av.error import FFmpegError

from fewframes.errors import VideoError
from fewframes.video.decode.container import (
    DECODE_CLOCK,
    FROM_THE_START,
    ContainerIndex,
    VideoFile,
    cut_short,
    goes_back,
)
from fewframes.video.decode.key_frames import KeyFrames
from fewframes.video.decode.packets import SAME_S
from fewframes.video.decode.passes import ShownFrame, UnreliableOutput
from fewframes.video.decode.session import DecoderSession

log = logging.getLogger("fewframes")


class Cursor:
    """A place in a video: the frame that is shown there, and the one after it where that is decoded already.

    Unless a method says otherwise, its times are on the container's clock, in seconds.
    """

    def __init__(self, file: VideoFile, session: DecoderSession) -> None:
        """Note the file and its decoder; `open` goes to the first picture."""
        self._file, self._name, self._session = file, file.name, session
        self._frames: Iterator[ShownFrame]
        self._current: ShownFrame
        self._ahead: ShownFrame | None
        self.goes_back = False
        """True if jumps end one key frame earlier than needed, after a first attempt failed."""
        self.origin_s: float
        """The time at which the first picture is shown."""
        self.index: ContainerIndex
        self.keys: KeyFrames

    def open(self) -> None:
        """Decode the first picture, and read what the container says of its key frames and its end.

        Raises VideoError if the file holds no video that can be decoded, TooLarge if it is above the limits.
        """
        source = self._session.open()
        jumps = self._file.jumps_for_index(source)
        early = self._file.early_index(source) if jumps else None
        self.rewind(is_at_start=early is not None or not jumps)
        source = self._session.source
        self.origin_s = self._start_s()
        if early is not None and early.origin_s == self.origin_s:
            self.index = early
        else:
            self.index = self._file.index(source, self.origin_s)
            self._session.is_astray = self.index.has_jumped
        self.keys = KeyFrames(self.index, source, self.origin_s, self._session.counts.key_delays)
        if self.index.has_moved and not isinstance(self._file.file, str):
            self.rewind()

    def close(self) -> None:
        """Let go of all frames, because they and their iterator keep the decoder and its threads alive."""
        # They are deleted here, and not with this object, because the traceback of an error may hold this object for long.
        for name in ("_frames", "_current", "_ahead"):
            self.__dict__.pop(name, None)

    def frame_at(self, time_s: float) -> ShownFrame:
        """Return the frame shown at `time_s`. Raises VideoError if it is damaged or missing, and UnreliableOutput."""
        if self._worth_a_jump(time_s):
            self._jump(time_s)
        last_s = time_s + SAME_S
        with self._session.complaints:  # around the loop and not in it, because this runs for each picture
            while (ahead := self._peek()) is not None and ahead.start_s <= last_s:
                self.check_order(self._current, ahead)
                self._current, self._ahead = ahead, None
        if ahead is None and not self._session.feed.complete:
            self._check_end(time_s)
        if self._session.wanted_s:  # only then packets were left out
            self._compare(time_s)
        if self._current.damaged or self._current.start_s > time_s + SAME_S or self._is_lost(time_s):
            at_s = (self._current.start_s if self._current.damaged else time_s) - self.origin_s
            raise VideoError(
                f"{self._name}: the picture at {at_s:.2f} s is damaged; copy the file again, re-encode it, "
                "or leave that part out with a start and an end"
            )
        return self._current

    def walk_to(self, end_s: float) -> None:
        """Decode every picture that is shown before `end_s`, from the current one on. Raises as `frame_at`."""
        with self._session.complaints:
            while (ahead := self._peek()) is not None and ahead.start_s <= end_s - SAME_S:
                self.frame_at(ahead.start_s)
        if ahead is None:
            self._check_end(end_s)

    def shown_from(self, time_s: float, end_s: float) -> Iterator[ShownFrame]:
        """Yield the frame shown at `time_s`, and each one after it that is shown before `end_s`. Damaged ones are left out.

        Raises as `frame_at`, and UnreliableOutput. A file that ends too early is no error.
        """
        shown: ShownFrame | None = self.frame_at(time_s)
        while shown is not None and shown.start_s < end_s - SAME_S:
            if not shown.damaged:
                yield shown
            with self._session.complaints:
                shown = self._peek()
            if shown is not None:
                self.check_order(self._current, shown)
                self._current, self._ahead = shown, None

    def check_order(self, before: ShownFrame, after: ShownFrame) -> None:
        """Raise VideoError if the later of two decoded frames is shown before the earlier one."""
        if after.start_s < before.start_s - SAME_S:
            raise goes_back(self._name, before.start_s - self.origin_s)

    def rewind(self, *, is_at_start: bool = False) -> None:
        """Decode the first picture, with a careful decoder where another one meets damage.

        The file is opened anew, unless it was just opened and `is_at_start`.
        """
        try:
            self._begin(is_at_start=is_at_start)
        except UnreliableOutput as reason:
            log.debug("%s: opened with a careful decoder: %s", self._name, reason)
            self._session.is_careful = True
            self._begin()

    def _begin(self, *, is_at_start: bool = False) -> None:
        """Decode from the start up to the first whole picture; see `rewind`.

        In a recording that was cut, pictures before the first key frame lack what they build on and are passed over. So are
        pictures that are shown before it and build on what was cut off.
        """
        if not is_at_start:
            self._session.open()
        self._frames = self._session.from_start()
        with self._session.complaints:
            shown = next((one for one in self._frames if not (one.damaged and self._is_before_start(one))), None)
        if shown is None:
            raise VideoError(
                f"{self._name}: its video stream ({self._session.source.codec}) holds no picture that can be "
                "decoded; copy the file again or re-encode it"
            )
        self._current, self._ahead = shown, None

    def _is_before_start(self, shown: ShownFrame) -> bool:
        """Return whether a frame is shown before the picture of the first packet."""
        start = None if self._session.damage is None else self._session.damage.start
        return start is not None and shown.start_s < start * self._session.source.tick_s - SAME_S

    def _start_s(self) -> float:
        """Return when the first picture is shown, decoded or not."""
        damage = self._session.damage
        if damage is None or not damage.lost_start:
            return self._current.start_s
        if damage.start is None or self._session.source.format in DECODE_CLOCK:
            raise VideoError(
                f"{self._name}: its first picture is damaged, and nothing says when the others are shown; copy the file again "
                "or re-encode it"
            )
        return damage.start * self._session.source.tick_s

    def _peek(self) -> ShownFrame | None:
        """Return the frame after the current one without going there; None at the end, or where all that is wanted is decoded.

        It runs inside a `with` block of the session's complaints.
        """
        if self._ahead is None:
            self._ahead = next(self._frames, None)
        return self._ahead

    def _worth_a_jump(self, time_s: float) -> bool:
        """Return whether decoding cannot go on to `time_s`, or a key frame on the way is nearer."""
        if time_s < self._current.start_s - SAME_S:
            return True
        if self._session.is_astray or self._session.feed.is_for_others:
            return True  # the packets that would come next are not those after the current picture, or not all of them
        return self.keys.lies_between(self._current.end_s if self._ahead is None else self._ahead.end_s, time_s)

    def _jump(self, time_s: float) -> None:
        """Go on decoding at a key frame that is shown at or before `time_s`.

        Where a seek leads behind that time, the next one aims twice as far before it; at last decoding begins at the start.
        """
        back_s = self.keys.back_s(time_s) if self.goes_back else 0.0
        while time_s - back_s > self.origin_s and self._session.source.format not in FROM_THE_START:
            try:
                self._frames = self._session.after_jump(time_s - back_s)
            except FFmpegError:
                break  # a stream that cannot be entered in the middle
            with self._session.complaints:
                found = next(
                    (one for one in self._frames if one.frame.key_frame or one.start_s > time_s + SAME_S), None
                )
            if found is not None and found.start_s <= time_s + SAME_S:
                self._current, self._ahead = found, None
                return
            back_s = 2 * back_s or 1.0
        self.rewind()

    def _compare(self, time_s: float) -> None:
        """Raise UnreliableOutput if the packets announced another picture for `time_s` than the decoder gave."""
        feed = self._session.feed
        announced_s = feed.shown_s(time_s)
        if announced_s is None and (feed.complete or feed.num_left_out):
            raise UnreliableOutput(f"no packet says what is shown at {time_s - self.origin_s:.3f} s")
        if announced_s is not None and abs(announced_s - self._current.start_s) > SAME_S:
            raise UnreliableOutput(
                f"{time_s:.6f} s: packets announce the picture of {announced_s:.6f} s, that of {self._current.start_s:.6f} s came"
            )

    def _is_lost(self, time_s: float) -> bool:
        """Return whether a later picture than the current one should be shown at `time_s`, but could not be decoded."""
        damage = self._session.damage
        if damage is None:
            return False
        tick_s = self._session.source.tick_s
        return damage.lost((self._current.start_s + SAME_S) / tick_s, (time_s + SAME_S) / tick_s)

    def _check_end(self, time_s: float) -> None:
        """Raise VideoError if the file ended before the frame shown at `time_s`."""
        # A packet behind the last frame that was decoded says that the pictures go on, even if nobody wants its picture.
        end_s = max(self._current.end_s, self._session.counts.repeats_until_s, self._session.feed.last_s)
        if time_s > end_s + self.index.tolerance_s:
            raise cut_short(self._name, end_s - self.origin_s, self.index.end_s - self.origin_s)
