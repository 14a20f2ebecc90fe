"""Refuse requests that a browser sends for pages of other servers, or under names that are not this server's; restrict own pages.

Any page that somebody opens can make the browser send requests to this machine. And a name of that page may come to stand for
this machine (DNS rebinding), so that the browser takes the page and this server for the same. Programs are not affected: they
send neither `Origin` nor `Sec-Fetch-Site`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewframes.core.text import PAGE_SCRIPT, STYLE
from fewframes.core.version import __version__
from fewframes.errors import FewframesError, Refusal
from fewframes.serve.answers import status_of

GUARDED = ("/v1/", "/api/")
"""The starts of the routes that no page but this server's own may ask: those of `serve`, and those of `label`."""
OPEN = ("/v1/about",)
"""Routes among these that links may lead to. They tell what anybody may know, and other pages cannot read the answer."""
PROBED = ("/healthz", "/readyz")
"""Routes for health checks, which tell nothing and may be asked under any name."""
PORT = re.compile(r":\d*$")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The headers of every answer. They restrict what pages may load, and who may embed them."""


class AddedHeaders:
    """A middleware that adds `headers` to every answer."""

    def __init__(self, app: ASGIApp, headers: Callable[[], Mapping[str, str]]) -> None:
        self.app, self.headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in self.headers().items()]
            await send(message)

        await self.app(scope, receive, send_on)


class OwnPages:
    """A middleware that refuses requests of other servers' pages and, if `names` are given, under any other name."""

    def __init__(
        self, app: ASGIApp, names: Collection[str], refused: Callable[[Request, Refusal], Awaitable[Response]]
    ) -> None:
        self.app, self.names, self.refused = app, names, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http":
                check(scope["path"], Headers(scope=scope), self.names)
        except Refusal as refusal:
            response = await self.refused(Request(scope), refusal)
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class TokenGuard:
    """A middleware that lets in only browsers that were given the address of a page with its token, if there is one.

    The address of the page has it (`/?token=...`). The answer puts it in a cookie and leads to the page without it, so that the
    token does not stay in the address bar. Each command has a cookie of its own, because servers of one machine share them.
    """

    def __init__(
        self, app: ASGIApp, token: str, cookie: str, refused: Callable[[Request, Refusal], Awaitable[Response]]
    ) -> None:
        self.app, self.token, self.cookie, self.refused = app, token, cookie, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.token:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if self._is(request.cookies.get(self.cookie, "")):
            await self.app(scope, receive, send)
        elif scope["path"] == "/" and self._is(request.query_params.get("token", "")):
            response: Response = RedirectResponse("/", 303)
            response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            await response(scope, receive, send)
        else:
            refusal = Refusal(401, "open the whole address that the command printed; it ends with ?token=...")
            await (await self.refused(request, refusal))(scope, receive, send)

    def _is(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), self.token.encode())


def check(path: str, headers: Headers, names: Collection[str]) -> None:
    """Check a request. Raises Refusal: 421 under a name that is not among `names`, if there are any; 403 for another server's page.

    Args:
        path: Path of the route.
        headers: Headers of the request.
        names: Host names of this server; none allows any.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    name = PORT.sub("", host).strip("[]").lower().removesuffix(".")
    if names and host and path not in PROBED and name not in names:
        known = ", ".join(map(in_address, names))
        raise Refusal(
            421, f"Host {host!r}: without a token this server answers as {known} only; use one of these, or set a token"
        )
    if not path.startswith(GUARDED) or path in OPEN:
        return
    # Sec-Fetch-Site goes first, for the browser itself sets it: behind a proxy Host may not be the name that pages know.
    site = headers.get("sec-fetch-site")
    if site:
        if site not in ("same-origin", "none"):
            raise Refusal(
                403, f"{origin or site!r}: pages of other servers may not ask here; open this server's own page"
            )
    elif origin is not None and origin.partition("://")[2].lower() != host.lower():
        way_out = "open this server's own page; a proxy before it must pass on Host as it came"
        raise Refusal(403, f"{origin!r}: pages of other servers may not ask here, and Host is {host!r}; {way_out}")


def in_address(name: str) -> str:
    """Return a host as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{name}]" if ":" in name else name


def guarded_app(title: str, names: Collection[str], token: str, cookie: str) -> FastAPI:
    """Create the application of a page for people, without routes yet: it has the guards of this module, and tells errors as JSON.

    Args:
        title: The title.
        names: Host names under which the server may be asked, without ports; none allows any.
        token: The secret that a browser must show once, in the address of the page; empty for none.
        cookie: The name of the cookie that holds the token then.
    """
    app = FastAPI(title=title, version=__version__, docs_url=None, redoc_url=None, openapi_url=None)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, FewframesError)
        return _failure(str(error), status_of(error))

    async def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _failure(error.detail, error.status_code)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _failure(_words_of(error.errors()), 422)

    async def failed(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "this server failed; its log has the reason", "status": 500}, 500, HEADERS)

    app.add_middleware(TokenGuard, token=token, cookie=cookie, refused=refused)
    app.add_middleware(OwnPages, names=names, refused=refused)
    app.add_middleware(AddedHeaders, headers=lambda: HEADERS)  # outermost: refusals have them, too
    app.add_exception_handler(FewframesError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, failed)
    return app


def add_page(app: FastAPI, page: str, folder: Path) -> None:
    """Add a page to an application that has all its other routes.

    Args:
        app: The application.
        page: The page as HTML.
        folder: The folder of its scripts and styles.
    """

    @app.get("/")
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/style.css")
    async def style() -> Response:
        return FileResponse(STYLE)

    @app.get("/dom.js")
    async def script() -> Response:
        return FileResponse(PAGE_SCRIPT)

    app.mount("/", StaticFiles(directory=folder))


def _failure(words: str, status: int) -> Response:
    """Return an error as a page shows it."""
    return JSONResponse({"error": words, "status": status}, status)


def _words_of(errors: Sequence[Any]) -> str:
    """Return what is wrong with a request, in one line."""
    return "; ".join(f"{'.'.join(map(str, error['loc'][1:]))}: {error['msg']}" for error in errors)
