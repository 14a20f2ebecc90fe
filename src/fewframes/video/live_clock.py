"""Turn the pictures of a live stream, as they come, into the picture shown at each of steady timestamps.

A new stretch of timestamps begins where the stream's clock jumps, and where the source was away. Only pictures that a timestamp
needs become RGB.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from av.video.frame import VideoFrame

from fewframes.video.decode.packets import SAME_S
from fewframes.video.live_queue import EventKind, LiveCounts, LiveEvent, LiveFrame, LiveQueue
from fewframes.video.live_settings import StreamConfig
from fewframes.video.pictures.arrays import Prepare, frame_of_pixels
from fewframes.video.pictures.display import Display, Geometry, Pixels, shown_size

JUMP_S = 10.0
"""The largest step in seconds from one picture to the next. After a larger one (the clock jumped, or the source was away) windows
begin anew."""
BACK_S = 1.0
"""A picture that is up to this many seconds earlier than the one before it is late and left out. A picture that is earlier still
means a new clock."""


@dataclass(eq=False)
class _CurrentPicture:
    """The picture that is shown from `time_s` to `end_s`. `picture` is the network's input, made when it is first needed."""

    frame: VideoFrame
    geometry: Geometry
    time_s: float
    end_s: float
    arrived: float
    picture: Pixels | None = None


class SteadyFrames:
    """The frames at steady timestamps that a stream has given so far, and the picture that is shown now."""

    def __init__(
        self,
        config: StreamConfig,
        interval_s: float,
        prepare: Prepare,
        display: Display,
        queue: LiveQueue,
        counts: LiveCounts,
        stop: threading.Event,
    ) -> None:
        """Prepare to take in pictures.

        Args:
            config: the settings.
            interval_s: the seconds between two timestamps.
            prepare: a function that makes the network's input of an RGB picture (C, H, W).
            display: what makes RGB pictures of decoded ones.
            queue: where frames and events are put.
            counts: the counts of the stream.
            stop: set when nobody wants more.
        """
        self._config, self._interval_s, self._prepare = config, interval_s, prepare
        self._display, self._queue, self._counts, self._stop = display, queue, counts, stop
        self.is_live = False
        """True if the pictures come at their own pace."""
        self.last_at = self._wall_began = time.monotonic()
        """The time at which the last picture came, or at which the source was opened (time.monotonic)."""
        self._last: _CurrentPicture | None = None
        self._size = (0, 0)
        self._stretch, self._frame_index, self._began_s = -1, 0, 0.0
        self.offset_s: float | None = None
        """The difference of the timestamps here to the source's clock; None before a new stretch."""

    @property
    def reached_s(self) -> float:
        """Return when the last picture ends, in seconds from the start of its stretch; 0 before any."""
        return 0.0 if self._last is None else self._last.end_s - self._began_s

    @property
    def is_in_one_piece(self) -> bool:
        """Return whether pictures came, and the timestamps have not begun anew since."""
        return self._stretch == 0

    def begin_anew(self) -> None:
        """Let the next picture begin a new stretch, whatever its source's clock says."""
        self.offset_s = None

    def event(self, kind: EventKind, words: str) -> LiveEvent:
        """Return an event at the time of the picture that is shown."""
        return LiveEvent(kind, 0.0 if self._last is None else self._last.time_s, words)

    def receive(self, frame: VideoFrame, stamp_s: float, frame_s: float) -> None:
        """Take in a picture of `stamp_s` (source's clock) that lasts `frame_s`. The one before it fills the timestamps up to it."""
        geometry = self._display.geometry(frame)
        self._note_size(shown_size(frame.width, frame.height, geometry.aspect))
        last = self._last
        if self.offset_s is not None and last is not None:
            step_s = stamp_s + self.offset_s - last.time_s
            if -BACK_S < step_s <= 0:
                self._counts.left_out += 1
                return
            if not 0 < step_s <= JUMP_S:
                self.flush()
                self.begin_anew()
                self._queue.put(self.event("clock", f"its timestamps jumped by {step_s:+.2f} s; windows begin anew"))
        if self.offset_s is None:
            self._begin(stamp_s)
        assert self.offset_s is not None
        time_s = stamp_s + self.offset_s
        due_at = self._wall_began + time_s
        if self._config.live and self._stop.wait(max(0.0, due_at - time.monotonic())):
            return
        self._fill(time_s)
        self.last_at = time.monotonic()
        lasts_s = frame.duration * float(frame.time_base) if frame.duration and frame.time_base else frame_s
        self._last = _CurrentPicture(
            frame, geometry, time_s, time_s + min(lasts_s, JUMP_S), due_at if self._config.live else self.last_at
        )

    def _note_size(self, size: tuple[int, int]) -> None:
        """Report a picture of another size than the one before."""
        if self._size not in (size, (0, 0)):
            was = f"{self._size[0]}x{self._size[1]}"
            self._queue.put(self.event("size", f"its pictures are {size[0]}x{size[1]} px now, not {was}"))
        self._size = size

    def _begin(self, stamp_s: float) -> None:
        """Begin a new stretch of steady timestamps at a picture. A live stream's clock goes on by the time it was away."""
        self._began_s = 0.0 if self._last is None else self._last.end_s
        if self._last is not None and self.is_live and not self._config.live:
            self._began_s = max(self._began_s, self._last.time_s + time.monotonic() - self.last_at)
        self.offset_s = self._began_s - stamp_s
        self._stretch, self._frame_index = self._stretch + 1, 0
        self._last = None
        if self._stretch == 0:
            self._wall_began = time.monotonic()

    def _fill(self, until_s: float) -> None:
        """Hand over a frame for each steady timestamp before `until_s`."""
        shown = self._last
        while shown is not None:
            time_s = self._began_s + (self._frame_index + 0.5) * self._interval_s
            if time_s + SAME_S >= until_s or self._stop.is_set():
                return
            if shown.picture is None:
                shown.picture = self._prepare(frame_of_pixels(self._display.pixels(shown.frame, shown.geometry)))
            self._queue.put(LiveFrame(time_s, self._stretch, self._frame_index, shown.picture, shown.arrived))
            self._frame_index += 1

    def flush(self) -> None:
        """Fill the timestamps to the end of what came. A last interval that is not complete has none, as in `steady_times`."""
        if self._last is not None:
            self._fill(self._last.end_s - self._interval_s / 2 + 2 * SAME_S)
