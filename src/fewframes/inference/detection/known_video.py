"""Open a video only if a frame of it must be decoded. If all its embeddings are cached, no byte of it is read.

The cache records the content key and the length of a file together with its state: size, times and inode. While the state stays,
the file need not be read again to know which embeddings are its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from numpy.typing import ArrayLike

from fewframes.core.cache import SHOWN, EmbeddingCache, FileState, KnownFile, content_key, key_of
from fewframes.core.storage import as_path, is_address
from fewframes.core.version import __version__
from fewframes.inference.clips import ClipReader
from fewframes.results import Clip, ClockStep, Work
from fewframes.video.decode.container import NO_LIMITS
from fewframes.video.pictures.arrays import Prepare
from fewframes.video.source import OpenVideo, Source


class UnopenedVideo:
    """A video of known length that is opened when a frame of it is asked for; it implements `OpenVideo`."""

    def __init__(self, name: str, duration_s: float, open_video: Callable[[], OpenVideo]) -> None:
        """Describe a video.

        Args:
            name: The name of the video in messages.
            duration_s: Its length in seconds.
            open_video: A function that opens it, or raises VideoError.
        """
        self.name, self.duration_s = name, duration_s
        self._open_video = open_video
        self._video: OpenVideo | None = None

    def _opened(self) -> OpenVideo:
        self._video = self._video or self._open_video()
        return self._video

    def frames_at(self, times_s: ArrayLike, prepare: Prepare | None = None, tolerance_s: float = 0.0) -> Clip:
        return self._opened().frames_at(times_s, prepare, tolerance_s)

    def span_s(self, times_s: ArrayLike) -> float:
        return self._opened().span_s(times_s)

    def work(self, times_s: ArrayLike, tolerance_s: float = 0.0) -> Work:
        return self._opened().work(times_s, tolerance_s)

    def steps(self) -> tuple[ClockStep, ...]:
        return self._opened().steps()

    def check(self, start_s: float, end_s: float) -> None:
        self._opened().check(start_s, end_s)

    def close(self) -> None:
        if self._video is not None:
            self._video.close()


def open_known(
    reader: ClipReader, source: Source, fps: float, cache: EmbeddingCache | None, content: str = ""
) -> tuple[OpenVideo, str]:
    """Open a video, at once or when a frame of it is asked for, and return it with the key of its content.

    The key is empty where it is not known without reading more than one file. Raises VideoError.

    Args:
        reader: The reader of videos.
        source: The video.
        fps: Frame rate of inputs that have none of their own.
        cache: Where embeddings are cached, if anywhere.
        content: The key of the content, if it is known.
    """
    path = as_path(os.fspath(source)) if isinstance(source, str | os.PathLike) else ""
    if (
        cache is None
        or content
        or not path
        or is_address(path)
        or not os.path.isfile(path)
        or reader.limits != NO_LIMITS
    ):
        return reader.open_video(source, fps=fps), content
    record = key_of(
        os.path.realpath(path), SHOWN.decode(), {"version": __version__, "reader": reader.backend, "fps": fps}
    )
    state = FileState.of(path) if os.access(path, os.R_OK) else None
    known = None if state is None else cache.recall(record, state)
    if known is not None:
        return UnopenedVideo(path, known.duration_s, lambda: reader.open_video(source, fps=fps)), known.content
    video = reader.open_video(source, fps=fps)
    with suppress(OSError):  # it is gone again: its embeddings are then not cached
        content = content_key(path)
        if state is not None and FileState.of(path) == state:  # else it was written to while it was read
            cache.remember(record, state, KnownFile(content, video.duration_s))
    return video, content
