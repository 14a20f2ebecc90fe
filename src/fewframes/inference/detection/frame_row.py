"""Open a video as a row of frame embeddings at a steady rate, which come once, chunk by chunk, for all who read them.

Frames are embedded chunk by chunk. Each chunk is cached at once, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fewframes.core.arguments import check_time_range
from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.errors import ConfigError, VideoError
from fewframes.inference.detection.known_video import open_known
from fewframes.inference.frame_features import FrameFeatures, Gap, Indices, Times, features_key
from fewframes.inference.frame_sides import Beside
from fewframes.inference.frame_store.row import StoredRow, stored_row
from fewframes.inference.frame_store.store import is_frame_store, read_frame_store
from fewframes.inference.predictor import Predictor
from fewframes.runtime.protocol import Floats
from fewframes.sampling import centre_times, steady_times
from fewframes.video.decode.packets import SAME_S
from fewframes.video.source import DEFAULT_FPS, OpenVideo, Source, range_in

SAME_INTERVAL = 1e-9
"""The largest relative difference of two intervals between frames that are the same one."""


@dataclass(frozen=True, eq=False)
class SteadyFrames:
    """Frames of a video at `times_s` (N,), each of which stands for `interval_s` seconds around it.

    `indices` (N,) says which frames of a row they are; None for all of them.
    """

    times_s: Times
    interval_s: float
    indices: Indices | None = None

    @property
    def start_s(self) -> float:
        """Return the second at which the first frame begins to stand for the video."""
        return float(self.times_s[0]) - self.interval_s / 2

    @property
    def length_s(self) -> float:
        """Return the seconds that the frames stand for."""
        return len(self.times_s) * self.interval_s

    def at(self, interval_s: float, least: int) -> SteadyFrames:
        """Return frames at another interval, as nearly as these allow: the nearest one to each time.

        Args:
            interval_s: Seconds from one to the next.
            least: The fewest frames.
        """
        count = max(least, round(self.length_s / interval_s))
        if count == len(self.times_s):
            return self
        centres = np.asarray(np.arange(count) + 0.5, np.float64)
        nearest, own_s = (centres / count * len(self.times_s)).astype(np.int64), self.length_s / count
        return SteadyFrames(self.start_s + centres * own_s, own_s, np.minimum(nearest, len(self.times_s) - 1))


class RowReader(Protocol):
    """Takes the frames of a row."""

    def add(self, rows_ND: Floats) -> None:
        """Take the next frames (n, D), NaN where one could not be decoded."""


@dataclass(eq=False, kw_only=True)
class FrameRow:
    """The frames of a video between `range_s`, whose embeddings come once. What could not be decoded is known after that."""

    source: str
    duration_s: float
    range_s: tuple[float, float]
    frames: SteadyFrames
    _chunks: Iterator[Floats]
    _origin: FrameFeatures | StoredRow
    _progress: Progress
    _missing: list[NDArray[np.bool_]] = field(default_factory=list)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Return the parts that could not be decoded so far."""
        return tuple(self._origin.gaps)

    @property
    def num_encoded(self) -> int:
        """Return the frames that were encoded so far."""
        return self._origin.num_encoded

    @property
    def num_missing(self) -> int:
        """Return the frames that could not be decoded so far."""
        return self._origin.num_missing

    @property
    def num_reused(self) -> int:
        """Return the frames so far that showed nothing new."""
        return self._origin.num_reused

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Return which of the frames so far could not be decoded (N,)."""
        return np.concatenate([np.zeros(0, np.bool_), *self._missing])

    def chunks(self) -> Iterator[Floats]:
        """Yield the embeddings (n, D) of chunk after chunk, NaN for frames that could not be decoded."""
        done, total = 0, len(self.frames.times_s)
        self._progress("frames", done, total)
        for chunk_ND in self._chunks:
            done += len(chunk_ND)
            self._missing.append(np.isnan(chunk_ND[:, 0]))
            yield chunk_ND
            self._progress("frames", done, total)

    def read(self, readers: Sequence[tuple[RowReader, SteadyFrames]]) -> None:
        """Give each reader its own frames, which `frames.at` returned."""
        done = 0
        for chunk_ND in self.chunks():
            behind = done + len(chunk_ND)
            for reader, own in readers:
                if own.indices is None:
                    reader.add(chunk_ND)
                else:
                    first, end = np.searchsorted(own.indices, [done, behind])
                    if first < end:
                        reader.add(chunk_ND[own.indices[first:end] - done])
            done = behind

    def no_answers(self) -> VideoError:
        """Return the error for a video in which nothing has an answer."""
        return VideoError(self.gaps[0].error if self.gaps else f"{self.source}: the network's answers are no numbers")


@contextmanager
def opened_row(
    predictor: Predictor,
    source: Source,
    interval_of: Callable[[float], float],
    *,
    still: float = 0.0,
    cache: EmbeddingCache | None = None,
    encoder: str = "",
    content: str = "",
    video: OpenVideo | None = None,
    beside: Beside | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
) -> Iterator[FrameRow]:
    """Open the frames of a video at a steady rate, and close it in the end.

    A video, or part, of fewer frames than the model looks at has frames that are nearer to each other, as for `predict`. Raises
    VideoError, and ConfigError for a model that mixes frames inside its encoder.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`, or its frame store; so are the arguments that are not listed here.
        interval_of: Returns the seconds between frames for a part of this many seconds.
        still: Level of the gate for frames that show nothing new; 0 is exact.
        cache: Where embeddings are cached, if anywhere.
        encoder, content: Keys of the encoder and of a file's content, where they are known: computing them takes a while.
        video: The video itself, where the caller has opened it; it is closed here.
        beside: A second model: each row then has the embedding by the first model, and after it that by this one.
        progress: A callback.
    """
    if not predictor.runtime.embeds_frames:
        raise ConfigError(
            f"{predictor.name} mixes frames inside its encoder, so none can be encoded once for all windows; use a model of the "
            "'factorised' layout"
        )
    check_time_range(start_s, end_s, fps)
    if is_frame_store(source):
        if beside is not None:
            raise ConfigError(
                f"{os.fspath(source)}: a frame store has the embeddings of one encoder, and none for words; name the video itself"
            )
        row = stored_row(read_frame_store(os.fspath(source)), predictor, interval_of, start_s, end_s)
        yield FrameRow(
            source=row.store.path,
            duration_s=row.duration_s,
            range_s=row.range_s,
            frames=SteadyFrames(row.times_s, row.interval_s),
            _chunks=row.chunks(),
            _origin=row,
            _progress=progress,
        )
        return
    if video is None:
        video, content = open_known(predictor.reader, source, fps, cache, content)
    with closing(video):
        start_s, end_s = range_in(video, start_s, end_s)
        frames, first = frames_in(video.duration_s, start_s, end_s, interval_of(end_s - start_s), predictor.num_frames)
        setting = features_key(predictor, source, fps, encoder, content) if cache else ""
        second = None
        if beside is not None:
            own = features_key(beside.predictor, source, fps, beside.encoder, content) if cache else ""
            second = (beside, own)
        features = FrameFeatures(video, predictor, frames.interval_s, cache, setting, still, second)
        # Closing the generator ends its decoding thread, which must happen before the video is closed.
        with closing(features.chunks(frames.times_s, first)) as chunks:
            yield FrameRow(
                source=video.name,
                duration_s=video.duration_s,
                range_s=(start_s, end_s),
                frames=frames,
                _chunks=chunks,
                _origin=features,
                _progress=progress,
            )


def frames_in(
    duration_s: float, start_s: float, end_s: float, interval_s: float, num_frames: int
) -> tuple[SteadyFrames, int]:
    """Return the part of the whole video's row of frames that lies inside, and the index of its first one in that row.

    So parts and the whole share what is cached. Where that is less than one window, the timestamps are those of `predict`, in a row
    of their own.
    """
    whole_s = np.asarray(steady_times(0.0, duration_s, interval_s))
    edge_s = interval_s / 2 - SAME_S  # a frame stands for half an interval on either side
    inside = np.flatnonzero((whole_s >= start_s + edge_s) & (whole_s <= end_s - edge_s))
    if len(inside) >= num_frames:
        return SteadyFrames(whole_s[inside], interval_s), int(inside[0])
    times_s = np.asarray(centre_times(duration_s, num_frames, start_s=start_s, end_s=end_s))
    return SteadyFrames(times_s, (end_s - start_s) / num_frames), 0
