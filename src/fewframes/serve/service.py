"""What a server does with a video, without a word of HTTP: who may come in, which file it is, and the answer as plain values."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from fewframes.core.settings import STRICT, Count, Positive
from fewframes.errors import FewframesError, MissingVideo, Refusal, TooLarge
from fewframes.inference.clips import ClipRequest
from fewframes.inference.explain import explain
from fewframes.inference.predictor import Predictor
from fewframes.inference.timeline import TimelineConfig, sweep
from fewframes.serve.batcher import Batcher
from fewframes.serve.fetch import fetch, is_public, too_large
from fewframes.video.decode.container import Limits
from fewframes.video.sampling import ONE_PASS
from fewframes.viz.thumbnails import data_url, jpeg

PICTURE_PX = 112
"""Side of the frames that are sent back for people to see."""
MOST_COMING = 64
"""Requests whose bodies are still coming, at most: they take no place, but memory and a connection each."""
TOLD_FRAMES = 64
"""Frames of a long video after which it is told how far it is."""
CLIENT_GONE = 499
"""Its status in the counts; nobody sees it."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Urls = Literal["none", "public", "any"]
Told = Callable[[int, int], None]
"""Told how many frames are embedded, of how many."""


@settings(frozen=True, kw_only=True, config=STRICT)
class ServeConfig:
    """What a server takes."""

    max_mb: Positive = 256.0
    """Millions of bytes of a video."""
    max_seconds: Positive = 900.0
    """Seconds of a video."""
    max_megapixels: Positive = 9.0
    """Millions of pixels of a frame; 4K has 8.3."""
    timeout_s: Positive = 120.0
    """Seconds for a request, its upload and its waiting too."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Videos that are decoded at a time; 0: two a core, so that one is decoded while another's frames are embedded."""
    max_waiting: Annotated[int, Field(ge=0)] = 16
    """Requests that may wait for a worker; more are refused."""
    root: str | None = None
    """Folder of the videos that requests may name by path."""
    urls: Urls = "none"
    """Addresses that requests may name: `public` ones, or `any`, those of this network too."""
    token: str = ""
    """What a request must show; empty: nothing."""
    names: tuple[str, ...] = ()
    """Hosts as which it may be asked, without ports; none: any."""

    @property
    def num_workers(self) -> int:
        """How many threads work."""
        return self.workers or 2 * (os.cpu_count() or 1)

    @property
    def max_bytes(self) -> int:
        """Bytes of a video."""
        return int(self.max_mb * 1e6)

    @property
    def limits(self) -> Limits:
        """What is decoded at most."""
        return Limits(int(self.max_megapixels * 1e6), self.max_seconds)


@settings(frozen=True, kw_only=True, config=STRICT)
class VideoRequest:
    """A question about one video: the one uploaded, or one by `url` or `path`; the whole of it, or the part between two seconds."""

    url: str | None = None
    path: str | None = None
    start_s: Seconds = 0.0
    end_s: Seconds | None = None


@settings(frozen=True, kw_only=True, config=STRICT)
class PredictRequest(VideoRequest):
    """What is done in it."""

    topk: Count = 5
    """Actions to name."""
    explain: bool = False
    """Also what the score loses when a frame is left out."""
    pictures: bool = False
    """Also the frames that the model saw, as small JPEGs."""


@settings(frozen=True, kw_only=True, config=STRICT)
class TimelineRequest(VideoRequest):
    """What happens when in it."""

    window_s: Annotated[float, Field(ge=0.5, allow_inf_nan=False)] = 4.0
    """Seconds of the shortest windows."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Confidence from which something is said to happen."""
    progress: bool = False
    """Answer in lines of JSON: how far it is, again and again, and the result last."""


@settings(frozen=True, kw_only=True, config=STRICT)
class EmbedRequest(VideoRequest):
    """Its embedding y (Eq. 12)."""

    per_frame: bool = False
    """Also an embedding for each frame."""


@dataclass(eq=False)
class RequestTask:
    """One request's place and time, and whether anybody still waits for it."""

    timeout_s: float
    began: float = field(default_factory=time.monotonic)
    has_place: bool = False
    """Whether it counts among those that are worked on or wait: once all of it has come."""
    cut: Refusal | None = None
    """Why it ends before its time."""
    woken: Callable[[], object] = lambda: None
    """What is called, from any thread, when it is cut."""

    @property
    def left_s(self) -> float:
        """Seconds that it still has."""
        return 0.0 if self.cut else max(0.0, self.began + self.timeout_s - time.monotonic())

    def end(self, why: Refusal) -> None:
        """Have it end as soon as it can."""
        self.cut = self.cut or why
        self.woken()

    def refusal(self) -> Refusal:
        """What to say when the time is over."""
        return self.cut or Refusal(
            408, f"not done after {self.timeout_s:g} s, the limit here; send a shorter video, or ask again later"
        )

    def check(self) -> None:
        """Refusal when the time is over."""
        if not self.left_s:
            raise self.refusal()


