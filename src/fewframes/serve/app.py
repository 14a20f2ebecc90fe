"""The server: routes, tokens, metrics, the page, and how it begins and stops. What is done with a video is in service.py."""

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

from fewframes import __version__
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
LAST_S = 3.0
"""From the end of `stop_s` to the end of the process, whatever hangs: the answers' last bytes need two."""
MOST_CHARS = 1000
"""Characters of an error."""
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
    """An application whose requests are counted, and whose answers have `Desk.headers`."""

    def __init__(self, app: ASGIApp, desk: RequestHandler) -> None:
        self.app, self.desk, self.metrics = app, desk, desk.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, is_whole = time.perf_counter(), 500, False

        async def told(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [(name.encode(), value.encode()) for name, value in self.desk.headers.items()]
            await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, receive, told)
            if not is_whole:  # without an error only a client that goes away ends an answer early
                status = CLIENT_GONE
        finally:
            route = scope["path"] if scope["path"] in (*VERBS, *OTHER_ROUTES) else "other"
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)


class RequestHandler:
    """Where requests about videos are taken: a place, the body, the answer."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self.service, self.metrics = service, metrics

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer: they keep pages apart, and when stopping they also say that the connection ends, so that
        nobody sends more on one that is about to be closed."""
        return HEADERS | ({"Connection": "close"} if self.service.is_stopping else {})

    def check_token(self, request: Request) -> None:
        """Refusal (401) without the token that is asked for."""
        token = self.service.config.token
        shown = request.headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        if token and not hmac.compare_digest(shown, token.encode()):
            raise Refusal(401, "this server asks for a token; send it as 'Authorization: Bearer TOKEN'")

    async def answer(self, request: Request, kind: type[VideoRequest]) -> Response:
        """The answer to a question of this kind. Raises FewframesError."""
        self.check_token(request)
        if self.service.is_stopping:
            await _drained(request)
        task, lines, upload = self.service.enter(), ProgressLines(asyncio.get_running_loop()), None
        try:
            async with _in_time(task):
                ask, upload = await read_request(request, kind, self.service.config.max_bytes)
            self.service.take_place(task)
            file, name = (upload.file, upload.filename or "upload") if upload else (None, "")
            future = self.service.submit(ask, file, name, task, lines.told)
        except BaseException:
            self._is_through(task, upload)
            raise

        def done(_: Future[dict[str, object]]) -> None:
            self._is_through(task, upload)
            lines.end()

        def left() -> None:
            task.end(gone())
            future.cancel()

        future.add_done_callback(done)
        if isinstance(ask, TimelineRequest) and ask.progress:
            return StreamedLines(self._streamed(lines, future, task), left)
        try:
            return JSONResponse(await self._awaited(request, future, task))
        finally:
            left()

    def _is_through(self, task: RequestTask, upload: UploadFile | None) -> None:
        if upload is not None:
            upload.file.close()
        self.service.leave(task)

    async def _awaited(
        self, request: Request, future: Future[dict[str, object]], task: RequestTask
    ) -> dict[str, object]:
        """The answer, unless time runs out or the client goes away."""
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(
            lambda found: found.cancelled() or found.exception()
        )  # nobody may be left to look at it
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
        """Lines of JSON: progress, and last the result or the error, for by then the status is sent."""
        try:
            while True:
                async with _in_time(task):
                    line = await lines.next()
                if line is None:
                    break
                yield json.dumps({"progress": {"done": line[0], "total": line[1]}}) + "\n"
            yield json.dumps({"result": future.result()}, ensure_ascii=False) + "\n"
        except FewframesError as error:
            yield json.dumps(self.told_error(error), ensure_ascii=False) + "\n"

    def told_error(self, error: FewframesError) -> dict[str, object]:
        """An error as plain values, counted."""
        self.metrics.refused.labels(str(status_of(error))).inc()
        return {"error": _in_a_line(error), "status": status_of(error)}


class StreamedLines(StreamingResponse):
    """Lines of JSON, and word of their end: a client may go before the first, and then nothing in their generator runs."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[str], left: Callable[[], None]) -> None:
        super().__init__(lines)
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


@asynccontextmanager
async def _in_time(task: RequestTask) -> AsyncIterator[None]:
    """Refusal where the task's time is over, or it is cut, before what is awaited here comes."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # nothing is awaited here any more
            limit.reschedule(0)

    try:
        async with asyncio.timeout(task.left_s) as limit:
            task.woken = lambda: loop.call_soon_threadsafe(wake)
            yield
    except TimeoutError:
        raise task.refusal() from None
    finally:
        task.woken = lambda: None


