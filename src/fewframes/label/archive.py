"""Hold the frame embeddings of all videos of a labelling session, and the windows over them.

Frames lie as far apart as in a timeline. They are embedded once, video by video, in the background, and come from the cache
afterwards. Windows are named by three numbers, so that all that is learned and chosen works on arrays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewframes.core.cache import EmbeddingCache, content_key
from fewframes.core.process import num_cores, worked_ahead
from fewframes.data.folders import counted_reasons, search
from fewframes.errors import DataError, FewframesError
from fewframes.inference.frame_features import FrameFeatures, encoder_key, features_key
from fewframes.inference.predictor import Predictor
from fewframes.label.values import Segment, Status
from fewframes.models.moments import SOLVED_MOMENTS, moment_features
from fewframes.runtime.protocol import Floats
from fewframes.sampling import centre_times, steady_times
from fewframes.video.source import DEFAULT_FPS, open_video

STRIDES = (1, 2)
"""Frames from one frame of a window to the next, for each length of window, as in a timeline."""
WINDOWS_PER_LENGTH = 4
"""Windows that begin within the length of one."""
MOST_PER_SEGMENT = 8
"""The most windows of one segment that are learned from, spread evenly over it."""
KEPT_BYTES = 512 * 2**20
"""The memory for the moments of windows of the videos that were looked at last."""
MOST_DIGITS = 20
"""The most characters of the numbers in the name of a window."""
MOST_AT_ONCE = 64
"""Windows whose moments are computed together."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """A window of a video: its frames are every `stride`-th one from the frame `first` on."""

    video: str
    stride: int
    first: int

    @property
    def key(self) -> str:
        """Return the name of the window, which `window_of` reads."""
        return f"{self.video}:{self.stride}:{self.first}"


def window_of(key: str) -> Window:
    """Return the window of a name. Raises DataError if it is none."""
    video, _, numbers = key.partition(":")
    stride, _, first = numbers.partition(":")
    if not (stride.isdecimal() and first.isdecimal() and len(numbers) <= MOST_DIGITS):
        raise DataError(f"{key[:60]!r}: not a moment of this session; reload the page")
    return Window(video, int(stride), int(first))


@dataclass
class ArchivedVideo:
    """A video of the archive. Its embeddings are there once its status is `ready`."""

    id: str
    name: str
    path: str
    duration_s: float
    status: Status = "waiting"
    reason: str = ""
    interval_s: float = 0.0
    """The seconds from one frame to the next."""
    embeddings: NDArray[np.float16] | None = None
    """The frame embeddings (N, D)."""

    @property
    def num_frames(self) -> int:
        """Return N, the number of frames that were embedded."""
        return 0 if self.embeddings is None else len(self.embeddings)


class Archive:
    """The videos of a session.

    Args:
        sources: Videos and folders of videos.
        predictor: A model, whose frame encoder embeds.
        cache: Where embeddings are cached; None computes them in each session.
        window_s: The seconds of the shortest windows, about what an action lasts.
        note: Called with notes for users.

    Raises:
        DataError: There are no videos, or none can be opened.
    """

    def __init__(
        self,
        sources: Sequence[str],
        predictor: Predictor,
        cache: EmbeddingCache | None,
        window_s: float,
        note: Callable[[str], None],
    ) -> None:
        self.predictor, self.cache, self.window_s = predictor, cache, window_s
        self.num_frames = predictor.num_frames
        self.videos: dict[str, ArchivedVideo] = {video.id: video for video in _opened(sources, note)}
        self._stop = threading.Event()
        self._kept: OrderedDict[str, list[NDArray[np.float16]]] = OrderedDict()
        self._lock = threading.Lock()

    def embed_all(self, done: Callable[[ArchivedVideo], None]) -> None:
        """Embed the frames of each video, the shortest first, and call `done` after each. `stop` ends it at the next video."""
        encoder = encoder_key(self.predictor) if self.cache is not None else ""
        for video in sorted(self.videos.values(), key=lambda video: video.duration_s):
            if self._stop.is_set():
                return
            if video.status == "waiting":
                video.status = "embedding"
                self._embed(video, encoder)
                done(video)

    def stop(self) -> None:
        """End `embed_all` after the frames that are being embedded."""
        self._stop.set()

    def _embed(self, video: ArchivedVideo, encoder: str) -> None:
        parts: list[Floats] = []
        try:
            with closing(open_video(video.path)) as opened:
                times_s, video.interval_s = self._times(opened.duration_s)
                setting = features_key(self.predictor, video.path, DEFAULT_FPS, encoder, "") if self.cache else ""
                features = FrameFeatures(opened, self.predictor, video.interval_s, self.cache, setting)
                with closing(features.chunks(times_s)) as chunks:
                    for chunk_ND in chunks:
                        parts.append(chunk_ND)
                        if self._stop.is_set():
                            video.status = "waiting"
                            return
        except FewframesError as error:
            video.status, video.reason = "failed", str(error)
            return
        embeddings_ND = np.concatenate(parts)
        if not np.isfinite(embeddings_ND).all(axis=1).any():
            video.status, video.reason = "failed", features.gaps[0].error if features.gaps else "no frame can be used"
            return
        video.embeddings, video.status = embeddings_ND.astype(np.float16), "ready"

    def _times(self, duration_s: float) -> tuple[NDArray[np.float64], float]:
        """Return the timestamps of the frames, and the seconds between two. A short video is one window."""
        interval_s = self.window_s / self.num_frames
        times_s = np.asarray(steady_times(0.0, duration_s, interval_s))
        if len(times_s) >= self.num_frames:
            return times_s, interval_s
        return np.asarray(centre_times(duration_s, self.num_frames)), duration_s / self.num_frames

    def video(self, key: str) -> ArchivedVideo:
        """Return a video by its id. Raises DataError if there is none."""
        if key not in self.videos:
            raise DataError(f"{key[:40]!r}: no video of this session; reload the page")
        return self.videos[key]

    def windows(self, video: ArchivedVideo, stride: int) -> Indices:
        """Return the first frames (W,) of the windows of one length. The last window ends with the video."""
        last = video.num_frames - (self.num_frames - 1) * stride - 1
        if last < 0:
            return np.empty(0, np.int64)
        every = max(1, self.num_frames * stride // WINDOWS_PER_LENGTH)
        return np.unique(np.append(np.arange(0, last + 1, every), last))

    def times_of(self, window: Window) -> tuple[float, float]:
        """Return the start and end of a window in seconds, cut to the video."""
        video = self.video(window.video)
        # A frame stands for the `stride` parts around it.
        start_s = (window.first + 0.5 - window.stride / 2) * video.interval_s
        end_s = start_s + self.num_frames * window.stride * video.interval_s
        return max(0.0, start_s), min(video.duration_s, end_s)

    def embeddings_of(self, video: ArchivedVideo, stride: int, first_W: Indices) -> NDArray[np.float32]:
        """Return the frame embeddings (W, T, D) of windows; NaN where a frame could not be decoded."""
        assert video.embeddings is not None
        return video.embeddings[first_W[:, None] + np.arange(self.num_frames) * stride].astype(np.float32)

    def moments_of(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Return the moments (M, P) of windows of any videos, in their order."""
        parts = [
            self.embeddings_of(self.video(window.video), window.stride, np.array([window.first])) for window in windows
        ]
        return moment_features(np.concatenate(parts), SOLVED_MOMENTS)

    def all_moments(self, video: ArchivedVideo) -> list[NDArray[np.float16]]:
        """Return the moments (W, P) of all windows of a video, for each length. They are kept for the videos looked at last."""
        with self._lock:
            if video.id in self._kept:
                self._kept.move_to_end(video.id)
                return self._kept[video.id]
        found = [np.concatenate([*self.moments_in_pieces(video, stride)]) for stride in STRIDES]
        with self._lock:
            self._kept[video.id] = found
            while (
                len(self._kept) > 1 and sum(part.nbytes for kept in self._kept.values() for part in kept) > KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        return found

    def moments_in_pieces(self, video: ArchivedVideo, stride: int) -> Iterator[NDArray[np.float16]]:
        """Yield the moments (w, P) of the windows of one length, piece by piece, so that a long video fits in memory."""
        first_W = self.windows(video, stride)
        width = 0 if video.embeddings is None else video.embeddings.shape[1]
        if not len(first_W):
            yield np.empty((0, moment_features(np.zeros((1, 1, width)), SOLVED_MOMENTS).shape[1]), np.float16)
        for some_WTD in self.embeddings_in_pieces(video, stride):
            yield moment_features(some_WTD, SOLVED_MOMENTS).astype(np.float16)

    def embeddings_in_pieces(self, video: ArchivedVideo, stride: int) -> Iterator[NDArray[np.float32]]:
        """Yield the frame embeddings (w, T, D) of the windows of one length, piece by piece."""
        first_W = self.windows(video, stride)
        for start in range(0, len(first_W), MOST_AT_ONCE):
            yield self.embeddings_of(video, stride, first_W[start : start + MOST_AT_ONCE])

    def windows_of(self, segment: Segment) -> list[Window]:
        """Return the windows to learn a segment from: one around its centre, or several side by side for a long one.

        They are windows as the timeline has them, so that what is learned is like what is scored. A short action is learned with
        what is around it.
        """
        video = self.videos.get(segment.video)
        if video is None or video.embeddings is None:
            return []
        frames = (segment.end_s - segment.start_s) / video.interval_s
        fits = [stride for stride in STRIDES if self.windows(video, stride).size]
        if not fits:
            return []
        stride = next((stride for stride in fits if frames <= 1.5 * stride * self.num_frames), fits[-1])
        length = (self.num_frames - 1) * stride + 1
        num = min(MOST_PER_SEGMENT, max(1, round(frames / (stride * self.num_frames))))
        centres = segment.start_s / video.interval_s + (np.arange(num) + 0.5) * frames / num
        # A frame stands for `stride` parts around it: a window that begins later lies inside the video with all of them.
        least = min(stride // 2, video.num_frames - length)
        most = max(least, video.num_frames - length - stride // 2)
        first = np.clip(np.round(centres - length / 2), least, most).astype(np.int64)
        return [Window(video.id, stride, start) for start in np.unique(first).tolist()]

    def whole_windows_of(self, segment: Segment) -> list[Window]:
        """Return the windows to learn a segment from whose frames could all be decoded."""
        return [window for window in self.windows_of(segment) if self.is_whole(window)]

    def is_whole(self, window: Window) -> bool:
        """Return True if all frames of a window of an embedded video could be decoded."""
        embeddings_WTD = self.embeddings_of(self.video(window.video), window.stride, np.array([window.first]))
        return bool(np.isfinite(embeddings_WTD).all())


def _paths_of(source: str, note: Callable[[str], None]) -> list[str]:
    """Return the videos below a folder, or the path itself if it is none. Raises DataError for a folder without videos."""
    if not Path(source).is_dir():
        return [source]
    found = search(source)
    left_out = counted_reasons(file for file in found.left_out if not file.is_harmless)
    if not found.videos:
        raise DataError(
            f"{source}: no videos in this folder{f' ({left_out})' if left_out else ''}; name one with videos"
        )
    if left_out:
        note(f"{source}: left out: {left_out}")
    return found.videos


def _opened(sources: Sequence[str], note: Callable[[str], None]) -> list[ArchivedVideo]:
    """Return the videos of these paths and folders, each content once. Raises DataError if none can be opened."""
    paths = [path for source in sources for path in _paths_of(source, note)]
    videos: dict[str, ArchivedVideo] = {}
    with closing(worked_ahead(list(dict.fromkeys(paths)), _open, num_cores())) as opened:
        for path, video in opened:
            if isinstance(video, FewframesError):
                note(str(video))
            elif video.id in videos:
                note(f"{path}: the same file as {videos[video.id].path}; it is shown once")
            else:
                videos[video.id] = video
                if video.status == "failed":
                    note(video.reason)
    if all(video.status == "failed" for video in videos.values()):
        raise DataError(f"{', '.join(sources)}: none of these can be opened; name videos, or folders of them")
    names = [Path(video.path).name for video in videos.values()]
    for video in videos.values():
        if names.count(video.name) > 1:  # files of one name in several folders
            video.name = f"{Path(video.path).parent.name}/{video.name}"
    return sorted(videos.values(), key=lambda video: video.path)


def _open(path: str) -> ArchivedVideo:
    """Open a video to learn its duration. One that cannot be opened has failed. Raises DataError if there is no such file here."""
    try:
        key = content_key(path)
    except OSError as error:
        raise DataError(
            f"{path}: not a file on this machine that can be read ({error.strerror}); check the path"
        ) from None
    video = ArchivedVideo(key[:16], Path(path).name, path, 0.0)
    try:
        with closing(open_video(path, threads=1)) as opened:
            video.duration_s = float(opened.duration_s)
    except FewframesError as error:
        video.status, video.reason = "failed", str(error)
    return video
