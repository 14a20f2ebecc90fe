"""Handle HTTP requests about videos: check the token, let a request in, read its body and send the answer."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import closing, suppress
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.types import Receive, Scope, Send

from fewframes.errors import FewframesError, Refusal
from fewframes.serve.answers import status_of
from fewframes.serve.config import SearchRequest, TimelineRequest
from fewframes.serve.metrics import Metrics
from fewframes.serve.requests import Asked, RequestBody, read_query, read_request
from fewframes.serve.security import HEADERS
from fewframes.serve.service import Service
from fewframes.serve.tasks import ProgressLines, RequestTask, gone, in_a_line, in_time

DRAIN_S = 1.0
"""Seconds for which the body of a refused request is still read."""


class RequestHandler:
    """A handler of requests about videos: checks the token, lets a request in, reads its body and sends the answer."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self.service, self.metrics = service, metrics

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of every answer.

        They restrict what pages may load, and who may embed them. While the server stops they also say that the connection
        ends, so that clients send no more requests on a connection that is about to be closed.
        """
        return HEADERS | ({"Connection": "close"} if self.service.is_stopping else {})

    def check_token(self, request: Request) -> None:
        """Check the token of a request. Raises Refusal (401) if it is missing or wrong."""
        token = self.service.config.token
        shown = request.headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        if token and not hmac.compare_digest(shown, token.encode()):
            raise Refusal(401, "this server asks for a token; send it as 'Authorization: Bearer TOKEN'")

    async def answer(self, request: Request, kind: type[Asked]) -> Response:
        """Return the answer to a request of this kind: JSON, or lines of JSON while it is worked on. Raises FewframesError."""
        return await self._answered(request, read_request(request, kind, self.service.config.max_bytes))

    async def answer_query(self, request: Request) -> Response:
        """Return the answer to a search that stands in the address. Raises FewframesError."""

        async def read() -> RequestBody:
            return read_query(request, SearchRequest)

        return await self._answered(request, read())

    async def _answered(self, request: Request, reading: Coroutine[Any, Any, RequestBody]) -> Response:
        with closing(reading):
            return await self._answer(request, reading)

    async def _answer(self, request: Request, reading: Awaitable[RequestBody]) -> Response:
        """Return the answer to a request whose body, or query, is still to be read."""
        self.check_token(request)
        if self.service.is_stopping:
            await _drained(request)
        task, lines, upload = self.service.enter(), ProgressLines(asyncio.get_running_loop()), None
        try:
            async with in_time(task):
                asked, upload = await reading
            self.service.take_slot(task)
            file, name = (upload.file, upload.filename or "upload") if upload else (None, "")
            future = self.service.submit(asked, file, name, task, lines.report)
        except BaseException:
            self._finish(task, upload)
            raise

        # The slot is given back when the thread is done, not when the client has its answer: a thread may work on for a
        # client that is gone, and a slot that is free too early would let in more than the workers can do.
        def on_done(_: Future[dict[str, object]]) -> None:
            self._finish(task, upload)
            lines.end()

        def on_left() -> None:
            task.end(gone())
            future.cancel()

        future.add_done_callback(on_done)
        if isinstance(asked, TimelineRequest) and asked.progress:
            return StreamedLines(self._streamed(lines, future, task), on_left)
        try:
            return JSONResponse(await self._awaited(request, future, task))
        finally:
            on_left()

    def _finish(self, task: RequestTask, upload: UploadFile | None) -> None:
        """Close the upload, and let the request out of the service."""
        if upload is not None:
            upload.file.close()
        self.service.leave(task)

    async def _awaited(
        self, request: Request, future: Future[dict[str, object]], task: RequestTask
    ) -> dict[str, object]:
        """Wait for the answer. Raises Refusal if the time runs out or the client goes away."""
        answer = asyncio.wrap_future(future)
        # If the client goes away nobody reads an error, and asyncio would log one that was never read.
        answer.add_done_callback(lambda found: found.cancelled() or found.exception())
        leaving = asyncio.ensure_future(_disconnected(request))
        either: set[asyncio.Future[Any]] = {answer, leaving}
        try:
            async with in_time(task):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
        if answer.done():
            return answer.result()
        raise gone()

    async def _streamed(
        self, lines: ProgressLines, future: Future[dict[str, object]], task: RequestTask
    ) -> AsyncIterator[str]:
        """Yield lines of JSON: progress, and last the result or the error. By then the status (200) has been sent."""
        try:
            while True:
                async with in_time(task):
                    line = await lines.next()
                if line is None:
                    break
                yield json.dumps({"progress": {"done": line[0], "total": line[1]}}) + "\n"
            yield json.dumps({"result": future.result()}, ensure_ascii=False) + "\n"
        except FewframesError as error:
            yield json.dumps(self.error_values(error), ensure_ascii=False) + "\n"

    def error_values(self, error: FewframesError) -> dict[str, object]:
        """Count an error, and return it as plain values for an answer."""
        self.metrics.refused.labels(str(status_of(error))).inc()
        return {"error": in_a_line(error), "status": status_of(error)}


class StreamedLines(StreamingResponse):
    """A response of JSON lines that calls `on_left` at its end, even if the client goes before the first line is generated."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[str], on_left: Callable[[], None]) -> None:
        super().__init__(lines)
        self._on_left = on_left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_left()


async def _drained(request: Request) -> None:
    """Read the body of a refused request, for `DRAIN_S` at most; closing while the client sends would lose the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while (await request.receive()).get("more_body"):
                pass


async def _disconnected(request: Request) -> None:
    """Return when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
