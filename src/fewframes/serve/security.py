"""Which requests a browser may bring here: those of this server's own pages, under this server's own names.

Any page that somebody opens can have the browser ask this machine, and a name of that page's may come to stand for this machine
(DNS rebinding), so that the browser takes both for the same. Programs send neither `Origin` nor `Sec-Fetch-Site`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fewframes.errors import Refusal

GUARDED = "/v1/"
"""Routes that only this server's own pages may ask, among pages."""
OPEN = ("/v1/about",)
"""But these, for links: they tell what anybody may know, and no other page can read it."""
PROBED = ("/healthz", "/readyz")
"""Routes that tell nothing, and may be asked under any name."""
PORT = re.compile(r":\d*$")


class OwnPages:
    """An application which refuses what other servers' pages ask, and, where `names` are given, any other name of this server."""

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
    """Refusal (421) under a name that is not among `names`, if there are any, (403) for another server's page."""
    host, origin = headers.get("host", ""), headers.get("origin")
    name = PORT.sub("", host).strip("[]").lower().removesuffix(".")
    if names and host and path not in PROBED and name not in names:
        known = ", ".join(map(in_address, names))
        raise Refusal(421, f"Host {host!r}: without a token this server is {known} only; ask it so, or set a token")
    if not path.startswith(GUARDED) or path in OPEN:
        return
    # A browser's own word goes first: a proxy that speaks HTTPS may give Host another name than pages know.
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
    """A host as addresses have it: IPv6 in brackets."""
    return f"[{name}]" if ":" in name else name