def _in_a_line(error: FewframesError) -> str:
    """What an error says, in one line that is not too long, whatever name it tells of."""
    line = " ".join(str(error).splitlines())
    return line if len(line) <= MOST_CHARS else f"{line[: MOST_CHARS // 2]} ... {line[-MOST_CHARS // 2 :]}"


class ProgressLines:
    """How far a task is, from the thread that works on it to the one that writes; the newest word is enough."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()

    def told(self, done: int, total: int) -> None:
        """`done` of `total` frames are embedded."""
        self._loop.call_soon_threadsafe(self._news.put_nowait, (done, total))

    def end(self) -> None:
        """There is nothing more to come."""
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._news.put_nowait, None)

    async def next(self) -> tuple[int, int] | None:
        """The next word; None after the last."""
        return await self._news.get()


async def _drained(request: Request) -> None:
    """Reads what the client sends, for `DRAIN_S` at most: a connection that is closed before loses the answer on its way."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while (await request.receive()).get("more_body"):
                pass


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(predictor: Predictor, config: ServeConfig) -> FastAPI:
    """The application; its `state.service` is what works."""
    metrics = Metrics()
    service = Service(predictor, config, metrics.round)
    metrics.inside.set_function(lambda: service.num_inside)
    metrics.waiting.set_function(lambda: service.num_waiting)
    desk = RequestHandler(service, metrics)

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
        return JSONResponse(desk.told_error(error), status_of(error), headers)

    async def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail, "status": error.status_code}, error.status_code)

    async def failed(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "this server failed at it; its log says how", "status": 500}, 500, desk.headers)

    app.add_middleware(OwnPages, names=config.names, refused=refused)
    app.add_middleware(RequestCounter, desk=desk)  # the last is outermost
    app.add_exception_handler(FewframesError, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, failed)
    for path, kind in VERBS.items():
        app.post(path, summary=(kind.__doc__ or "").strip(), openapi_extra=_body_schema(kind))(_route(desk, kind))
    _add_plain_routes(app, desk)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _route(desk: RequestHandler, kind: type[VideoRequest]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await desk.answer(request, kind)

    answer.__name__ = kind.__name__.removesuffix("Request").lower()
    return answer


def _body_schema(kind: type[VideoRequest]) -> dict[str, Any]:
    """What a request's body may be, for OpenAPI."""
    plain = TypeAdapter(kind).json_schema()
    file = {"file": {"type": "string", "format": "binary"}}
    form = {**plain, "properties": {**file, **plain["properties"]}}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": plain}}
    return {"requestBody": {"required": True, "content": content}}


def _add_plain_routes(app: FastAPI, desk: RequestHandler) -> None:
    service, config = desk.service, desk.service.config

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """That the process is alive."""
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """That requests are taken: 503 when stopping."""
        if service.is_stopping:
            raise stopping()
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Figures for Prometheus."""
        desk.check_token(request)
        return Response(generate_latest(desk.metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/v1/about")
    async def about() -> dict[str, Any]:
        """The model, its actions, and the limits here."""
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
    """Serve until SIGTERM or SIGINT; then refuse what is new, answer what is inside, for `stop_s` or until a second signal at most,
    and return how many requests were not answered. Threads may still work for `num_inside` requests that nobody waits for. Should
    anything hang here, `leave` is called `LAST_S` after `stop_s`, with the exit code: whose the process is may end it."""
    # When uvicorn closes connections everything is answered, or had its time; a second is for the last bytes.
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
    loop, stop, stop_now = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (stop_now if stop.is_set() else stop).set()

    async def stopped() -> None:
        await stop.wait()
        hung.start()
        service.is_stopping = True
        ends = time.monotonic() + stop_s
        while service.num_owed and time.monotonic() < ends and not stop_now.is_set():
            await asyncio.sleep(0.05)
        service.close()
        server.should_exit = True

    waiting = asyncio.create_task(stopped())
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    for name in (signal.SIGTERM, signal.SIGINT):  # not uvicorn's, which would close the door before anything is told
        loop.add_signal_handler(name, signalled)
    try:
        await serving
    finally:
        waiting.cancel()
        hung.cancel()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. ConfigError where that cannot be."""
    listening = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)  # who is told the address may come at once, and waits until the first is taken in
    except (OSError, UnicodeError) as error:
        if listening is not None:
            listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{host} port {port}: cannot be listened on ({reason}); take another --host or --port"
        ) from None
    return listening
