"""Embed the frames of a video at a steady rate, chunk by chunk, and slide windows over the embeddings.

Each chunk is cached as soon as it is embedded. Frames that cannot be decoded, or were not recorded, are left out and named as gaps.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, content_key, key_of
from fewframes.core.process import worked_ahead
from fewframes.errors import FewframesError, Unreachable, VideoError
from fewframes.inference.frame_sides import Beside, FrameSide, frames_of_each
from fewframes.inference.predictor import Predictor
from fewframes.results import Clip, ClockStep
from fewframes.runtime.protocol import Floats, Frames
from fewframes.runtime.still import AFRESH_FRAMES
from fewframes.sampling import window_indices
from fewframes.video.clock import STEP_S, nothing_recorded, shows_gap, step_at
from fewframes.video.source import OpenVideo, Source

FRAMES_VERSION = 4
"""A number that is raised when a video begins to give other frames or embeddings, so that those cached before are not found."""
log = logging.getLogger("fewframes")

Times = NDArray[np.float64]
Indices = NDArray[np.int64]

CHUNK_FRAMES = AFRESH_FRAMES
"""Frames that are decoded, embedded and cached together. Each chunk begins with a frame that is embedded whatever it shows."""
PART_FRAMES = 16
"""Frames of a chunk that are left out together where one of them cannot be decoded."""


@dataclass(frozen=True)
class Gap:
    """A part of a video without frames, and the reason: it could not be decoded, or nothing was recorded then (`is_pause`)."""

    start_s: float
    end_s: float
    error: str
    is_pause: bool = False
    """True if the video's timestamps jump over this part, so that nothing of it is lost."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        times_s = {"start_s": round(self.start_s, 3), "end_s": round(self.end_s, 3)}
        return {**times_s, "error": self.error, "is_pause": self.is_pause}


