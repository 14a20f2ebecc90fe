"""The service of a server, without any HTTP: let requests in, work on them in threads, and end them when it stops."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import IO

from fewframes.errors import Refusal
from fewframes.inference.heads import Heads
from fewframes.inference.predictor import Predictor
from fewframes.serve.answers import Progress, VideoAnswerer
from fewframes.serve.batcher import BatchingRuntime
from fewframes.serve.config import SearchRequest, ServeConfig, VideoRequest
from fewframes.serve.moments.search import MomentSearch
from fewframes.serve.tasks import RequestTask, stopping

MOST_COMING = 64
"""The most requests whose bodies are still coming. They take no slot, but memory and a connection each."""


class Service:
    """A model or several, the threads that work on requests, and the requests that are inside."""

    def __init__(
        self,
        models: Predictor | Heads,
        config: ServeConfig,
        on_round: Callable[[int], None] = lambda num_frames: None,
        search: MomentSearch | None = None,
    ) -> None:
        """Start a service.

        Args:
            models: The model, or several.
            config: The settings.
            on_round: Called with the number of frames of each round of the batcher.
            search: The index that is searched, if there is one.
        """
        self.search = search
        self.config = config
        self.models = {
            model.name: model.labels for model in (models.predictors if isinstance(models, Heads) else [models])
        }
        """The labels of each model by its name."""
        self.is_stopping = False
        self.num_cut = 0
        """Requests that had no answer yet when the service was closed."""
        self.runtime = BatchingRuntime(models.runtime, on_round)
        """The runtime that embeds the frames of all requests."""
        self.answerer = VideoAnswerer(models, self.runtime, config)
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
        request: VideoRequest | SearchRequest,
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
        if isinstance(request, SearchRequest):
            assert self.search is not None  # else there is no route for it
            return self.start(partial(self.search.answer, request, task), task)
        return self.start(partial(self.answerer.answer, request, upload, name, task, progress), task)

    def start(self, work: Callable[[], dict[str, object]], task: RequestTask) -> Future[dict[str, object]]:
        """Start any work on a request, and return its future answer. Raises Refusal if it was ended, or its time is over."""
        with self._lock:
            task.check()  # `close` ends all tasks before it shuts the pool, so the pool is open here
            return self._pool.submit(work)

    def close(self) -> None:
        """End all requests as soon as possible, with 503 as their answer. Waits for nothing."""
        with self._lock:
            self.is_stopping = True
            for task in self._inside:
                is_owed = task.left_s > 0
                self.num_cut += is_owed
                task.end(stopping() if is_owed else task.refusal())
            self._pool.shutdown(wait=False)
            self.runtime.close()
