"""The HTTP server: routes, tokens, metrics, the web page, starting and stopping. The work on videos is in service.py."""

from __future__ import annotations

import asyncio
import hmac
import json
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from pydantic import TypeAdapter
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewframes.core.version import __version__
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, FewframesError, Refusal
from fewframes.inference.predictor import Predictor
from fewframes.serve.metrics import Metrics
from fewframes.serve.requests import read_request
from fewframes.serve.security import OwnPages
from fewframes.serve.service import (
    CLIENT_GONE,
    EmbedRequest,
    PredictRequest,
    RequestTask,
    ServeConfig,
    Service,
    TimelineRequest,
    VideoRequest,
    gone,
    status_of,
    stopping,
)

PAGE = Path(__file__).parent / "page"
DRAIN_S, BACKLOG = 1.0, 128
"""Seconds for which the body of a refused request is still read, and connections that may wait to be accepted."""
LAST_S = 3.0
"""Seconds from the end of `stop_s` to the end of the process, whatever hangs; the last bytes of answers need two of them."""
MOST_CHARS = 1000
"""The most characters of an error in an answer."""
VERBS: dict[str, type[VideoRequest]] = {
    "/v1/predict": PredictRequest,
    "/v1/timeline": TimelineRequest,
    "/v1/embed": EmbedRequest,
}
OTHER_ROUTES = ("/", "/healthz", "/readyz", "/metrics", "/v1/about", "/openapi.json")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class RequestCounter:
    """A middleware that counts and times requests, and adds the headers of `RequestHandler` to every answer."""

    def __init__(self, app: ASGIApp, handler: RequestHandler) -> None:
        self.app, self.handler, self.metrics = app, handler, handler.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, is_whole = time.perf_counter(), 500, False

        async def send_on(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [(name.encode(), value.encode()) for name, value in self.handler.headers.items()]
            await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, send_on)
            if not is_whole:  # without an error, only a client that goes away ends an answer early
                status = CLIENT_GONE
        finally:
            route = scope["path"] if scope["path"] in (*VERBS, *OTHER_ROUTES) else "other"
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)


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

    async def answer(self, request: Request, kind: type[VideoRequest]) -> Response:
        """Return the answer to a request of this kind: JSON, or lines of JSON while it is worked on. Raises FewframesError."""
        self.check_token(request)
        if self.service.is_stopping:
            await _drained(request)
        task, lines, upload = self.service.enter(), ProgressLines(asyncio.get_running_loop()), None
        try:
            async with _in_time(task):
                video_request, upload = await read_request(request, kind, self.service.config.max_bytes)
            self.service.take_slot(task)
            file, name = (upload.file, upload.filename or "upload") if upload else (None, "")
            future = self.service.submit(video_request, file, name, task, lines.report)
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
        if isinstance(video_request, TimelineRequest) and video_request.progress:
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
            async with _in_time(task):
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
                async with _in_time(task):
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
        return {"error": _in_a_line(error), "status": status_of(error)}


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


@asynccontextmanager
async def _in_time(task: RequestTask) -> AsyncIterator[None]:
    """Limit what is awaited inside to the time of the task. Raises Refusal if its time is over or it is ended early."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the block is left already
            limit.reschedule(0)

    try:
        async with asyncio.timeout(task.left_s) as limit:
            task.on_end = lambda: loop.call_soon_threadsafe(wake)
            yield
    except TimeoutError:
        raise task.refusal() from None
    finally:
        task.on_end = lambda: None


def _in_a_line(error: FewframesError) -> str:
    """Return the message of an error in one line of limited length, however long the name of the video in it is."""
    line = " ".join(str(error).splitlines())
    return line if len(line) <= MOST_CHARS else f"{line[: MOST_CHARS // 2]} ... {line[-MOST_CHARS // 2 :]}"


class ProgressLines:
    """A queue of progress, from the thread that works on a task to the event loop that writes the answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

    def report(self, done: int, total: int) -> None:
        """Report that `done` of `total` frames are embedded. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._news.put_nowait, (done, total))

    def end(self) -> None:
        """Report that nothing more comes. May be called from any thread."""
        with suppress(RuntimeError):  # the loop is closed, so nobody reads any more
            self._loop.call_soon_threadsafe(self._news.put_nowait, None)

    async def next(self) -> tuple[int, int] | None:
        """Wait for the next report and return its (done, total); None after the last one."""
        return await self._news.get()


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


def create_app(predictor: Predictor, config: ServeConfig) -> FastAPI:
    """Create the application that serves a model. Its `state.service` does the work."""
    metrics = Metrics()
    service = Service(predictor, config, metrics.round)
    metrics.inside.set_function(lambda: service.num_inside)
    metrics.waiting.set_function(lambda: service.num_waiting)
    handler = RequestHandler(service, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="fewframes", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, FewframesError)
        headers = {"WWW-Authenticate": "Bearer"} if status_of(error) == 401 else {}
        if isinstance(error, Refusal) and error.retry_s is not None:
            headers["Retry-After"] = str(error.retry_s)
        return JSONResponse(handler.error_values(error), status_of(error), headers)

    async def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail, "status": error.status_code}, error.status_code)

    async def failed(_: Request, __: Exception) -> Response:
        return JSONResponse(
            {"error": "this server failed; its log has the reason", "status": 500}, 500, handler.headers
        )

    app.add_middleware(OwnPages, names=config.names, refused=refused)
    app.add_middleware(RequestCounter, handler=handler)  # the one added last is outermost: it counts refusals too
    app.add_exception_handler(FewframesError, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, failed)
    for path, kind in VERBS.items():
        app.post(path, summary=(kind.__doc__ or "").strip(), openapi_extra=_body_schema(kind))(_route(handler, kind))
    _add_plain_routes(app, handler)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _route(handler: RequestHandler, kind: type[VideoRequest]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint for requests of this kind. Its name, such as `predict`, is the operation in OpenAPI."""

    async def answer(request: Request) -> Response:
        return await handler.answer(request, kind)

    answer.__name__ = kind.__name__.removesuffix("Request").lower()
    return answer


