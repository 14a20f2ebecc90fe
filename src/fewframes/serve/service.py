"""Answer requests about videos, without any HTTP: let them in, open the video, and return the answer as plain values."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import torch
from numpy.typing import ArrayLike
from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from fewframes.core.settings import STRICT, Count, Positive
from fewframes.errors import FewframesError, MissingVideo, Refusal, TooLarge
from fewframes.inference.clips import ClipRequest
from fewframes.inference.explain import explain
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.sampling import ONE_PASS
from fewframes.serve.batcher import Batcher
from fewframes.serve.fetch import fetch, is_public, too_large
from fewframes.video.decode.container import Limits
from fewframes.viz.thumbnails import data_url, jpeg

PICTURE_PX = 112
"""Side of the frames in an answer, in pixels."""
MOST_COMING = 64
"""The most requests whose bodies are still coming. They take no slot, but memory and a connection each."""
PROGRESS_FRAMES = 64
"""Frames of a long video between two reports of progress."""
CLIENT_GONE = 499
"""The status in the metrics of a request whose client went away."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Urls = Literal["none", "public", "any"]
Progress = Callable[[int, int], None]
"""A function called with the frames that are embedded, and the frames in all."""


@settings(frozen=True, kw_only=True, config=STRICT)
class ServeConfig:
    """The settings of a server: its limits, and the requests that it takes."""

    max_mb: Positive = 256.0
    """The largest video, in millions of bytes."""
    max_seconds: Positive = 900.0
    """The longest video, in seconds."""
    max_megapixels: Positive = 9.0
    """The largest frame, in millions of pixels; 4K has 8.3."""
    timeout_s: Positive = 120.0
    """Seconds for a request, with its upload and its time in the queue."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Videos that are decoded at the same time. 0 is two per core: one is decoded while another's frames are embedded."""
    max_waiting: Annotated[int, Field(ge=0)] = 16
    """Requests that may wait for a worker; more are refused."""
    root: str | None = None
    """Folder whose videos requests may name by path; None allows no paths."""
    urls: Urls = "none"
    """URLs that requests may name: `none`, `public` ones, or `any`, which includes this network."""
    token: str = ""
    """The secret that requests must send; empty for none."""
    names: tuple[str, ...] = ()
    """Host names under which the server may be asked, without ports; none allows any."""

    @property
    def num_workers(self) -> int:
        """Return the number of threads that work."""
        return self.workers or 2 * (os.cpu_count() or 1)

    @property
    def max_bytes(self) -> int:
        """Return the size of the largest video, in bytes."""
        return int(self.max_mb * 1e6)

    @property
    def limits(self) -> Limits:
        """Return the limits of the decoder."""
        return Limits(int(self.max_megapixels * 1e6), self.max_seconds)


@settings(frozen=True, kw_only=True, config=STRICT)
class VideoRequest:
    """A request about one video, or the part of it between two times."""

    url: str | None = None
    """Address of the video, if it is not uploaded."""
    path: str | None = None
    """Path of the video below the server's folder, if it is not uploaded."""
    start_s: Seconds = 0.0
    """Start of the part, in seconds."""
    end_s: Seconds | None = None
    """End of the part, in seconds; None is the end of the video."""


@settings(frozen=True, kw_only=True, config=STRICT)
class PredictRequest(VideoRequest):
    """A request for the likeliest actions in a video."""

    topk: Count = 5
    """Number of actions to name."""
    explain: bool = False
    """Add how much the score falls when each frame is left out."""
    pictures: bool = False
    """Add the frames that the model saw, as small JPEGs."""


@settings(frozen=True, kw_only=True, config=STRICT)
class TimelineRequest(VideoRequest):
    """A request for the actions in a long video and their times."""

    window_s: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] = 4.0
    """Seconds of the shortest windows, about what an action lasts."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Confidence that a span needs."""
    progress: bool = False
    """Answer in lines of JSON: reports of progress, and the result last."""


@settings(frozen=True, kw_only=True, config=STRICT)
class EmbedRequest(VideoRequest):
    """A request for the embedding y of a video (Eq. 12)."""

    per_frame: bool = False
    """Add the embedding of each frame."""


@dataclass(eq=False)
class RequestTask:
    """A request inside the service: its time, its slot, and whether its client still waits."""

    timeout_s: float
    began: float = field(default_factory=time.monotonic)
    has_slot: bool = False
    """True once the whole body has come: the request then counts among those that are worked on or wait."""
    cut: Refusal | None = None
    """The reason for which it ends before its time is over; None if it does not."""
    on_end: Callable[[], object] = lambda: None
    """Called, from any thread, when it is ended before its time."""

    @property
    def left_s(self) -> float:
        """Return the seconds that the request still has."""
        return 0.0 if self.cut else max(0.0, self.began + self.timeout_s - time.monotonic())

    def end(self, why: Refusal) -> None:
        """End the request as soon as possible, for this reason unless there was one before."""
        self.cut = self.cut or why
        self.on_end()

    def refusal(self) -> Refusal:
        """Return the refusal for a request that was ended, or whose time is over (408)."""
        return self.cut or Refusal(
            408,
            f"not done after {self.timeout_s:g} s, the limit of this server; send a shorter video, or try again later",
        )

    def check(self) -> None:
        """Raise Refusal if the request was ended, or its time is over."""
        if not self.left_s:
            raise self.refusal()


