"""Count repetitions in a stream, frame by frame, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass

from fewframes.errors import ConfigError
from fewframes.inference.counting.config import DEFAULTS, MOST_FRAMES
from fewframes.inference.counting.counter import RepetitionCounter
from fewframes.runtime.protocol import Floats


@dataclass(frozen=True)
class RunningCount:
    """The repetitions in a stream so far: `count` of them, `stretch` of which are in the last stretch.

    `last_s` are start and end of the last one that is complete, on the clock of the stream; None before the second repetition. A
    movement counts from its second repetition on. The count is the best account of all frames so far, so later frames may
    correct it.
    """

    count: int
    stretch: int
    last_s: tuple[float, float] | None

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        last_s = None if self.last_s is None else [round(time_s, 3) for time_s in self.last_s]
        return {"count": self.count, "stretch": self.stretch, "last_s": last_s}


class LiveCounter:
    """Counts in the frames of a stream, whatever is repeated. What was counted stays when the source was lost in between."""

    def __init__(self, interval_s: float) -> None:
        """Prepare to count in frames `interval_s` apart. Raises ConfigError if so many frames are too many to compare."""
        least_s = (DEFAULTS.longest_s + DEFAULTS.pause_s) / MOST_FRAMES
        if interval_s < least_s:
            raise ConfigError(
                f"counting compares the frames of {DEFAULTS.longest_s + DEFAULTS.pause_s:g} s, and at one each {interval_s:.3g} s "
                f"they are more than {MOST_FRAMES}; use a longer window (of 16 frames: {16 * least_s:.1f} s at least)"
            )
        self._interval_s = interval_s
        self._plan = DEFAULTS.plan(interval_s)
        self._before, self._time_s = 0, 0.0
        self._index = -1
        self._counter: RepetitionCounter | None = None
        self._embedding_1D: Floats | None = None

    def restart(self) -> None:
        """Begin a new stretch of the source: nothing in it continues what was before."""
        self._before += 0 if self._counter is None else self._counter.count
        self._counter, self._embedding_1D, self._index = None, None, -1

    def push(self, index: int, embedding_D: Floats, time_s: float) -> None:
        """Add a frame that is later than all before. One that was dropped repeats the frame before it.

        Args:
            index: Position of the frame in the grid of frames.
            embedding_D: Its embedding.
            time_s: Its timestamp.
        """
        self._time_s = time_s
        if self._counter is None or self._embedding_1D is None:
            self._counter = RepetitionCounter(self._plan, keeps_path=False)
        else:
            for _ in range(min(index - self._index - 1, self._plan.num_lags)):
                self._counter.push(self._embedding_1D)
        self._index, self._embedding_1D = index, embedding_D[None]
        self._counter.push(self._embedding_1D)

    def now(self) -> RunningCount:
        """Return the count up to the last frame."""
        counter = self._counter
        if counter is None or counter.last is None:
            return RunningCount(self._before, 0, None)
        # Frames of the counter end with the newest one, which stands for half an interval on either side.
        end_s = self._time_s + self._interval_s / 2
        last_s = tuple(
            end_s - (counter.num_frames - frame) * self._interval_s for frame in (counter.last.start, counter.last.end)
        )
        return RunningCount(self._before + counter.count, counter.stretch_count, (last_s[0], last_s[1]))