def _body_schema(kind: type[VideoRequest]) -> dict[str, Any]:
    """Return the OpenAPI schema of a request's body: a form with the file, or JSON."""
    plain = TypeAdapter(kind).json_schema()
    file = {"file": {"type": "string", "format": "binary"}}
    form = {**plain, "properties": {**file, **plain["properties"]}}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": plain}}
    return {"requestBody": {"required": True, "content": content}}


def _add_plain_routes(app: FastAPI, handler: RequestHandler) -> None:
    """Add the routes that take no video: health, readiness, metrics, and what the server is."""
    service, config = handler.service, handler.service.config

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process is alive."""
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Say that requests are taken; 503 while the server stops."""
        if service.is_stopping:
            raise stopping()
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Return the metrics for Prometheus."""
        handler.check_token(request)
        return Response(generate_latest(handler.metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/v1/about")
    async def about() -> dict[str, Any]:
        """Return the name of the model, its actions, and the limits of this server."""
        return {
            "version": __version__,
            "model": service.name,
            "labels": service.labels,
            "needs_token": bool(config.token),
            "takes_urls": config.urls != "none",
            "takes_paths": config.root is not None,
            "max_mb": config.max_mb,
            "max_seconds": config.max_seconds,
            "max_megapixels": config.max_megapixels,
            "timeout_s": config.timeout_s,
        }


def run(
    app: FastAPI, listening: socket.socket, *, stop_s: float, leave: Callable[[int], object] = lambda code: None
) -> int:
    """Serve until SIGTERM or SIGINT, and return how many open requests were not answered.

    After the signal new requests are refused, and open ones are answered until `stop_s` is over or a second signal comes.
    Threads may still work afterwards for the service's `num_inside` requests, for which nobody waits. If anything hangs,
    `leave` is called with the exit code `LAST_S` after `stop_s`: the owner of the process may end it there.
    """
    # By the time uvicorn closes connections every request is answered or had its time; a second is for the last bytes.
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1, lifespan="on"
    )
    service: Service = app.state.service
    hung = threading.Timer(
        min(stop_s + LAST_S, threading.TIMEOUT_MAX), lambda: leave(EXIT_SOME_FAILED if service.num_cut else 0)
    )
    hung.daemon = True
    asyncio.run(_serve(uvicorn.Server(settings), service, listening, stop_s, hung))
    return service.num_cut


async def _serve(
    server: uvicorn.Server, service: Service, listening: socket.socket, stop_s: float, hung: threading.Timer
) -> None:
    """Run the server until it is told to stop: the first signal drains it, the second one ends the waiting."""
    loop, stop, stop_now = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    async def drain() -> None:
        await stop.wait()
        hung.start()
        service.is_stopping = True
        ends = time.monotonic() + stop_s
        while service.num_owed and time.monotonic() < ends and not stop_now.is_set():
            await asyncio.sleep(0.05)
        service.close()
        server.should_exit = True

    draining = asyncio.create_task(drain())
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn's own would close the socket, and clients could not be told
        loop.add_signal_handler(name, on_signal)
    try:
        await serving
    finally:
        draining.cancel()
        hung.cancel()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on this address. Raises ConfigError if that is not possible."""
    listening = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)  # clients that come before the server accepts wait, and are not refused
    except (OSError, UnicodeError) as error:
        if listening is not None:
            listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{host} port {port}: cannot be listened on ({reason}); take another --host or --port"
        ) from None
    return listening