class NamedFile:
    """An open file under the name that its sender gave it.

    Once its task is over it reads as ended, so that a decoder stops, and `failure` has the reason (`core.storage.unbroken`).
    """

    def __init__(self, file: IO[bytes], name: str, task: RequestTask) -> None:
        self.name, self._file, self._task = name, file, task
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) if self._task.left_s else b""

    @property
    def failure(self) -> Refusal | None:
        """Return the reason for which the file ended early; None if it did not."""
        return None if self._task.left_s else self._task.refusal()


class Service:
    """A model, the threads that work on requests, and the requests that are inside."""

    def __init__(
        self, predictor: Predictor, config: ServeConfig, on_round: Callable[[int], None] = lambda num_frames: None
    ) -> None:
        """Start a service. `on_round` is called with the number of frames of each round of the batcher."""
        self.config, self.name, self.labels = config, predictor.name, predictor.labels
        self.is_stopping = False
        self.num_cut = 0
        """Requests that had no answer yet when the service was closed."""
        self._batcher = Batcher(predictor.embed_frames, on_round)
        self._predictor = predictor
        self._pool = ThreadPoolExecutor(config.num_workers, thread_name_prefix="fewframes-serve")
        self._lock = threading.Lock()
        self._inside: set[RequestTask] = set()
        self._usual_s = 1.0
        """A moving average of the seconds that a request is inside, for `Retry-After`."""

    @property
    def num_inside(self) -> int:
        """Return the number of requests that are answered, wait, or are still coming."""
        return len(self._inside)

    @property
    def num_owed(self) -> int:
        """Return the number of requests that still need an answer.

        This may be less than `num_inside`: threads work on for requests whose time is over or whose client is gone.
        """
        with self._lock:
            return sum(task.left_s > 0 for task in self._inside)

    @property
    def num_waiting(self) -> int:
        """Return the number of requests that wait for a worker."""
        with self._lock:
            return max(0, self._num_slots_taken() - self.config.num_workers)

    def enter(self) -> RequestTask:
        """Let a request in, until `leave`. It takes a slot by `take_slot` when its whole body has come.

        Raises Refusal: 503 while the server stops, 429 if all slots are taken or too many requests are still coming.
        """
        with self._lock:
            if self.is_stopping:
                raise stopping()
            self._check_slots()
            num_coming = len(self._inside) - self._num_slots_taken()
            if num_coming >= MOST_COMING:
                raise Refusal(
                    429, f"{num_coming} requests are still coming, the limit of this server; try again", retry_s=5
                )
            task = RequestTask(self.config.timeout_s)
            self._inside.add(task)
        return task

    def take_slot(self, task: RequestTask) -> None:
        """Count a request among those that are worked on or wait. Raises Refusal (429) if all slots are taken."""
        with self._lock:
            self._check_slots()
            task.has_slot = True

    def _num_slots_taken(self) -> int:
        return sum(task.has_slot for task in self._inside)

    def _check_slots(self) -> None:
        """Raise Refusal (429) if all slots are taken."""
        num_taken = self._num_slots_taken()
        if num_taken >= self.config.num_workers + self.config.max_waiting:
            waits = f"{num_taken} requests are inside, {self.config.max_waiting} of them waiting"
            retry_s = math.ceil(self._usual_s)
            raise Refusal(429, f"{waits}, the limit of this server; try again in {retry_s} s", retry_s=retry_s)

    def leave(self, task: RequestTask) -> None:
        """Let a request out, and free its slot."""
        with self._lock:
            self._inside.remove(task)
            self._usual_s += 0.1 * (time.monotonic() - task.began - self._usual_s)

    def submit(
        self,
        request: VideoRequest,
        upload: IO[bytes] | None,
        name: str,
        task: RequestTask,
        progress: Progress = lambda done, total: None,
    ) -> Future[dict[str, object]]:
        """Start the work on a request, and return its future answer as plain values.

        The future may hold a FewframesError instead. Raises Refusal if the request was ended, or its time is over.

        Args:
            request: What is asked.
            upload: The uploaded video; None for one by path or URL.
            name: Name of the uploaded file.
            task: The task that `enter` returned.
            progress: Called from the working thread while a long video is embedded.
        """
        with self._lock:
            task.check()  # `close` ends all tasks before it shuts the pool, so the pool is open here
            return self._pool.submit(self._work, request, upload, name, task, progress)

    def _work(
        self, request: VideoRequest, upload: IO[bytes] | None, name: str, task: RequestTask, progress: Progress
    ) -> dict[str, object]:
        """Answer a request, in a thread of the pool."""
        task.check()
        if upload is not None:
            return self._answer(request, NamedFile(upload, name, task), task, progress)
        with closing(self._open(request, task)) as file:
            return self._answer(request, NamedFile(file, request.path or request.url or "", task), task, progress)

    def _open(self, request: VideoRequest, task: RequestTask) -> IO[bytes]:
        """Open the video that a request names by path or URL. Raises Refusal and MissingVideo."""
        if request.path is not None:
            return open_below(self.config.root, request.path, self.config.max_bytes)
        assert request.url is not None
        if self.config.urls == "none":
            raise Refusal(403, f"{request.url}: this server fetches nothing; upload the video")
        allows = is_public if self.config.urls == "public" else lambda address: True
        return fetch(request.url, self.config.max_bytes, allows=allows, check=task.check)

    def _answer(self, request: VideoRequest, file: Any, task: RequestTask, progress: Progress) -> dict[str, object]:
        """Return the answer about an open video as plain values."""
        if isinstance(request, TimelineRequest):
            return self._timeline(request, file, task, progress)
        predictor = self._predictor.through(self._batcher.embed, self.config.limits)
        if isinstance(request, PredictRequest) and request.explain:
            found = explain(predictor, file, maps="none", start_s=request.start_s, end_s=request.end_s)
            return found.to_dict(request.topk) | (pictures_of(found.frames) if request.pictures else {})
        part = ClipRequest(ONE_PASS, predictor.config.num_frames, request.start_s, request.end_s)
        read = predictor.reader.read(file, part, threads=1)  # the workers already keep all cores busy
        prediction = predictor.label(read)
        if isinstance(request, PredictRequest):
            return prediction.to_dict(request.topk) | (pictures_of(read.clips[0].frames) if request.pictures else {})
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

        # `sweep` reports after each of its chunks, which is too seldom for a person who waits, and for ending in time.
        def embed(frames_TCHW: Tensor) -> Tensor:
            nonlocal num_done
            embeddings = []
            for part_TCHW in frames_TCHW.split(PROGRESS_FRAMES):
                task.check()
                embeddings.append(self._batcher.embed(part_TCHW))
                num_done += len(part_TCHW)
                progress(num_done, total)
            return torch.cat(embeddings)

        config = TimelineConfig(window_s=request.window_s, threshold=request.threshold)
        predictor = self._predictor.through(embed, self.config.limits)
        found = sweep(predictor, file, config, start_s=request.start_s, end_s=request.end_s, progress=on_chunk)
        return found.to_dict()

    def close(self) -> None:
        """End all requests as soon as possible, with 503 as their answer. Waits for nothing."""
        with self._lock:
            self.is_stopping = True
            for task in self._inside:
                is_owed = task.left_s > 0
                self.num_cut += is_owed
                task.end(stopping() if is_owed else task.refusal())
            self._pool.shutdown(wait=False)
            self._batcher.close()


