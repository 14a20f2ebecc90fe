"""Embed the frames of a video at a steady rate, chunk by chunk, and slide windows over the embeddings.

Each chunk is cached as soon as it is embedded. Frames that cannot be decoded are left out and named as gaps.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, content_key, key_of
from fewframes.core.process import worked_ahead
from fewframes.errors import FewframesError, Unreachable, VideoError
from fewframes.inference.predictor import Predictor
from fewframes.runtime.protocol import Floats, Frames
from fewframes.runtime.still import AFRESH_FRAMES, StillGate
from fewframes.sampling import window_indices
from fewframes.video.clock import STEP_S
from fewframes.video.source import OpenVideo, Source
from fewframes.video.transforms import fit_frame

FRAMES_VERSION = 3
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
    """A part of a video that could not be decoded, and the reason."""

    start_s: float
    end_s: float
    error: str

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {"start_s": round(self.start_s, 3), "end_s": round(self.end_s, 3), "error": self.error}


class FrameFeatures:
    """The embeddings of an open video's frames at a steady rate, chunk by chunk, read from the cache where it has them."""

    def __init__(
        self,
        video: OpenVideo,
        predictor: Predictor,
        interval_s: float,
        cache: EmbeddingCache | None,
        setting: str,
        still: float = 0.0,
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
        """
        self.gaps: list[Gap] = []
        """Parts that could not be decoded so far."""
        self._gate = StillGate(predictor.runtime, still)
        self._video, self._predictor, self._interval_s = video, predictor, interval_s
        # Embeddings through an exact gate are those of no gate, and share their key.
        self._cache, self._setting = cache, key_of(setting, {"still": still}) if setting and still else setting
        self.num_missing = 0
        """Frames that could not be decoded so far."""
        self._untried = self._num_failed = 0
        self._is_still = False
        """True once a picture that is shown for long has been logged."""

    @property
    def num_encoded(self) -> int:
        """Return the frames that were encoded so far; the others came from the cache or showed nothing new."""
        return self._gate.num_embedded

    @property
    def num_reused(self) -> int:
        """Return the frames so far that showed nothing new and got the embedding of one before."""
        return self._gate.num_reused

    def chunks(self, times_s: Times, first: int = 0) -> Generator[Floats, None, None]:
        """Yield embeddings (n, D) float32 of chunk after chunk of ascending timestamps, NaN for frames that could not be decoded.

        Chunks end where the position in the whole video's row of frames is a multiple of `CHUNK_FRAMES`, so that parts of a video
        share cached chunks. The next chunk is decoded while one is embedded.

        Args:
            times_s: Timestamps (N,) of the frames.
            first: Position of the first of them in the whole video's row.
        """
        head = min(-first % CHUNK_FRAMES, len(times_s))
        chunks = [part for part in (times_s[:head], *_split(times_s[head:], CHUNK_FRAMES)) if len(part)]
        with closing(worked_ahead(chunks, self._read, workers=1, ahead=1)) as read:  # decoding and the network overlap
            for _, chunk in read:
                if isinstance(chunk, FewframesError):
                    raise chunk
                yield self._embedded(chunk)

    def _read(self, times_s: Times) -> _Chunk:
        key = ""
        if self._cache is not None and self._setting:
            key = key_of(self._setting, {"times_s": [float(times_s[0]), float(times_s[-1]), len(times_s)]})
            found_ND = self._cache.get(key)
            if found_ND is not None:
                return _Chunk(key, embeddings=found_ND)
        if not self._untried:  # the usual way: the chunk in one pass
            try:
                return _Chunk(key, frames=self._frames(times_s))
            except Unreachable:
                raise  # a store that does not answer says nothing about the video
            except VideoError as error:
                log.debug("%s", error)
        return self._in_parts(times_s)

    def _frames(self, times_s: Times) -> Frames:
        clip = self._video.frames_at(times_s, lambda frame_CHW: fit_frame(frame_CHW, self._predictor.runtime.view))
        still = np.flatnonzero(times_s - clip.times_s >= STEP_S)
        if len(still) and not self._is_still:
            self._is_still = True
            log.warning(
                "%s: the picture of %.2f s is shown for %g s and longer: a clock that steps on, or nothing was recorded; leave "
                "that out with a start and an end where it matters",
                self._video.name,
                float(clip.times_s[still[0]]),
                STEP_S,
            )
        return clip.frames

    def _in_parts(self, times_s: Times) -> _Chunk:
        """Decode what can be decoded of a chunk.

        Each try at a damaged position decodes from the start of the video. So every failure doubles the parts left out untried.
        """
        frames, good = [], []
        for part_s in _split(times_s, PART_FRAMES):
            if self._untried:
                self._untried -= 1
                error = ""
            else:
                try:
                    frames.append(self._frames(part_s))
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
        return _Chunk("", frames=np.concatenate(frames) if frames else None, good=np.array(good))

    def _add_gap(self, first_s: float, last_s: float, error: str) -> None:
        start_s, end_s = first_s - self._interval_s / 2, last_s + self._interval_s / 2
        # Neighbouring gaps are one; a part that was left out untried belongs to the gap before it.
        if self.gaps and (not error or abs(self.gaps[-1].end_s - start_s) < self._interval_s / 2):
            before = self.gaps.pop()
            start_s, error = before.start_s, before.error
        self.gaps.append(Gap(start_s, end_s, error))

    def _embedded(self, chunk: _Chunk) -> Floats:
        if chunk.embeddings is not None:
            return chunk.embeddings
        runtime = self._predictor.runtime
        self._gate.forget()  # so that a chunk is the same whether those before it came from the cache or not
        embedded_ND = np.empty(0, np.float32) if chunk.frames is None else self._gate.embed(chunk.frames)
        if chunk.good is not None:
            self.num_missing += len(chunk.good) - len(embedded_ND)
            whole_ND = np.full((len(chunk.good), runtime.frame_width), np.nan, np.float32)
            if len(embedded_ND):
                whole_ND[chunk.good] = embedded_ND
            return whole_ND
        if self._cache is not None and chunk.key:
            self._cache.put_or_warn(chunk.key, embedded_ND)
        return embedded_ND


@dataclass(frozen=True, eq=False)
class _Chunk:
    """A chunk: embeddings (n, D) from the cache, or frames (n, C, H, W) still to be embedded; `good` marks what was decoded."""

    key: str
    embeddings: Floats | None = None
    frames: Frames | None = None
    good: NDArray[np.bool_] | None = None


def _split(times_s: Times, size: int) -> list[Times]:
    """Return the timestamps in parts of this size; the last part may be shorter."""
    return [times_s[first : first + size] for first in range(0, len(times_s), size)]


def encoder_key(predictor: Predictor) -> str:
    """Return a key of everything about a predictor that decides which embedding a frame gets."""
    runtime = predictor.runtime
    settings = {"frames_version": FRAMES_VERSION, "backend": predictor.reader.backend}
    return key_of(runtime.encoder_key(), settings, asdict(runtime.view))


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


def slide(
    chunks: Iterable[Floats],
    encode: Callable[[Floats], Floats],
    window_frames: int,
    strides: Sequence[int],
    intervals: Sequence[int],
) -> Iterator[list[tuple[Indices, Floats]]]:
    """Slide windows over a row of embeddings that comes in chunks (n, D).

    After each chunk, and once after the last, it yields for each stride the start indices (W,) of the windows that are now
    complete, and the findings of `encode` for them. The last window ends with the row. Only frames that are still needed stay in
    memory.

    Args:
        chunks: Embeddings (n, D) in the order of time.
        encode: A function of windows (W, T, D) that returns one row for each (W, ...).
        window_frames: T.
        strides: Frames from one frame of a window to the next.
        intervals: Frames from the start of one window to the next, for each stride.
    """
    # `held_ND` are the frames still needed, `first` the position of the first of them in the row, `starts` where the next
    # window of each stride begins.
    starts, first, held_ND = [0] * len(strides), 0, np.empty(0, np.float32)

    def complete(number: int, interval: int) -> tuple[Indices, Floats]:
        offset = starts[number] - first
        indices_WT = (
            np.asarray(window_indices(len(held_ND) - offset, window_frames, stride=strides[number], interval=interval))
            + offset
        )
        starts[number] += len(indices_WT) * interval
        return indices_WT[:, 0] + first, encode(held_ND[indices_WT]) if len(indices_WT) else np.empty(0, np.float32)

    most_held = max((window_frames - 1) * stride + 1 for stride in strides)
    for chunk_ND in chunks:
        held_ND = np.concatenate([held_ND, chunk_ND]) if len(held_ND) else chunk_ND
        yield [complete(number, interval) for number, interval in enumerate(intervals)]
        # The last window, which ends with the row, may reach back as far as the longest window does.
        done = len(held_ND) - max(most_held, len(held_ND) + first - min(starts))
        held_ND, first = held_ND[max(0, done) :], first + max(0, done)
    rest = []
    for number, stride in enumerate(strides):
        last = first + len(held_ND) - (window_frames - 1) * stride - 1
        is_left = last >= 0 and starts[number] - intervals[number] < last
        starts[number] = last if is_left else starts[number]
        rest.append(complete(number, 1) if is_left else (np.empty(0, np.int64), np.empty(0, np.float32)))
    yield rest