class FrameFeatures:
    """The embeddings of an open video's frames at a steady rate, chunk by chunk, read from the cache where it has them.

    With a second model, each row has the embedding by the first and then that by the second: (D + D2,). Frames are decoded once.
    """

    def __init__(
        self,
        video: OpenVideo,
        predictor: Predictor,
        interval_s: float,
        cache: EmbeddingCache | None,
        setting: str,
        still: float = 0.0,
        beside: tuple[Beside, str] | None = None,
    ) -> None:
        """Prepare to embed the frames of an open video.

        Args:
            video: The video; the caller closes it.
            predictor: The model.
            interval_s: Seconds from one frame to the next.
            cache: Where embeddings are cached, if anywhere.
            setting: The cache's key of everything that embeddings depend on apart from the timestamps; empty where nothing is
                cached.
            still: The level of the gate for frames that show nothing new (`StillGate`); 0 is exact.
            beside: A second model, and its `setting`.
        """
        self.gaps: list[Gap] = []
        """Parts that could not be decoded so far."""
        self._video, self._interval_s, self._cache = video, interval_s, cache
        models = [(predictor, setting), *([] if beside is None else [(beside[0].predictor, beside[1])])]
        self._sides = [FrameSide(model, with_still(own, still), still) for model, own in models]
        self.num_missing = 0
        """Frames so far that could not be decoded, or of which nothing was recorded."""
        self._steps: tuple[ClockStep, ...] | None = None
        """The gaps of the video's clock; None until there is a reason to look for them."""
        self._untried = self._num_failed = 0
        self._is_still = False
        """True once a picture that is shown for long has been logged."""

    @property
    def num_encoded(self) -> int:
        """Return the frames that were encoded so far; the others came from the cache or showed nothing new."""
        return max(side.gate.num_embedded for side in self._sides)

    @property
    def num_reused(self) -> int:
        """Return the frames so far that showed nothing new and got the embedding of one before."""
        return max(side.gate.num_reused for side in self._sides)

    def chunks(self, times_s: Times, first: int = 0) -> Generator[Floats, None, None]:
        """Yield embeddings (n, D) float32 of chunk after chunk of ascending timestamps, NaN for frames that could not be decoded.

        Chunks end where the position in the whole video's row of frames is a multiple of `CHUNK_FRAMES`, so that parts of a video
        share cached chunks. The next chunk is decoded while one is embedded.

        Args:
            times_s: Timestamps (N,) of the frames.
            first: Position of the first of them in the whole video's row.
        """
        chunks = chunks_of(times_s, first)
        with closing(worked_ahead(chunks, self._read, workers=1, ahead=1)) as read:  # decoding and the network overlap
            for _, chunk in read:
                if isinstance(chunk, FewframesError):
                    raise chunk
                yield self._embedded(chunk)

    def _read(self, times_s: Times) -> _Chunk:
        chunk = _Chunk([self._cached(side, times_s) for side in self._sides])
        if not chunk.wanting:
            return chunk
        is_split = any(step_at(self._steps or (), time_s) for time_s in times_s.tolist())
        if not self._untried and not is_split:  # the usual way: the chunk in one pass
            try:
                clip, frames = self._decoded(chunk, times_s)
                if not (shows_gap(times_s, clip.times_s) and self._finds_steps(clip, times_s)):
                    return replace(chunk, frames=frames)
            except Unreachable:
                raise  # a store that does not answer says nothing about the video
            except VideoError as error:
                log.debug("%s", error)
                self._finds_steps()  # timestamps in a gap all show the picture before it, which may be damaged
        return self._in_parts(chunk, times_s)

    def _cached(self, side: FrameSide, times_s: Times) -> _Part:
        """Return the key of a chunk for one of the models, and its embeddings if they are cached."""
        if self._cache is None or not side.setting:
            return _Part("")
        key = chunk_key(side.setting, times_s)
        return _Part(key, self._cache.get(key))

    def _decoded(self, chunk: _Chunk, times_s: Times) -> tuple[Clip, list[Frames]]:
        """Decode frames, and return the clip with its frames as each model sees them whose embeddings are not cached."""
        return frames_of_each(self._video, times_s, [self._sides[number].predictor.reader for number in chunk.wanting])

    def _finds_steps(self, clip: Clip | None = None, times_s: Times | None = None) -> bool:
        """Look for gaps in the video's clock, once. Return True if that has just found some.

        Where there are none, a picture in a clip (T frames at timestamps (T,)) that is shown for long is told.
        """
        if self._steps is None:
            self._steps = self._video.steps()
            if self._steps:
                return True
        if clip is not None and times_s is not None and not self._is_still:
            self._is_still = True
            log.warning(
                "%s: the picture of %.2f s is shown for %g s and longer; leave that out with a start and an end where it matters",
                self._video.name,
                float(clip.times_s[times_s - clip.times_s >= STEP_S][0]),
                STEP_S,
            )
        return False

    def _in_parts(self, chunk: _Chunk, times_s: Times) -> _Chunk:
        """Decode what can be decoded of a chunk.

        Each try at a damaged position decodes from the start of the video. So every failure doubles the parts left out untried.
        """
        frames: list[list[Frames]] = []
        good: list[bool] = []
        for part_s, step in self._parts(times_s):
            if step is not None:
                self._add_pause(step)
                good += [False] * len(part_s)
                continue
            if self._untried:
                self._untried -= 1
                error = ""
            else:
                try:
                    frames.append(self._decoded(chunk, part_s)[1])
                    self._num_failed = 0
                    good += [True] * len(part_s)
                    continue
                except Unreachable:
                    raise
                except VideoError as failed:
                    error = str(failed)
                    self._untried = 2**self._num_failed - 1
                    self._num_failed += 1
            good += [False] * len(part_s)
            self._add_gap(float(part_s[0]), float(part_s[-1]), error)
        together = [np.concatenate(parts) for parts in zip(*frames, strict=True)]
        return replace(chunk, frames=together, good=np.array(good))

    def _parts(self, times_s: Times) -> list[tuple[Times, ClockStep | None]]:
        """Return the timestamps of a chunk in parts that are decoded together; those in a gap of the clock by themselves."""
        steps = [step_at(self._steps or (), time_s) for time_s in times_s.tolist()]
        parts, first = [], 0
        for step, run in groupby(steps):
            end = first + len(list(run))
            size = PART_FRAMES if step is None else end - first
            parts += [(part_s, step) for part_s in _split(times_s[first:end], size)]
            first = end
        return parts

    def _add_pause(self, step: ClockStep) -> None:
        """Name a gap in the clock, once. What follows is tried, whatever could not be decoded before."""
        self._untried = self._num_failed = 0
        words = f"{self._video.name}: {nothing_recorded(step)}"
        gap = Gap(step.at_s, step.at_s + step.by_s, words, is_pause=True)
        if gap not in self.gaps:
            self.gaps.append(gap)

    def _add_gap(self, first_s: float, last_s: float, error: str) -> None:
        start_s, end_s = first_s - self._interval_s / 2, last_s + self._interval_s / 2
        before = self.gaps[-1] if self.gaps and not self.gaps[-1].is_pause else None
        # Neighbouring gaps are one; a part that was left out untried belongs to the gap before it.
        if before is not None and (not error or abs(before.end_s - start_s) < self._interval_s / 2):
            self.gaps.pop()
            start_s, error = before.start_s, before.error
        self.gaps.append(Gap(start_s, end_s, error))

    def _embedded(self, chunk: _Chunk) -> Floats:
        if chunk.good is not None:
            self.num_missing += int((~chunk.good).sum())
        frames = iter(chunk.frames)
        rows = [
            self._embedded_by(side, part, None if part.embeddings is not None else next(frames, None), chunk.good)
            for side, part in zip(self._sides, chunk.parts, strict=True)
        ]
        return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)

    def _embedded_by(
        self, side: FrameSide, part: _Part, frames_NCHW: Frames | None, good_N: NDArray[np.bool_] | None
    ) -> Floats:
        """Return the embeddings of a chunk by one of the models: cached ones, or those of the frames that were decoded."""
        if part.embeddings is not None:
            return part.embeddings if good_N is None else np.where(good_N[:, None], part.embeddings, np.float32(np.nan))
        side.gate.forget()  # so that a chunk is the same whether those before it came from the cache or not
        embedded_ND = np.empty(0, np.float32) if frames_NCHW is None else side.gate.embed(frames_NCHW)
        if good_N is not None:
            whole_ND = np.full((len(good_N), side.width), np.nan, np.float32)
            if len(embedded_ND):
                whole_ND[good_N] = embedded_ND
            return whole_ND
        if self._cache is not None and part.key:
            self._cache.put_or_warn(part.key, embedded_ND)
        return embedded_ND


