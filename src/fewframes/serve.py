"""The server: routes, tokens, metrics, the page, and how it begins and stops. What is done with a video is in service.py."""

from __future__ import annotations

import asyncio
import hmac
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from pydantic import TypeAdapter
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewframes import __version__
from fewframes.config import settings_from
from fewframes.errors import ConfigError, FewframesError, Refusal
from fewframes.fetching import too_large
from fewframes.predictor import Predictor
from fewframes.serve_metrics import Metrics
from fewframes.service import Ask, EmbedAsk, PredictAsk, ServeConfig, Service, Task, TimelineAsk, status_of

PAGE = Path(__file__).parent / "assets" / "page"
FORM_BYTES = 2**16
"""What a form may have beside the video."""
MOST_FIELDS = 16
DRAIN_S, BACKLOG = 1.0, 128
CLIENT_GONE = 499
"""What is counted where nobody waits for the answer any more."""
VERBS: dict[str, type[Ask]] = {"/v1/predict": PredictAsk, "/v1/timeline": TimelineAsk, "/v1/embed": EmbedAsk}
OTHER_ROUTES = ("/", "/healthz", "/readyz", "/metrics", "/v1/about", "/openapi.json")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Counted:
    """An application whose requests are counted, and whose answers have headers that keep pages apart; when it is stopping they
    also say that the connection ends, so that nobody sends more on one that is about to be closed."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self.app, self.desk, self.metrics = app, desk, desk.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = HEADERS | ({"Connection": "close"} if self.desk.service.is_stopping else {})
                message["headers"] += [(name.encode(), value.encode()) for name, value in headers.items()]
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            route = scope["path"] if scope["path"] in (*VERBS, *OTHER_ROUTES) else "other"
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)


class Sent(NamedTuple):
    """What came with a request."""

    ask: Ask
    upload: UploadFile | None

    async def close(self) -> None:
        """Give back the upload's file."""
        if self.upload is not None:
            await self.upload.close()


