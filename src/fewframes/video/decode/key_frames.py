"""The key frames of an open file: when each is shown, and which timestamps are cheap to decode because of that.

Decoding can only begin at a key frame. Some containers list key frames with the times at which they are decoded, although they
are shown somewhat later; the difference is learnt from packets. Nothing is decoded in this module.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import closing

from fewframes.video.decode.container import READ_ERRORS, ContainerIndex, OpenContainer, packets_of
from fewframes.video.decode.packets import SAME_S
from fewframes.video.times import cheapest_times

log = logging.getLogger("fewframes")

JUMP_S = 10.0
"""The distance in seconds from which a jump is tried where key frames are not listed; a nearer timestamp is decoded towards."""
MOST_LATE_FRAMES = 6
"""The largest number of frames by which a key frame may be shown later than an index of decoding times says."""
PROBED_FRACTIONS = (0.07, 0.31, 0.55, 0.83)
"""The positions, as fractions of the list, of the key frames whose delay is probed. They are irregular on purpose: key frames at
the joints of a joined file have other delays, and they lie at regular distances."""
WORTH_FRAMES = 4
"""The least number of frames that a move to an earlier time must span. A shorter move saves nothing, because it may end at a
picture that needs later ones."""

LEAST_EVEN = 0.75
"""The least mean work of a part, as a fraction of that of the largest part, with which a file is divided among decoders."""
WORTH_SHARE = 0.85
"""The largest part of the seconds decoded for exact timestamps that may be decoded for moved ones. Above it, looking up the delays
of key frames and jumping to them costs what is saved, or more (docs/decisions/2026-11-29-tolerance.md)."""


class KeyFrames:
    """The key frames of an open file, as far as its index lists them."""

    def __init__(self, index: ContainerIndex, source: OpenContainer, origin_s: float, delays: list[int]) -> None:
        """Read the list of key frames from an index.

        Args:
            index: what the container says of its key frames.
            source: the open container; only its clock is read here.
            origin_s: when the first picture is shown, in seconds on the container's clock.
            delays: how much later than decoded each key frame was shown, in ticks; the decoder appends to this list.
        """
        self._index, self._origin_s, self._delays = index, origin_s, delays
        self._tick_s, self._frame_s = source.tick_s, source.frame_s
        self._delayed: tuple[int, list[float]] = 0, []
        """A delay in ticks, and the key frames' times shifted by it."""

    def times_s(self) -> list[float] | None:
        """Return when key frames are shown, ascending on the container's clock; None where they are not listed."""
        keys_s = self._index.key_times_s
        if keys_s is None or not self._index.by_decoding or len(self._delays) < 2:
            return keys_s
        # The first key frame's listed time is right, so that the others are late by the difference to its delay.
        late = self._delays[-1] - self._delays[0]
        if late != self._delayed[0]:  # this method runs for every timestamp, and the delay changes once or twice
            self._delayed = late, keys_s[:1] + [key_s + late * self._tick_s for key_s in keys_s[1:]]
        return self._delayed[1] if late else keys_s

    def lies_between(self, position_s: float, time_s: float) -> bool:
        """Return whether a key frame lies after `position_s` and not after `time_s`, both on the container's clock.

        Where key frames are not listed, one is expected `JUMP_S` seconds ahead.
        """
        keys_s = self.times_s()
        if keys_s is None:
            return time_s > position_s + JUMP_S
        keys_up_to = bisect_right(keys_s, time_s + SAME_S)
        return keys_up_to > 0 and keys_s[keys_up_to - 1] > position_s

    def back_s(self, time_s: float) -> float:
        """Return how many seconds before `time_s` the key frame before the nearest earlier one lies.

        Pictures behind an open group may give up ones before it, which FFmpeg takes for damage in the first group after a jump.
        """
        keys_s = self.times_s() or []
        num_before = bisect_right(keys_s, time_s + SAME_S)
        return time_s - keys_s[num_before - 2] if num_before >= 2 else JUMP_S

    def first_run(self, times_s: list[float]) -> list[float]:
        """Return the leading timestamps that are cheapest to decode in one forward pass.

        The run ends before the first key frame that is worth jumping to; it has at least one timestamp.

        Args:
            times_s: ascending timestamps, in seconds from the start of the video.
        """
        ends = (
            index
            for index in range(1, len(times_s))
            if self.lies_between(self._origin_s + times_s[index - 1], self._origin_s + times_s[index])
        )
        return times_s[: next(ends, len(times_s))]

    def span_s(self, times_s: list[float]) -> float:
        """Return about how many seconds of video are decoded for the frames at ascending timestamps, counted from the start."""
        return sum((span_s for _, span_s in self._runs(times_s)), 0.0)

    def parts(self, times_s: list[float], num_parts: int, least_pictures: float) -> list[list[float]]:
        """Return timestamps in parts that are decoded at the same time, each by a decoder of its own.

        Each part has whole runs. There is one part where dividing saves little: few pictures are decoded, or most in one run.

        Args:
            times_s: ascending timestamps, in seconds from the start of the video.
            num_parts: the number of parts, where they are worth it.
            least_pictures: the fewest pictures that are divided.
        """
        runs = [(run, span_s + self._frame_s) for run, span_s in self._runs(times_s)]
        total_s = sum(work_s for _, work_s in runs)
        if len(runs) < num_parts or total_s < least_pictures * self._frame_s:
            return [times_s]
        parts: list[list[float]] = [[] for _ in range(num_parts)]
        works_s, done_s = [0.0] * num_parts, 0.0
        for run, work_s in runs:
            part = min(num_parts - 1, int((done_s + work_s / 2) / total_s * num_parts))
            parts[part] += run
            works_s[part] += work_s
            done_s += work_s
        # Among many decoders one may have nothing, between two long runs.
        return [part for part in parts if part] if total_s >= LEAST_EVEN * num_parts * max(works_s) else [times_s]

    def _runs(self, times_s: list[float]) -> Iterator[tuple[list[float], float]]:
        """Yield the runs of ascending timestamps, each with about how many seconds of video are decoded for it."""
        keys_s = self._from_origin_s() or [0.0]
        while times_s:
            run = self.first_run(times_s)
            yield run, run[-1] - keys_s[max(0, bisect_right(keys_s, run[0] + SAME_S) - 1)]
            times_s = times_s[len(run) :]

    def cheaper_times(
        self, source: OpenContainer, times_s: list[float], tolerance_s: float, duration_s: float
    ) -> list[float]:
        """Return each timestamp moved by at most `tolerance_s` to where a frame is cheapest to decode.

        The timestamps themselves are returned, and nothing is read, unless clearly less is decoded for moved ones. An index of
        decoding times is corrected otherwise, which seeks in the container and leaves it elsewhere.

        Args:
            source: the open container.
            times_s: ascending timestamps, in seconds from the start of the video.
            tolerance_s: the largest move, in seconds.
            duration_s: the length of the video, in seconds.
        """
        moved_s = self.likely_times(times_s, tolerance_s, duration_s)
        if moved_s is not times_s and self._index.by_decoding:
            keys_s = self._from_origin_s()
            reach_s = tolerance_s + MOST_LATE_FRAMES * self._frame_s
            near = {
                key_s
                for time_s in times_s
                for key_s in keys_s[bisect_left(keys_s, time_s - reach_s) : bisect_right(keys_s, time_s + reach_s)]
            }
            delay_s = self._probed_delay_s(source, sorted(near))
            keys_s = keys_s[:1] + [key_s + delay_s for key_s in keys_s[1:]]  # the first listed time is right
            moved_s = self._cheapest(times_s, keys_s, tolerance_s, duration_s)
        return moved_s

    def likely_times(self, times_s: list[float], tolerance_s: float, duration_s: float) -> list[float]:
        """Return about what `cheaper_times` does, from the list of key frames alone; nothing is read."""
        moved_s = self._cheapest(times_s, self._from_origin_s(), tolerance_s, duration_s)
        is_worth = moved_s != times_s and self._decoded_s(moved_s) <= WORTH_SHARE * self._decoded_s(times_s)
        return moved_s if is_worth else times_s

    def work(self, times_s: list[float]) -> tuple[int, float]:
        """Return in how many runs ascending timestamps are decoded, and about how many seconds of pictures that are."""
        spans_s = [span_s + self._frame_s for _, span_s in self._runs(times_s)]
        return len(spans_s), sum(spans_s)

    def _from_origin_s(self) -> list[float]:
        """Return when key frames are shown, in seconds from the start of the video; empty where they are not listed."""
        return [key_s - self._origin_s for key_s in self.times_s() or ()]

    def _cheapest(
        self, times_s: list[float], keys_s: list[float], tolerance_s: float, duration_s: float
    ) -> list[float]:
        """Return ascending timestamps moved by at most `tolerance_s`, for key frames shown at `keys_s`, all from the start."""
        # The middle of a frame is aimed at, so that a rounded time does not name the frame before it.
        middles_s, last_s = [key_s + self._frame_s / 2 for key_s in keys_s], max(0.0, duration_s - self._frame_s / 2)
        cheapest_s = cheapest_times(times_s, middles_s, tolerance_s, worth_s=WORTH_FRAMES * self._frame_s)
        return [min(time_s, last_s) for time_s in cheapest_s]

    def _decoded_s(self, times_s: list[float]) -> float:
        """Return about how many seconds of pictures are decoded for ascending timestamps, the key frame of each run too."""
        return self.work(sorted(set(times_s)))[1]

    def _probed_delay_s(self, source: OpenContainer, keys_s: list[float]) -> float:
        """Return the largest delay, in seconds, of some of the key frames listed with their decoding times.

        The packets of a few key frames are read, and nothing is decoded. A key frame that is less late costs a picture or two
        more when it is decoded.
        """
        delays_s, most_s = [0.0], MOST_LATE_FRAMES * self._frame_s
        for key_s in {keys_s[int(len(keys_s) * fraction)] for fraction in PROBED_FRACTIONS} if keys_s else ():
            try:
                source.container.seek(int((self._origin_s + key_s + most_s) / self._tick_s), stream=source.stream)
                with closing(packets_of(source.container, source.stream)) as packets:
                    packet = next(packets)
            except (*READ_ERRORS, StopIteration) as error:
                log.debug("%s: the key frame at %.3f s: %s", source.container.name, key_s, error)
                continue
            if packet.pts is not None:
                delays_s.append(packet.pts * self._tick_s - self._origin_s - key_s)
        return max(delay_s for delay_s in delays_s if delay_s <= most_s)