class NamedFile:
    """An open file under the name that its sender gave it, which ends early when its task is over (`stores.unbroken`)."""

    def __init__(self, file: IO[bytes], name: str, task: RequestTask) -> None:
        self.name, self._file, self._task = name, file, task
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) if self._task.left_s else b""

    @property
    def failure(self) -> Refusal | None:
        """Why it ended early."""
        return None if self._task.left_s else self._task.refusal()


class Service:
    """A model, the threads that work for it, and how many requests are inside."""

    def __init__(
        self, predictor: Predictor, config: ServeConfig, told: Callable[[int], None] = lambda num_frames: None
    ) -> None:
        """`told` hears how many frames each round of the batcher had."""
        self.config, self.name, self.labels = config, predictor.name, predictor.labels
        self.is_stopping = False
        self.num_cut = 0
        """Requests that were still owed an answer when it was closed."""
        self._batcher = Batcher(predictor.embed_frames, told)
        self._predictor = predictor
        self._pool = ThreadPoolExecutor(config.num_workers, thread_name_prefix="fewframes-serve")
        self._lock = threading.Lock()
        self._inside: set[RequestTask] = set()
        self._usual_s = 1.0
        """How long a request has been inside lately."""

    @property
    def num_inside(self) -> int:
        """Requests being answered, waiting or still coming."""
        return len(self._inside)

    @property
    def num_owed(self) -> int:
        """Requests that are still to be answered; a thread may work on for one whose time is over or whose client is gone."""
        with self._lock:
            return sum(task.left_s > 0 for task in self._inside)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a worker."""
        with self._lock:
            return max(0, self._num_placed() - self.config.num_workers)

    def enter(self) -> RequestTask:
        """Let a request in, until `leave`; it takes a place by `take_place`, when all of it has come.

        Raises Refusal (503) when stopping, (429) when all places are taken or too many requests are still coming.
        """
        with self._lock:
            if self.is_stopping:
                raise stopping()
            self._check_places()
            num_coming = len(self._inside) - self._num_placed()
            if num_coming >= MOST_COMING:
                raise Refusal(429, f"{num_coming} requests are still coming, as many as may; ask again", retry_s=5)
            task = RequestTask(self.config.timeout_s)
            self._inside.add(task)
        return task

    def take_place(self, task: RequestTask) -> None:
        """Count a request among those that are worked on or wait. Raises Refusal (429) when all places are taken."""
        with self._lock:
            self._check_places()
            task.has_place = True

    def _num_placed(self) -> int:
        return sum(task.has_place for task in self._inside)

    def _check_places(self) -> None:
        num_taken = self._num_placed()
        if num_taken >= self.config.num_workers + self.config.max_waiting:
            waits = f"{num_taken} requests are inside, {self.config.max_waiting} of them waiting"
            retry_s = math.ceil(self._usual_s)
            raise Refusal(429, f"{waits}, as many as may; ask again in {retry_s} s", retry_s=retry_s)

    def leave(self, task: RequestTask) -> None:
        """Give the place back."""
        with self._lock:
            self._inside.remove(task)
            self._usual_s += 0.1 * (time.monotonic() - task.began - self._usual_s)

    def submit(
        self,
        ask: VideoRequest,
        upload: IO[bytes] | None,
        name: str,
        task: RequestTask,
        told: Told = lambda done, total: None,
    ) -> Future[dict[str, object]]:
        """The answer in the future, as plain values, or the FewframesError that stands for it. Refusal (503) when closed."""
        with self._lock:
            task.check()  # those inside when it is closed are cut, so the pool below is open
            return self._pool.submit(self._work, ask, upload, name, task, told)

    def _work(
        self, ask: VideoRequest, upload: IO[bytes] | None, name: str, task: RequestTask, told: Told
    ) -> dict[str, object]:
        task.check()
        if upload is not None:
            return self._answer(ask, NamedFile(upload, name, task), task, told)
        with closing(self._open(ask, task)) as file:
            return self._answer(ask, NamedFile(file, ask.path or ask.url or "", task), task, told)

    def _open(self, ask: VideoRequest, task: RequestTask) -> IO[bytes]:
        """The file that is meant. Raises Refusal and MissingVideo."""
        if ask.path is not None:
            return open_below(self.config.root, ask.path, self.config.max_bytes)
        assert ask.url is not None
        if self.config.urls == "none":
            raise Refusal(403, f"{ask.url}: this server fetches nothing; upload the video")
        allows = is_public if self.config.urls == "public" else lambda address: True
        return fetch(ask.url, self.config.max_bytes, allows=allows, check=task.check)

    def _answer(self, ask: VideoRequest, file: Any, task: RequestTask, told: Told) -> dict[str, object]:
        if isinstance(ask, TimelineRequest):
            return self._timeline(ask, file, task, told)
        predictor = self._predictor.through(self._batcher.embed, self.config.limits)
        if isinstance(ask, PredictRequest) and ask.explain:
            found = explain(predictor, file, maps="none", start_s=ask.start_s, end_s=ask.end_s)
            return found.to_dict(ask.topk) | (pictures_of(found.frames) if ask.pictures else {})
        part = ClipRequest(ONE_PASS, predictor.config.num_frames, ask.start_s, ask.end_s)
        read = predictor.reader.read(file, part, threads=1)
        prediction = predictor.label(read)
        if isinstance(ask, PredictRequest):
            return prediction.to_dict(ask.topk) | (pictures_of(read.clips[0].frames) if ask.pictures else {})
        assert isinstance(ask, EmbedRequest)
        frames = {"frame_embeddings": prediction.frame_embeddings.tolist()} if ask.per_frame else {}
        return {
            "source": prediction.source,
            "times_s": [round(time_s, 6) for time_s in prediction.times_s.tolist()],
            "embedding": prediction.embedding.tolist(),
            **frames,
        }

    def _timeline(self, ask: TimelineRequest, file: Any, task: RequestTask, told: Told) -> dict[str, object]:
        num_done = total = 0

        def swept(_: str, done: int, of: int) -> None:
            nonlocal num_done, total
            num_done, total = max(num_done, done), of
            told(num_done, total)

        def embed(frames_TCHW: Tensor) -> Tensor:
            nonlocal num_done
            rows = []
            for part_TCHW in frames_TCHW.split(TOLD_FRAMES):
                task.check()
                rows.append(self._batcher.embed(part_TCHW))
                num_done += len(part_TCHW)
                told(num_done, total)
            return torch.cat(rows)

        config = TimelineConfig(window_s=ask.window_s, threshold=ask.threshold)
        predictor = self._predictor.through(embed, self.config.limits)
        return sweep(predictor, file, config, start_s=ask.start_s, end_s=ask.end_s, progress=swept).to_dict()

    def close(self) -> None:
        """End what is inside as soon as it can be ended, its answer being 503; nothing is waited for."""
        with self._lock:
            self.is_stopping = True
            for task in self._inside:
                is_owed = task.left_s > 0
                self.num_cut += is_owed
                task.end(stopping() if is_owed else task.refusal())
            self._pool.shutdown(wait=False)
            self._batcher.close()


def gone() -> Refusal:
    """What is counted where nobody waits for the answer any more."""
    return Refusal(CLIENT_GONE, "the client went away")


def stopping() -> Refusal:
    """What is said when the server stops."""
    return Refusal(503, "this server is stopping; ask again in a moment", retry_s=5)


def open_below(root: str | None, name: str, max_bytes: int) -> IO[bytes]:
    """The file of this name in the folder `root`. Refusal (403) for what lies elsewhere, whether by `..`, as an absolute path or
    behind a link, (413) above `max_bytes`; MissingVideo for what is no file."""
    if root is None:
        raise Refusal(403, f"{name}: this server reads no files of its own; upload the video")
    try:
        folder = Path(root).resolve()
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null character; a link to itself
        raise Refusal(403, f"{name!r}: not a path ({error})") from None
    if not path.is_relative_to(folder):
        raise Refusal(403, f"{name}: outside of the folder that this server reads from; name a file in it")
    try:
        if not path.is_file():
            raise MissingVideo(f"{name}: no such file; check the path")
        file = path.open("rb")
    except OSError as error:  # a name that is too long; a folder or file that is not for us
        status = 403 if isinstance(error, PermissionError) else 404
        raise Refusal(status, f"{name}: cannot be read ({error.strerror})") from None
    if os.fstat(file.fileno()).st_size > max_bytes:
        file.close()
        raise too_large(name, max_bytes)
    return file


def pictures_of(frames_TCHW: Tensor) -> dict[str, object]:
    """`pictures`: each frame as a small JPEG in a data URL."""
    return {"pictures": [data_url(jpeg(frame_CHW, PICTURE_PX)) for frame_CHW in frames_TCHW]}


def status_of(error: FewframesError) -> int:
    """The HTTP status that stands for an error."""
    if isinstance(error, Refusal):
        return error.status
    return 404 if isinstance(error, MissingVideo) else 413 if isinstance(error, TooLarge) else 422
