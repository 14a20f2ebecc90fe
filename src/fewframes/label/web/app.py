"""Create the application of the page for labelling: its routes, its errors, and the page itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse

from fewframes.core.text import html_of
from fewframes.core.version import __version__
from fewframes.errors import MissingVideo, Refusal
from fewframes.label.session import Session
from fewframes.label.values import GridOrder
from fewframes.label.web.requests import LabelRequest, NewSegment, RenameRequest, SegmentChange, TagRequest
from fewframes.serve.security import add_page, guarded_app

PAGE = Path(__file__).parent / "page"
COOKIE = "fewframes-label"
"""The cookie that holds the token once the page was opened with it."""
LEAST_PX, MOST_PX = 48, 1080
"""The smallest and the largest height of a frame that the page may ask for, in pixels."""
MOST_TILES = 240
"""The most tiles of the grid in one answer."""
FRAME_CACHE = {"Cache-Control": "private, max-age=3600"}
"""Frames never change, so a browser that has one does not ask again."""


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The settings of the page: where the project lies, who labels, and under which names the server may be asked."""

    project: Path
    """The folder of the project, into which the model and the list are written."""
    model: str = ""
    """The model whose embeddings and first suggestions are used, for people to read."""
    annotator: str = ""
    """The annotator of changes that name none."""
    names: tuple[str, ...] = ()
    """Host names under which the server may be asked, without ports; none allows any."""
    token: str = ""
    """The secret that a browser must show once, in the address of the page; empty for none."""


def create_app(session: Session, config: PageConfig) -> FastAPI:
    """Create the application that labels videos in a browser."""
    app = guarded_app("fewframes label", config.names, config.token, COOKIE)
    _add_answers(app, session, config)
    _add_videos(app, session)
    _add_changes(app, session, config)
    _add_results(app, session, config)
    add_page(app, html_of("label/web/templates/label.html", {"title": "fewframes: label videos"}), PAGE)
    return app


def _add_answers(app: FastAPI, session: Session, config: PageConfig) -> None:
    """Add the routes that tell how the labelling stands, and what to look at next."""

    @app.get("/api/about")
    def about() -> dict[str, str]:
        return {
            "version": __version__,
            "project": str(config.project),
            "model": config.model,
            "annotator": config.annotator,
        }

    @app.get("/api/state")
    def state() -> Any:
        return session.state().to_dict()

    @app.get("/api/videos/{video}/timeline")
    def timeline(video: str) -> Any:
        return session.timeline(video).to_dict()

    @app.get("/api/next")
    def next_moment(after: str = "") -> Any:
        moment = session.next_moment(after)
        return {"moment": None if moment is None else moment.to_dict()}

    @app.get("/api/doubtful")
    def doubtful(num: int = 20) -> Any:
        return {"doubts": [doubt.to_dict() for doubt in session.doubtful(max(1, min(num, MOST_TILES)))]}

    @app.get("/api/grid")
    def grid(num: int = 60, offset: int = 0, order: GridOrder = "likeness") -> Any:
        return session.grid(max(1, min(num, MOST_TILES)), max(0, offset), order).to_dict()


def _add_videos(app: FastAPI, session: Session) -> None:
    """Add the routes for the videos themselves. A request names a video of the session by its id, never by a path."""

    @app.get("/api/videos/{video}/file")
    def file(video: str) -> Response:
        """Return the file of a video, or the bytes of it that are asked for."""
        paths = {info.id: Path(info.path) for info in session.state().videos}
        path = paths.get(video)
        if path is None or not path.is_file():
            raise MissingVideo(f"{video}: no file of a video of this project; reload the page")
        return FileResponse(path)

    @app.get("/api/videos/{video}/frame")
    def frame(video: str, t: float, height: int = 360) -> Response:
        """Return the frame that is shown at a time, as a JPEG."""
        content = session.frame(video, t, max(LEAST_PX, min(height, MOST_PX)))
        return Response(content, media_type="image/jpeg", headers=FRAME_CACHE)


def _add_changes(app: FastAPI, session: Session, config: PageConfig) -> None:
    """Add the routes that change the labels. Every change is in the journal before it is answered."""

    def who(request: LabelRequest) -> str:
        return request.annotator or config.annotator

    @app.post("/api/segments")
    def add(request: NewSegment) -> Any:
        return session.add(request.video, request.start_s, request.end_s, request.label, who(request)).to_dict()

    @app.patch("/api/segments/{segment}")
    def change(segment: str, request: SegmentChange) -> Any:
        changed = session.change(
            segment, who(request), start_s=request.start_s, end_s=request.end_s, label=request.label
        )
        return changed.to_dict()

    @app.delete("/api/segments/{segment}")
    def delete(segment: str, annotator: str = "") -> Any:
        session.delete(segment, annotator or config.annotator)
        return {"deleted": segment}

    @app.post("/api/refuse")
    def refuse(request: NewSegment) -> Any:
        return session.refuse(request.video, request.start_s, request.end_s, request.label, who(request)).to_dict()

    @app.post("/api/tag")
    def tag(request: TagRequest) -> Any:
        return {"tagged": session.tag(request.moments, request.label, who(request))}

    @app.post("/api/labels/rename")
    def rename(request: RenameRequest) -> Any:
        session.rename_label(request.old, request.new, who(request))
        return {"renamed": request.new}

    @app.post("/api/undo")
    def undo(request: LabelRequest) -> Any:
        return {"words": session.undo(who(request))}

    @app.post("/api/redo")
    def redo(request: LabelRequest) -> Any:
        return {"words": session.redo(who(request))}


def _add_results(app: FastAPI, session: Session, config: PageConfig) -> None:
    """Add the routes that write a model and the list of segments into the project's folder."""
    writing = threading.Lock()

    @app.post("/api/model")
    def model() -> Any:
        if not writing.acquire(blocking=False):
            raise Refusal(409, "the model is being written already; wait for it", retry_s=5)
        try:
            return session.write_model(config.project / "model").to_dict()
        finally:
            writing.release()

    @app.get("/api/segments.csv")
    def segments() -> Response:
        path = config.project / "segments.csv"
        session.write_segments(path)
        return FileResponse(path, media_type="text/csv", filename=path.name)
