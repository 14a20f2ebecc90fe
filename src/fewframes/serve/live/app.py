"""Create the application of the live page: its routes, and the page itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from fewframes.core.text import html_of
from fewframes.core.version import __version__
from fewframes.serve.live.board import Board
from fewframes.serve.security import add_page, guarded_app
from fewframes.watch.clips.marks import Verdict

PAGE = Path(__file__).parent / "page"
COOKIE = "fewframes-page"
"""The cookie that holds the token once the page was opened with it."""
NEVER_KEPT, KEPT = {"Cache-Control": "no-store"}, {"Cache-Control": "private, max-age=3600"}
"""Stills change all the time; clips and pictures of events never do."""


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The settings of the page."""

    labels: tuple[str, ...]
    """The actions that the models know, for marks."""
    names: tuple[str, ...] = ()
    """Host names under which the server may be asked, without ports; none allows any."""
    token: str = ""
    """The secret that a browser must show once, in the address of the page; empty for none."""


@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MarkRequest:
    """A request to mark an event."""

    verdict: Verdict
    """`right`, `wrong`, `other` with a label, or `none` to take a mark back."""
    label: Annotated[str, Field(max_length=1000)] = ""
    """The action that an event really was."""


def create_app(board: Board, config: PageConfig) -> FastAPI:
    """Create the application that shows a running stream in a browser."""
    app = guarded_app("fewframes stream", config.names, config.token, COOKIE)

    @app.get("/api/about")
    def about() -> dict[str, Any]:
        folder = board.events.folder
        return {
            "version": __version__,
            "labels": list(config.labels),
            "folder": None if folder is None else folder.folder.name,
        }

    @app.get("/api/live")
    def live(run: str = "", sources: int = 0, events: int = 0) -> dict[str, Any]:
        """Return what has changed since the numbers that the last answer of this run had."""
        is_same = run == board.run
        return {
            "run": board.run,
            "sources": board.sources(sources if is_same else 0),
            "events": board.events.since(events if is_same else 0),
        }

    @app.get("/api/still")
    def still(source: str, zone: str = "") -> Response:
        return Response(board.still(source, zone), media_type="image/jpeg", headers=NEVER_KEPT)

    @app.post("/api/events/{event}/mark")
    def mark(event: str, request: MarkRequest) -> dict[str, Any]:
        """Mark an event. The mark is on the disk before this answers."""
        return board.events.mark(event, request.verdict, request.label)

    @app.get("/api/events/{event}/clip")
    def clip(event: str) -> Response:
        """Return the clip of an event, or the bytes of it that are asked for."""
        return FileResponse(board.events.file(event, "clip"), headers=KEPT)

    @app.get("/api/events/{event}/picture")
    def picture(event: str) -> Response:
        return FileResponse(board.events.file(event, "picture"), headers=KEPT)

    add_page(app, html_of("serve/live/templates/live.html", {"title": "fewframes: live"}), PAGE)
    return app