@dataclass(frozen=True, eq=False)
class _Part:
    """The key of a chunk for one of the models, and its embeddings (n, D) if they are cached."""

    key: str
    embeddings: Floats | None = None


@dataclass(frozen=True, eq=False)
class _Chunk:
    """A chunk: what is known of it for each model, and its frames (n, C, H, W) for each model that needs them.

    `good` marks what was decoded; None for all of it.
    """

    parts: list[_Part]
    frames: Sequence[Frames] = ()
    good: NDArray[np.bool_] | None = None

    @property
    def wanting(self) -> list[int]:
        """Return the numbers of the models that need the frames."""
        return [number for number, part in enumerate(self.parts) if part.embeddings is None]


def chunks_of(times_s: Times, first: int) -> list[Times]:
    """Return timestamps in the chunks that are cached; `first` is the position of the first in the whole video's row."""
    head = min(-first % CHUNK_FRAMES, len(times_s))
    return [part for part in (times_s[:head], *_split(times_s[head:], CHUNK_FRAMES)) if len(part)]


def chunk_key(setting: str, times_s: Times) -> str:
    """Return the cache's key of a chunk of timestamps; `setting` is the key of everything else that embeddings depend on."""
    return key_of(setting, {"times_s": [float(times_s[0]), float(times_s[-1]), len(times_s)]})


def with_still(setting: str, still: float) -> str:
    """Return a setting's key with the level of the gate. Embeddings through an exact gate are those of no gate, and share it."""
    return key_of(setting, {"still": still}) if setting and still else setting


