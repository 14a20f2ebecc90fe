"""Refuse requests that a browser sends for pages of other servers, or under names that are not this server's; restrict own pages.

Any page that somebody opens can make the browser send requests to this machine. And a name of that page may come to stand for
this machine (DNS rebinding), so that the browser takes the page and this server for the same. Programs are not affected: they
send neither `Origin` nor `Sec-Fetch-Site`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewframes.errors import Refusal

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
