"""Create the application of a server: its routes, its errors, and the web page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from fewframes.core.text import PAGE_SCRIPT, STYLE, html_of
from fewframes.core.version import __version__
from fewframes.errors import FewframesError, Refusal
from fewframes.inference.heads import Heads
from fewframes.inference.predictor import Predictor
from fewframes.serve.answers import status_of
from fewframes.serve.config import (
    EmbedRequest,
    PredictRequest,
    SearchRequest,
    ServeConfig,
    TimelineRequest,
    VideoRequest,
)
from fewframes.serve.handler import RequestHandler
from fewframes.serve.metrics import Metrics, RequestCounter
from fewframes.serve.moments.search import MomentSearch
from fewframes.serve.requests import Asked
from fewframes.serve.security import AddedHeaders, OwnPages
from fewframes.serve.service import Service
from fewframes.serve.tasks import stopping

PAGE = Path(__file__).parent / "page"
VERBS: dict[str, type[VideoRequest]] = {
    "/v1/predict": PredictRequest,
    "/v1/timeline": TimelineRequest,
    "/v1/embed": EmbedRequest,
}
SEARCH = "/v1/search"
OTHER_ROUTES = ("/", "/healthz", "/readyz", "/metrics", "/v1/about", "/openapi.json")


def create_app(models: Predictor | Heads, config: ServeConfig, search: MomentSearch | None = None) -> FastAPI:
    """Create the application that serves one model, or several in one pass, and searches an index if there is one.

    Its `state.service` does the work.
    """
    metrics = Metrics()
    service = Service(models, config, metrics.round, search)
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
    # The ones added last are outermost: they count refusals, and send headers with them, too.
    app.add_middleware(RequestCounter, metrics=metrics, routes=(*VERBS, SEARCH, *OTHER_ROUTES))
    app.add_middleware(AddedHeaders, headers=lambda: handler.headers)
    app.add_exception_handler(FewframesError, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, failed)
    for path, kind in VERBS.items():
        app.post(path, summary=(kind.__doc__ or "").strip(), openapi_extra=_body_schema(kind))(_route(handler, kind))
    if search is not None:
        _add_search(app, handler)
    _add_plain_routes(app, handler)
    _add_page(app)
    return app


def _add_page(app: FastAPI) -> None:
    """Add the web page, with its script and styles."""
    page = html_of("serve/templates/page.html", {"title": "fewframes: what happens in a video"})

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/style.css", include_in_schema=False)
    async def style() -> Response:
        return FileResponse(STYLE)

    @app.get("/dom.js", include_in_schema=False)
    async def script() -> Response:
        return FileResponse(PAGE_SCRIPT)

    app.mount("/", StaticFiles(directory=PAGE))


def _add_search(app: FastAPI, handler: RequestHandler) -> None:
    """Add the route of searches, by a body or by the query of the address."""
    summary = (SearchRequest.__doc__ or "").strip()
    app.post(SEARCH, summary=summary, openapi_extra=_body_schema(SearchRequest))(_route(handler, SearchRequest))
    plain = TypeAdapter(SearchRequest).json_schema()["properties"]
    parameters = [{"name": name, "in": "query", "schema": schema} for name, schema in plain.items()]

    @app.get(SEARCH, summary=summary, openapi_extra={"parameters": parameters})
    async def search_by_address(request: Request) -> Response:
        return await handler.answer_query(request)


def _route(handler: RequestHandler, kind: type[Asked]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint for requests of this kind. Its name, such as `predict`, is the operation in OpenAPI."""

    async def answer(request: Request) -> Response:
        return await handler.answer(request, kind)

    answer.__name__ = kind.__name__.removesuffix("Request").lower()
    return answer


def _body_schema(kind: type[Asked]) -> dict[str, Any]:
    """Return the OpenAPI schema of a request's body: a form, with the file if it may have one, or JSON."""
    plain = TypeAdapter(kind).json_schema()
    file: dict[str, Any] = {} if issubclass(kind, SearchRequest) else {"file": {"type": "string", "format": "binary"}}
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
    def about() -> dict[str, Any]:
        """Return the name of the model, its actions, and the limits of this server; of several models, all of them.

        If there is an index, it says what can be searched for.
        """
        name, labels = next(iter(service.models.items()))
        several = [{"name": own, "labels": found} for own, found in service.models.items()]
        return {
            "version": __version__,
            "model": name,
            "labels": labels,
            **({"models": several} if len(several) > 1 else {}),
            **({"search": service.search.about()} if service.search else {}),
            "needs_token": bool(config.token),
            "takes_urls": config.urls != "none",
            "takes_paths": config.root is not None,
            "max_mb": config.max_mb,
            "max_seconds": config.max_seconds,
            "max_megapixels": config.max_megapixels,
            "timeout_s": config.timeout_s,
        }