def _split(times_s: Times, size: int) -> list[Times]:
    """Return the timestamps in parts of this size; the last part may be shorter."""
    return [times_s[first : first + size] for first in range(0, len(times_s), size)]


def encoder_key(predictor: Predictor) -> str:
    """Return a key of everything about a predictor that decides which embedding a frame gets."""
    runtime = predictor.runtime
    settings = {"frames_version": FRAMES_VERSION, "backend": predictor.reader.backend}
    regions = [dict(region.key()) for region in predictor.reader.regions]
    return key_of(runtime.encoder_key(), settings, asdict(runtime.view), *regions)


def features_key(predictor: Predictor, source: Source, fps: float, encoder: str, content: str) -> str:
    """Return the cache's key of a file's content, the encoder and its view; empty for a source that is no file on this machine.

    Args:
        predictor: The model.
        source: The video.
        fps: Frame rate of inputs that have none of their own.
        encoder, content: Keys of the encoder and of the content, where they are known; empty where not.
    """
    if not isinstance(source, str | os.PathLike):
        return ""
    try:
        content = content or content_key(os.fspath(source))
    except OSError:
        return ""
    return key_of(
        content,
        encoder or encoder_key(predictor),
        {"steady": 1, "fps": fps},
    )


class WindowSlider:
    """Slides windows over a row of embeddings that comes in chunks. Only frames that are still needed stay in memory."""

    def __init__(
        self,
        encode: Callable[[Floats], Floats],
        window_frames: int,
        strides: Sequence[int],
        intervals: Sequence[int],
    ) -> None:
        """Begin at the first frame.

        Args:
            encode: A function of windows (W, T, D) that returns one row for each (W, ...).
            window_frames: T.
            strides: Frames from one frame of a window to the next.
            intervals: Frames from the start of one window to the next, for each stride.
        """
        self._encode, self._window_frames, self._strides, self._intervals = encode, window_frames, strides, intervals
        # `held` are the frames still needed, `first` the position of the first of them in the row, `starts` where the next window
        # of each stride begins.
        self._starts, self._first, self._held_ND = [0] * len(strides), 0, np.empty(0, np.float32)
        self._most_held = max((window_frames - 1) * stride + 1 for stride in strides)

    def add(self, rows_ND: Floats) -> list[tuple[Indices, Floats]]:
        """Take the next frames (n, D), in the order of time.

        Return, for each stride, the start indices (W,) of the windows that are now complete, and the findings of `encode` for them.
        """
        self._held_ND = np.concatenate([self._held_ND, rows_ND]) if len(self._held_ND) else rows_ND
        found = [self._complete(number, interval) for number, interval in enumerate(self._intervals)]
        # The last window, which ends with the row, may reach back as far as the longest window does.
        held = max(self._most_held, len(self._held_ND) + self._first - min(self._starts))
        done = max(0, len(self._held_ND) - held)
        self._held_ND, self._first = self._held_ND[done:], self._first + done
        return found

    def finish(self) -> list[tuple[Indices, Floats]]:
        """Return the last window of each stride, which ends with the row, as `add` does; none where it is known already."""
        rest = []
        for number, stride in enumerate(self._strides):
            last = self._first + len(self._held_ND) - (self._window_frames - 1) * stride - 1
            is_left = last >= 0 and self._starts[number] - self._intervals[number] < last
            self._starts[number] = last if is_left else self._starts[number]
            nothing = (np.empty(0, np.int64), np.empty(0, np.float32))
            rest.append(self._complete(number, 1) if is_left else nothing)
        return rest

    def _complete(self, number: int, interval: int) -> tuple[Indices, Floats]:
        offset = self._starts[number] - self._first
        indices_WT = (
            np.asarray(
                window_indices(
                    len(self._held_ND) - offset, self._window_frames, stride=self._strides[number], interval=interval
                )
            )
            + offset
        )
        self._starts[number] += len(indices_WT) * interval
        found = self._encode(self._held_ND[indices_WT]) if len(indices_WT) else np.empty(0, np.float32)
        return indices_WT[:, 0] + self._first, found
