"""Answer requests about videos, without any HTTP: open the video, and return the answer as plain values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import FewframesError, MissingVideo, Refusal, TooLarge
from fewframes.inference.clips import ClipRequest
from fewframes.inference.explain import explain
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.runtime.protocol import Runtime
from fewframes.sampling import ONE_PASS
from fewframes.serve.batcher import BatchingRuntime
from fewframes.serve.config import EmbedRequest, PredictRequest, ServeConfig, TimelineRequest, VideoRequest
from fewframes.serve.fetch import fetch, is_public, open_below
from fewframes.serve.tasks import NamedFile, RequestTask
from fewframes.viz.thumbnails import data_url, jpeg

PICTURE_PX = 112
"""Side of the frames in an answer, in pixels."""
PROGRESS_FRAMES = 64
"""Frames of a long video between two reports of progress."""
Progress = Callable[[int, int], None]
"""A function called with the frames that are embedded, and the frames in all."""


class VideoAnswerer:
    """A model that answers requests about videos. It embeds frames with `runtime`, which many threads share."""

    def __init__(self, predictor: Predictor, runtime: BatchingRuntime, config: ServeConfig) -> None:
        self._predictor, self._runtime, self._config = predictor, runtime, config

    def answer(
        self, request: VideoRequest, upload: IO[bytes] | None, name: str, task: RequestTask, progress: Progress
    ) -> dict[str, object]:
        """Return the answer to a request as plain values. `Service.submit` explains the arguments. Raises FewframesError."""
        task.check()
        if upload is not None:
            return self._about(request, NamedFile(upload, name, task), task, progress)
        with closing(self._open(request, task)) as file:
            return self._about(request, NamedFile(file, request.path or request.url or "", task), task, progress)

    def _open(self, request: VideoRequest, task: RequestTask) -> IO[bytes]:
        """Open the video that a request names by path or URL. Raises Refusal and MissingVideo."""
        if request.path is not None:
            return open_below(self._config.root, request.path, self._config.max_bytes)
        assert request.url is not None
        if self._config.urls == "none":
            raise Refusal(403, f"{request.url}: this server fetches nothing; upload the video")
        allows = is_public if self._config.urls == "public" else lambda address: True
        return fetch(request.url, self._config.max_bytes, allows=allows, check=task.check)

    def _about(self, request: VideoRequest, file: Any, task: RequestTask, progress: Progress) -> dict[str, object]:
        """Return the answer about an open video as plain values."""
        if isinstance(request, TimelineRequest):
            return self._timeline(request, file, task, progress)
        predictor = self._through(self._runtime)
        if isinstance(request, PredictRequest) and request.explain:
            found = explain(predictor, file, maps="none", start_s=request.start_s, end_s=request.end_s)
            return found.to_dict(request.topk) | (pictures_of(np.asarray(found.frames)) if request.pictures else {})
        part = ClipRequest(ONE_PASS, predictor.num_frames, request.start_s, request.end_s)
        read = predictor.reader.read(file, part, threads=1)  # the workers already keep all cores busy
        prediction = predictor.label(read)
        if isinstance(request, PredictRequest):
            return prediction.to_dict(request.topk) | (
                pictures_of(np.asarray(read.clips[0].frames)) if request.pictures else {}
            )
        assert isinstance(request, EmbedRequest)
        frames = {"frame_embeddings": prediction.frame_embeddings.tolist()} if request.per_frame else {}
        return {
            "source": prediction.source,
            "times_s": [round(time_s, 6) for time_s in prediction.times_s.tolist()],
            "embedding": prediction.embedding.tolist(),
            **frames,
        }

    def _timeline(
        self, request: TimelineRequest, file: Any, task: RequestTask, progress: Progress
    ) -> dict[str, object]:
        """Return the timeline of an open video as plain values."""
        num_done = total = 0

        def on_chunk(_: str, done: int, of: int) -> None:
            nonlocal num_done, total
            num_done, total = max(num_done, done), of
            progress(num_done, total)

        def on_embedded(num_frames: int) -> None:
            nonlocal num_done
            num_done += num_frames
            progress(num_done, total)

        config = TimelineConfig(window_s=request.window_s, threshold=request.threshold)
        predictor = self._through(ReportingRuntime(self._runtime, task, on_embedded))
        found = sweep(predictor, file, config, start_s=request.start_s, end_s=request.end_s, progress=on_chunk)
        return found.to_dict()

    def _through(self, runtime: BatchingRuntime | ReportingRuntime) -> Predictor:
        """Return the predictor with another runtime, and with the limits of this server."""
        return self._predictor.with_runtime(cast(Runtime, runtime), self._config.limits)


class ReportingRuntime:
    """A runtime that embeds few frames at a time, and reports their number. All else is done by the runtime `inner`.

    A timeline itself reports after each of its chunks, which is too seldom for a person who waits, and for ending in time.
    """

    def __init__(self, inner: BatchingRuntime, task: RequestTask, on_embedded: Callable[[int], None]) -> None:
        self.inner, self._task, self._on_embedded = inner, task, on_embedded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings (T, D) of frames (T, C, H, W). Raises Refusal if the request is ended, or its time is over."""
        embeddings = []
        for first in range(0, len(frames_TCHW), PROGRESS_FRAMES):
            self._task.check()
            embeddings.append(self.inner.embed_frames(frames_TCHW[first : first + PROGRESS_FRAMES]))
            self._on_embedded(len(embeddings[-1]))
        return np.concatenate(embeddings)


def pictures_of(frames_TCHW: NDArray[np.uint8]) -> dict[str, object]:
    """Return the field `pictures` of an answer: each frame as a small JPEG in a data URL."""
    return {"pictures": [data_url(jpeg(frame_CHW, PICTURE_PX)) for frame_CHW in frames_TCHW]}


def status_of(error: FewframesError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, Refusal):
        return error.status
    return 404 if isinstance(error, MissingVideo) else 413 if isinstance(error, TooLarge) else 422
