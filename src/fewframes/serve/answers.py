"""Answer requests about videos, without any HTTP: open the video, and return the answer as plain values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import IO, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fewframes.errors import ConfigError, FewframesError, MissingVideo, Refusal, TooLarge
from fewframes.inference.clips import ClipRequest
from fewframes.inference.counting.count import count_repetitions
from fewframes.inference.explain import explain
from fewframes.inference.heads import Heads
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.results import Prediction
from fewframes.runtime.protocol import Runtime
from fewframes.sampling import ONE_PASS
from fewframes.serve.batcher import BatchingRuntime
from fewframes.serve.config import (
    CountRequest,
    EmbedRequest,
    PredictRequest,
    ServeConfig,
    TimelineRequest,
    VideoRequest,
)
from fewframes.serve.fetch import fetch, is_public, open_below
from fewframes.serve.tasks import NamedFile, RequestTask
from fewframes.viz.thumbnails import data_url, jpeg

PICTURE_PX = 112
"""Side of the frames in an answer, in pixels."""
PROGRESS_FRAMES = 64
"""Frames of a long video between two reports of progress."""
T = TypeVar("T")
Progress = Callable[[int, int], None]
"""A function called with the frames that are embedded, and the frames in all."""


class VideoAnswerer:
    """A model, or several, that answer requests about videos. Frames are embedded with `runtime`, which many threads share."""

    def __init__(self, models: Predictor | Heads, runtime: BatchingRuntime, config: ServeConfig) -> None:
        self._models, self._runtime, self._config = models, runtime, config

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
        """Return the answer about an open video as plain values: that of one model, or the `answers` of several."""
        name = request.model
        models = self._models if name is None or isinstance(self._models, Predictor) else self._models[name]
        if name is not None and isinstance(self._models, Predictor) and name != self._models.name:
            raise ConfigError(f"no model {name!r}; this server has {self._models.name!r}")
        if isinstance(request, TimelineRequest):
            return self._timeline(models, request, file, task, progress)
        if isinstance(request, CountRequest):
            return self._count(models, request, file, task, progress)
        predictors = self._through(models, self._runtime)
        if isinstance(request, PredictRequest) and request.explain:
            if not isinstance(predictors, Predictor):
                raise ConfigError(f"explain is of one model; name it: model is one of {', '.join(predictors.names)}")
            found = explain(predictors, file, maps="none", start_s=request.start_s, end_s=request.end_s)
            return found.to_dict(request.topk) | (pictures_of(np.asarray(found.frames)) if request.pictures else {})
        part = ClipRequest(ONE_PASS, predictors.num_frames, request.start_s, request.end_s)
        read = predictors.reader.read(file, part, threads=1)  # the workers already keep all cores busy
        labelled = predictors.label(read)
        if isinstance(request, PredictRequest):
            pictures = pictures_of(np.asarray(read.clips[0].frames)) if request.pictures else {}
            return together([found.to_dict(request.topk) for found in several(labelled)]) | pictures
        assert isinstance(request, EmbedRequest)
        return together([_embedding(found, per_frame=request.per_frame) for found in several(labelled)])

    def _timeline(
        self,
        models: Predictor | Heads,
        request: TimelineRequest,
        file: Any,
        task: RequestTask,
        progress: Progress,
    ) -> dict[str, object]:
        """Return the timeline of an open video as plain values: that of one model, or the `answers` of several."""
        frames = FrameProgress(progress)
        config = TimelineConfig(window_s=request.window_s, threshold=request.threshold)
        through = self._through(models, ReportingRuntime(self._runtime, task, frames.on_embedded))
        way = partial(sweep, through) if isinstance(through, Predictor) else through.timeline
        found = way(file, config, start_s=request.start_s, end_s=request.end_s, progress=frames.on_chunk)
        return together([timeline.to_dict() for timeline in several(found)])

    def _count(
        self, models: Predictor | Heads, request: CountRequest, file: Any, task: RequestTask, progress: Progress
    ) -> dict[str, object]:
        """Return the repetitions in an open video as plain values. Raises ConfigError for several models."""
        if not isinstance(models, Predictor):
            raise ConfigError(f"count is of one model; name it: model is one of {', '.join(models.names)}")
        frames = FrameProgress(progress)
        predictor = self._through(models, ReportingRuntime(self._runtime, task, frames.on_embedded))
        assert isinstance(predictor, Predictor)
        found = count_repetitions(
            predictor, file, start_s=request.start_s, end_s=request.end_s, progress=frames.on_chunk
        )
        return found.to_dict()

    def _through(self, models: Predictor | Heads, runtime: BatchingRuntime | ReportingRuntime) -> Predictor | Heads:
        """Return the models with a runtime that embeds frames, and with the limits of this server."""
        if isinstance(models, Predictor) and models is not self._models:
            return models.with_runtime(cast(Runtime, OwnHead(runtime, models.runtime)), self._config.limits)
        return models.with_runtime(cast(Runtime, runtime), self._config.limits)


class OwnHead:
    """A runtime of one of several models: `embedding` embeds frames, for all of them, and `own` does all else."""

    def __init__(self, embedding: BatchingRuntime | ReportingRuntime, own: Runtime) -> None:
        self.embed_frames, self.encode_clips = embedding.embed_frames, embedding.encode_clips
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


class FrameProgress:
    """The frames of a long video that are embedded, from two counts: that of its chunks, and that of its frames."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done, self._total = progress, 0, 0

    def on_chunk(self, _: str, done: int, total: int) -> None:
        """Take the number of frames of the chunks that are done, and of all."""
        self._done, self._total = max(self._done, done), total
        self._progress(self._done, self._total)

    def on_embedded(self, num_frames: int) -> None:
        """Take the number of frames that were embedded just now."""
        self._done += num_frames
        self._progress(self._done, self._total)


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


def several(found: T | tuple[T, ...]) -> tuple[T, ...]:
    """Return the results of several models, or a single one as such."""
    return found if isinstance(found, tuple) else (found,)


def together(answers: list[dict[str, object]]) -> dict[str, object]:
    """Return the answer of one model as it is, and those of several under `answers`."""
    return answers[0] if len(answers) == 1 else {"answers": answers}


def _embedding(prediction: Prediction, *, per_frame: bool) -> dict[str, object]:
    """Return the video embedding of a prediction as plain values."""
    return {
        "source": prediction.source,
        **({"model": prediction.model} if prediction.model else {}),
        "times_s": [round(time_s, 6) for time_s in prediction.times_s.tolist()],
        "embedding": prediction.embedding.tolist(),
        **({"frame_embeddings": prediction.frame_embeddings.tolist()} if per_frame else {}),
    }


def pictures_of(frames_TCHW: NDArray[np.uint8]) -> dict[str, object]:
    """Return the field `pictures` of an answer: each frame as a small JPEG in a data URL."""
    return {"pictures": [data_url(jpeg(frame_CHW, PICTURE_PX)) for frame_CHW in frames_TCHW]}


def status_of(error: FewframesError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, Refusal):
        return error.status
    return 404 if isinstance(error, MissingVideo) else 413 if isinstance(error, TooLarge) else 422
