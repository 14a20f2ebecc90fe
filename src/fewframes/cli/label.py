"""`fewframes label`: label videos in a browser, and see the model learn."""

from __future__ import annotations

import os
import platform
import secrets
import sys
import time
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fewframes.cli.console import describe, tell
from fewframes.cli.options import (
    INPUT,
    OUTPUT,
    CacheOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    RuntimeOption,
    VideosArgument,
    embedding_cache,
    make_folder,
    named_videos,
)
from fewframes.cli.serve import ADDRESS, host_names, is_loopback, needing_serve
from fewframes.core.text import count_of
from fewframes.errors import DataError

EVERY_ADDRESS = ("0.0.0.0", "::")
"""The hosts that stand for all addresses of this machine; its name is shown in their place."""


def label(
    sources: VideosArgument,
    project: Annotated[
        Path,
        typer.Option(
            help="Folder of the labels (labels.jsonl), the model and the list. Labels in it are gone on with.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("labels"),
    annotator: Annotated[
        str,
        typer.Option(
            envvar="FEWFRAMES_ANNOTATOR",
            help="Name that stands with each label. The page can change it.",
            show_default="the user's name",
            rich_help_panel=INPUT,
        ),
    ] = "",
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another annotator's labels.jsonl, to be taken in. Give it several times for several.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. 0.0.0.0 lets a phone or other machines connect, with the token in the address.",
            rich_help_panel=ADDRESS,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port to listen on. 0 takes any free one.", rich_help_panel=ADDRESS),
    ] = 8010,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Print the address, and open no browser.", rich_help_panel=ADDRESS),
    ] = False,
    window: Annotated[
        float,
        typer.Option(
            min=0.5, help="Seconds of the shortest windows, about what an action lasts.", rich_help_panel=INPUT
        ),
    ] = 4.0,
    model: ModelOption = "lite0-16",
    cache: CacheOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Label videos in your browser, and see the model learn.

    Each label is on the disk before the page says so. Ctrl-C stops the server; the same command goes on from where it was.

    Exit codes: 0 stopped when told to, 1 no video can be read, 2 wrong use, 4 needs the packages of the extra `serve`.
    """
    with needing_serve("label"):
        from fewframes.label.web.app import PageConfig, create_app
        from fewframes.serve.security import in_address
        from fewframes.serve.server import listen, run_until_told
    from fewframes.inference.predictor import load
    from fewframes.label.session import Session

    videos = named_videos(sources)
    if empty := [path for path in videos if os.path.isdir(path)]:
        raise DataError(f"{empty[0]}: a folder without videos; name one that has some, or the videos themselves")
    # The address is taken before the model is loaded, so that a port that is not free is known at once.
    with closing(listen(host, port)) as listening:
        is_here = is_loopback(listening)
        make_folder(project)
        began = time.perf_counter()
        predictor = load(model, device=device, dtype=dtype, backend="pyav", runtime=runtime)
        tell(f"{describe(predictor)}, loaded in {time.perf_counter() - began:.1f} s")
        session = Session.open(
            videos,
            project,
            predictor,
            model=model,
            cache=embedding_cache(cache, unused=False),
            merge=merge or (),
            window_s=window,
            note=tell,
        )
        with closing(session):
            session.start()
            config = PageConfig(
                project=project.resolve(),
                model=predictor.name,
                annotator=annotator or os.environ.get("USER") or os.environ.get("USERNAME") or "",
                names=host_names(host) if is_here else (),
                token="" if is_here else secrets.token_urlsafe(12),
            )
            app = create_app(session, config)
            shown = platform.node() if host in EVERY_ADDRESS else host
            address = f"http://{in_address(shown)}:{listening.getsockname()[1]}"
            if config.token:
                address += f"/?token={config.token}"
                tell("open to other machines: whoever has the whole address can see the videos and change the labels")
            tell(f"{count_of(len(videos), 'video')}; labels are kept in {project}")
            tell(f"{address} (Ctrl-C stops it)")
            if not no_browser and is_here and has_screen():
                webbrowser.open(address)
            run_until_told(app, listening)
            num_labels = session.state().num_segments
    tell(f"stopped; {count_of(num_labels, 'label')} in {project}")


def has_screen() -> bool:
    """Return True if a browser has a screen to open on. Without one, a browser for terminals would take this one's terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