def gone() -> Refusal:
    """Return the refusal that is counted for a request whose client went away."""
    return Refusal(CLIENT_GONE, "the client went away")


def stopping() -> Refusal:
    """Return the refusal (503) of a server that stops."""
    return Refusal(503, "this server is stopping; try again in a moment", retry_s=5)


def open_below(root: str | None, name: str, max_bytes: int) -> IO[bytes]:
    """Open the file of this name in the folder `root`.

    Raises:
        Refusal: 403 for a file outside the folder, whether by `..`, an absolute path or a link, and if there is no folder; 404
            for a file that cannot be opened; 413 above `max_bytes`.
        MissingVideo: There is no such file.
    """
    if root is None:
        raise Refusal(403, f"{name}: this server reads no files of its own; upload the video")
    try:
        folder = Path(root).resolve()
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null character, or a link to itself
        raise Refusal(403, f"{name!r}: not a path ({error})") from None
    if not path.is_relative_to(folder):
        raise Refusal(403, f"{name}: outside of the folder that this server reads from; name a file in it")
    try:
        if not path.is_file():
            raise MissingVideo(f"{name}: no such file; check the path")
        file = path.open("rb")
    except OSError as error:  # a name that is too long, or no permission
        status = 403 if isinstance(error, PermissionError) else 404
        raise Refusal(status, f"{name}: cannot be read ({error.strerror})") from None
    if os.fstat(file.fileno()).st_size > max_bytes:
        file.close()
        raise too_large(name, max_bytes)
    return file


def pictures_of(frames_TCHW: Iterable[ArrayLike]) -> dict[str, object]:
    """Return the field `pictures` of an answer: each frame as a small JPEG in a data URL."""
    return {"pictures": [data_url(jpeg(frame_CHW, PICTURE_PX)) for frame_CHW in frames_TCHW]}


def status_of(error: FewframesError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, Refusal):
        return error.status
    return 404 if isinstance(error, MissingVideo) else 413 if isinstance(error, TooLarge) else 422
