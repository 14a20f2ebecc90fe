"""Let in only browsers that were given the address of the page with its token, where other machines can connect."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fewframes.errors import Refusal

COOKIE = "fewframes-label"
"""The cookie that holds the token once the page was opened with it."""


class TokenGuard:
    """A middleware that refuses requests without the token, if there is one.

    The address of the page has it (`/?token=...`). The answer puts it in a cookie and leads to the page without it, so that the
    token does not stay in the address bar.
    """

    def __init__(self, app: ASGIApp, token: str, refused: Callable[[Request, Refusal], Awaitable[Response]]) -> None:
        self.app, self.token, self.refused = app, token, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.token:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if self._is(request.cookies.get(COOKIE, "")):
            await self.app(scope, receive, send)
        elif scope["path"] == "/" and self._is(request.query_params.get("token", "")):
            response: Response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            await response(scope, receive, send)
        else:
            refusal = Refusal(401, "open the whole address that the command printed; it ends with ?token=...")
            await (await self.refused(request, refusal))(scope, receive, send)

    def _is(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), self.token.encode())
