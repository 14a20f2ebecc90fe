"""Slide windows over the frame embeddings of a video, each of which is computed once.

Only the frames that a window still needs are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fewframes.core.cache import EmbeddingCache
from fewframes.core.process import Progress
from fewframes.errors import VideoError
from fewframes.inference.detection.frame_row import SteadyFrames, opened_row
from fewframes.inference.frame_features import Gap, Indices, Times, WindowSlider
from fewframes.inference.predictor import Predictor
from fewframes.runtime.protocol import Floats
from fewframes.video.source import DEFAULT_FPS, OpenVideo, Source


@dataclass(frozen=True, eq=False)
class VideoScores:
    """The findings of sliding windows over the frames of a video between `range_s`, taken at `times_s` (N,).

    `windows` has, for each length that has any: its seconds, the seconds at which windows start (W,), and the findings (W, ...).
    Parts that could not be decoded are named in `gaps`, and their windows are NaN.
    """

    source: str
    duration_s: float
    range_s: tuple[float, float]
    times_s: Times
    windows: tuple[tuple[float, Times, Floats], ...]
    gaps: tuple[Gap, ...]
    num_encoded: int
    num_missing: int
    num_reused: int = 0

    def no_answers(self) -> VideoError:
        """Return the error for a video in which no window has an answer."""
        return VideoError(self.gaps[0].error if self.gaps else f"{self.source}: the network's answers are no numbers")


def score_windows(
    predictor: Predictor,
    source: Source,
    encode: Callable[[Floats], Floats],
    *,
    window_s: float,
    strides: Sequence[int] = (1,),
    intervals: Sequence[int],
    still: float = 0.0,
    cache: EmbeddingCache | None = None,
    encoder: str = "",
    content: str = "",
    video: OpenVideo | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float = DEFAULT_FPS,
    progress: Progress = lambda stage, done, total: None,
    on_frames: Callable[[Floats], object] = lambda embeddings_ND: None,
) -> VideoScores:
    """Encode each frame of a video once, and run `encode` on sliding windows of the embeddings.

    Raises VideoError, and ConfigError for a model that mixes frames inside its encoder.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`, or its frame store; so are the arguments that are not listed here.
        encode: A function of windows (W, T, D) that returns one row for each (W, ...).
        window_s: Seconds of the shortest windows.
        strides: Frames from one frame of a window to the next, for each length of window.
        intervals: Frames from the start of one window to the next, for each length.
        still: Level of the gate for frames that show nothing new; 0 is exact.
        cache: Where embeddings are cached, if anywhere.
        encoder, content: Keys of the encoder and of a file's content, where they are known: computing them takes a while.
        video: The video itself, where the caller has opened it; it is closed here.
        progress: A callback.
        on_frames: Called with the embeddings (n, D) of each chunk of frames, NaN where one could not be decoded.
    """
    num_frames = predictor.num_frames
    with opened_row(
        predictor,
        source,
        lambda _: window_s / num_frames,
        still=still,
        cache=cache,
        encoder=encoder,
        content=content,
        video=video,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        progress=progress,
    ) as row:
        windows = WindowReader(encode, row.frames, num_frames, strides, intervals)
        for chunk_ND in row.chunks():
            on_frames(chunk_ND)
            windows.add(chunk_ND)
    return VideoScores(
        row.source,
        row.duration_s,
        row.range_s,
        row.frames.times_s,
        windows.found(),
        row.gaps,
        row.num_encoded,
        row.num_missing,
        row.num_reused,
    )


class WindowReader:
    """Runs a function on sliding windows of the frames of a video, which come chunk by chunk."""

    def __init__(
        self,
        encode: Callable[[Floats], Floats],
        frames: SteadyFrames,
        num_frames: int,
        strides: Sequence[int],
        intervals: Sequence[int],
    ) -> None:
        """Prepare to slide.

        Args:
            encode: A function of windows (W, T, D) that returns one row for each (W, ...).
            frames: The frames that will come.
            num_frames: T.
            strides: Frames from one frame of a window to the next, for each length of window.
            intervals: Frames from the start of one window to the next, for each length.
        """
        self._slider = WindowSlider(encode, num_frames, strides, intervals)
        self._frames, self._num_frames, self._strides = frames, num_frames, strides
        # For each stride the start indices and findings of its windows, chunk by chunk.
        self._parts: list[list[tuple[Indices, Floats]]] = [[] for _ in strides]

    def add(self, rows_ND: Floats) -> None:
        """Take the next frames (n, D), NaN where one could not be decoded."""
        self._keep(self._slider.add(rows_ND))

    def found(self) -> tuple[tuple[float, Times, Floats], ...]:
        """Return the windows of each length that has any, as in `VideoScores`, after the last frame."""
        self._keep(self._slider.finish())
        return tuple(
            self._joined(part, stride)
            for part, stride in zip(self._parts, self._strides, strict=True)
            if part  # a short video has no windows of the longer lengths
        )

    def _keep(self, found: Sequence[tuple[Indices, Floats]]) -> None:
        for number, part in enumerate(found):
            self._parts[number].extend([part] if len(part[0]) else [])

    def _joined(self, parts: list[tuple[Indices, Floats]], stride: int) -> tuple[float, Times, Floats]:
        """Join all windows of one length: their seconds, the seconds at which they start, and their findings."""
        indices_W, found_W = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        # A frame stands for the `stride` parts around it, so that T of them are the centres of T equal parts of the window.
        interval_s = self._frames.interval_s
        starts_s = self._frames.times_s[indices_W] - stride * interval_s / 2
        return self._num_frames * stride * interval_s, starts_s, found_W


@dataclass(frozen=True, eq=False)
class FrameRows:
    """The embeddings (N, D) of the frames of a video at a steady rate, NaN where one could not be decoded."""

    embeddings: Floats
    interval_s: float
    """Seconds from one to the next."""


def frame_rows(
    predictor: Predictor, source: Source, interval_s: float, *, cache: EmbeddingCache | None = None
) -> FrameRows:
    """Return the embeddings of the frames of a video at a steady rate. All of them are in memory. Raises VideoError.

    Args:
        predictor: The model.
        source: The video, as for `Predictor.predict`.
        interval_s: Seconds between frames.
        cache: Where embeddings are cached, if anywhere.
    """
    with opened_row(predictor, source, lambda _: interval_s, cache=cache) as row:
        rows_ND = np.concatenate(list(row.chunks()))
    return FrameRows(rows_ND, row.frames.interval_s)