class Desk:
    """Where requests about videos are taken: a place, the body, the answer."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self.service, self.metrics = service, metrics

    def check_token(self, request: Request) -> None:
        """Refusal (401) without the token that is asked for."""
        token = self.service.config.token
        shown = request.headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        if token and not hmac.compare_digest(shown, token.encode()):
            raise Refusal(401, "this server asks for a token; send it as 'Authorization: Bearer TOKEN'")

    async def answer(self, request: Request, kind: type[Ask]) -> Response:
        """The answer to a question of this kind. Raises FewframesError."""
        self.check_token(request)
        if self.service.is_stopping:
            await _drained(request)
        task, leave = Task(self.service.config.timeout_s), self.service.enter()
        try:
            async with asyncio.timeout(task.left_s):
                sent = await read_request(request, kind, self.service.config.max_bytes)
        except TimeoutError:
            leave()
            raise task.late() from None
        except BaseException:
            leave()
            raise
        lines = Lines(asyncio.get_running_loop())
        upload = sent.upload
        future = self.service.submit(
            sent.ask, upload.file if upload else None, (upload.filename if upload else "") or "upload", task, lines.told
        )

        def done(_: Future[dict[str, object]]) -> None:
            if upload is not None:
                upload.file.close()
            leave()
            lines.end()

        future.add_done_callback(done)
        if isinstance(sent.ask, TimelineAsk) and sent.ask.progress:
            return StreamingResponse(self._streamed(lines, future, task), media_type="application/x-ndjson")
        try:
            return JSONResponse(await self._awaited(request, future, task))
        finally:
            task.is_left = True
            future.cancel()

    async def _awaited(self, request: Request, future: Future[dict[str, object]], task: Task) -> dict[str, object]:
        """The answer, unless time runs out or the client goes away."""
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(
            lambda found: found.cancelled() or found.exception()
        )  # nobody may be left to look at it
        gone = asyncio.ensure_future(_disconnected(request))
        either: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(either, timeout=task.left_s, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if answer.done():
            return answer.result()
        raise Refusal(CLIENT_GONE, "the client went away") if gone.done() else task.late()

    async def _streamed(self, lines: Lines, future: Future[dict[str, object]], task: Task) -> AsyncIterator[str]:
        """Lines of JSON: progress, and last the result or the error, for by then the status is sent."""
        try:
            while (line := await asyncio.wait_for(lines.next(), task.left_s)) is not None:
                yield json.dumps({"progress": {"done": line[0], "total": line[1]}}) + "\n"
            yield json.dumps({"result": future.result()}, ensure_ascii=False) + "\n"
        except TimeoutError:
            yield json.dumps(self.told_error(task.late())) + "\n"
        except FewframesError as error:
            yield json.dumps(self.told_error(error), ensure_ascii=False) + "\n"
        finally:
            task.is_left = True
            future.cancel()

    def told_error(self, error: FewframesError) -> dict[str, object]:
        """An error as plain values, counted."""
        self.metrics.refused.labels(str(status_of(error))).inc()
        return {"error": str(error), "status": status_of(error)}


class Lines:
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


async def read_request(request: Request, kind: type[Ask], max_bytes: int) -> Sent:
    """The question, and the uploaded video if there is one. Raises Refusal and ConfigError.

    An upload of more than a megabyte goes into a file without a name, so nothing can be left behind.
    """
    form = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if form not in ("multipart/form-data", "application/json"):
        raise Refusal(415, f"Content-Type {form!r}: send multipart/form-data with a 'file', or application/json")
    most = FORM_BYTES + (max_bytes if form == "multipart/form-data" else 0)
    limited = Request(request.scope, _limited(request, most, max_bytes))
    if form == "application/json":
        try:
            values = json.loads(await limited.body())
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON ({error})") from None
        if not isinstance(values, dict):
            raise Refusal(400, f"the body is JSON of type {type(values).__name__}; send an object")
        return Sent(_ask_of(kind, values, is_upload=False), None)
    values = await limited.form(max_files=1, max_fields=MOST_FIELDS)
    file = values.get("file")
    upload = file if isinstance(file, UploadFile) else None
    sent = Sent(kind(), upload)
    try:
        return sent._replace(ask=_ask_of(kind, _plain(kind, values), is_upload=upload is not None))
    except BaseException:
        await values.close()
        raise


def _ask_of(kind: type[Ask], values: Mapping[str, Any], *, is_upload: bool) -> Ask:
    ask = settings_from(kind, values, "request")
    if is_upload + (ask.url is not None) + (ask.path is not None) != 1:
        raise Refusal(422, "request: needs one video: a 'file' in a form, or a 'url', or a 'path'")
    return ask


def _plain(kind: type[Ask], form: FormData) -> dict[str, Any]:
    """The fields of a form as JSON has them: numbers and truth values where the question has these."""
    texts = {field.name for field in fields(kind) if "str" in str(field.type)}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for name, value in form.items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise Refusal(422, f"request: a file under the name {name!r}; send it as 'file'")
            continue
        found[name] = value
        if name not in texts:
            with suppress(ValueError):
                found[name] = json.loads(value)
    return found


def _limited(request: Request, most: int, max_bytes: int) -> Receive:
    """What the client sends, as long as it is not too much."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise too_large("upload", max_bytes)
    num_bytes = 0

    async def receive() -> Message:
        nonlocal num_bytes
        message = await request.receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > most:
            raise too_large("upload", max_bytes)
        return message

    return receive


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
    desk = Desk(service, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.is_stopping = True
        await asyncio.to_thread(service.close)

    app = FastAPI(title="fewframes", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(Counted, desk=desk)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, FewframesError)
        headers = {"WWW-Authenticate": "Bearer"} if status_of(error) == 401 else {}
        if isinstance(error, Refusal) and error.retry_s is not None:
            headers["Retry-After"] = str(error.retry_s)
        return JSONResponse(desk.told_error(error), status_of(error), headers)

    async def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail, "status": error.status_code}, error.status_code)

    app.add_exception_handler(FewframesError, refused)
    app.add_exception_handler(HTTPException, unknown)
    for path, kind in VERBS.items():
        app.post(path, summary=(kind.__doc__ or "").strip(), openapi_extra=_body_schema(kind))(_route(desk, kind))
    _add_plain_routes(app, desk)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def _route(desk: Desk, kind: type[Ask]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await desk.answer(request, kind)

    answer.__name__ = kind.__name__.removesuffix("Ask").lower()
    return answer


def _body_schema(kind: type[Ask]) -> dict[str, Any]:
    """What a request's body may be, for OpenAPI."""
    plain = TypeAdapter(kind).json_schema()
    file = {"file": {"type": "string", "format": "binary"}}
    form = {**plain, "properties": {**file, **plain["properties"]}}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": plain}}
    return {"requestBody": {"required": True, "content": content}}


def _add_plain_routes(app: FastAPI, desk: Desk) -> None:
    service, config = desk.service, desk.service.config

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """That the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """That requests are taken: 503 when stopping."""
        if service.is_stopping:
            raise Refusal(503, "this server is stopping", retry_s=5)
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


def run(app: FastAPI, listening: socket.socket, *, stop_s: float) -> None:
    """Serve until SIGTERM or SIGINT; then refuse what is new, finish what is inside for `stop_s` at most, and return."""
    # When uvicorn closes connections everything is answered, or had its time; a second is for the last bytes.
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1, lifespan="on"
    )
    server = uvicorn.Server(settings)
    asyncio.run(_serve(server, app.state.service, listening, stop_s))


async def _serve(server: uvicorn.Server, service: Service, listening: socket.socket, stop_s: float) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    async def stopped() -> None:
        await stop.wait()
        service.is_stopping = True
        ends = time.monotonic() + stop_s
        while service.num_inside and time.monotonic() < ends:
            await asyncio.sleep(0.05)
        server.should_exit = True

    stopping = asyncio.create_task(stopped())
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    for name in (signal.SIGTERM, signal.SIGINT):  # not uvicorn's, which would close the door before anything is told
        loop.add_signal_handler(name, stop.set)
    await serving
    stopping.cancel()


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
