"""`fewframes serve`: answer over HTTP, with a web page to try it."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import tell
from fewframes.cli.heads import describe_all, names_of, open_models
from fewframes.cli.mcp import open_index
from fewframes.cli.options import (
    ACCESS,
    LIMITS,
    DeviceOption,
    DtypeOption,
    MaxMbOption,
    MaxMegapixelsOption,
    MaxSecondsOption,
    MergeOption,
    ModelsOption,
    RuntimeOption,
    UnknownOption,
    VideosAtOnceOption,
    unknown_of,
)
from fewframes.cli.words import EncoderOption, LabelsOption, with_words
from fewframes.core.text import count_of
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, FewframesError, MissingDependency

if TYPE_CHECKING:
    from fewframes.search.index import Index
    from fewframes.serve.config import ServeConfig
    from fewframes.serve.moments.search import MomentSearch

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names by which browsers on this machine reach it."""
PACKAGES = ("fastapi", "httpx2", "multipart", "prometheus_client", "python_multipart", "starlette", "uvicorn")
"""The modules of the extra `serve`."""
ADDRESS = "Address"


def serve(
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. 0.0.0.0 lets other machines connect.", rich_help_panel=ADDRESS),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port to listen on. 0 takes any free one.", rich_help_panel=ADDRESS),
    ] = 8000,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder whose videos requests may name by path.", rich_help_panel=ACCESS),
    ] = None,
    allow_urls: Annotated[
        Literal["none", "public", "any"],
        typer.Option(
            help="URLs that requests may name: none, public ones, or any, which includes this machine and its network.",
            rich_help_panel=ACCESS,
        ),
    ] = "none",
    index: Annotated[
        str | None,
        typer.Option(
            help="Index of `fewframes index` that requests and the page may search, with the moments of videos below --root.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="FEWFRAMES_TOKEN",
            help="Secret that requests must send (Authorization: Bearer TOKEN). Prefer the variable: other users of this "
            "machine can see the options of a command.",
            rich_help_panel=ACCESS,
        ),
    ] = "",
    max_mb: MaxMbOption = 256,
    max_seconds: MaxSecondsOption = 900,
    max_megapixels: MaxMegapixelsOption = 9,
    timeout_s: Annotated[
        float,
        typer.Option(
            min=0.1, help="Seconds for a request, with its upload and its time in the queue.", rich_help_panel=LIMITS
        ),
    ] = 120,
    max_waiting: Annotated[
        int,
        typer.Option(min=0, help="Requests that may wait. More are refused (429).", rich_help_panel=LIMITS),
    ] = 16,
    stop_s: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds for open requests to finish once the server is told to stop. After that they get 503.",
            rich_help_panel=LIMITS,
        ),
    ] = 30,
    model: ModelsOption = None,
    labels: LabelsOption = None,
    encoder: EncoderOption = None,
    unknown: UnknownOption = "auto",
    workers: VideosAtOnceOption = None,
    merge: MergeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Answer over HTTP: actions, timelines and embeddings of videos. Has a web page to try it.

    With --index it also searches the moments of many videos.
    Ctrl-C or SIGTERM stops it: open requests are finished, new ones are refused. A second one ends the open requests, too.

    Exit codes: 0 stopped when told to, 2 wrong use, 3 stopped before every open request was answered, 4 needs the packages of
    the extra `serve`.
    """
    if root is not None and not root.is_dir():
        raise ConfigError(f"--root {root}: no such folder; name one that exists")
    if index is not None and root is None:
        raise typer.BadParameter(f"--index {index} needs --root FOLDER: the folder whose videos may be found and shown")
    names = names_of(with_words(model, labels, None if labels is None and index is not None else encoder))
    with needing_serve("serve"):
        from fewframes.serve.app import create_app
        from fewframes.serve.server import listen, run
    from fewframes.core.settings import settings_from
    from fewframes.serve.config import ServeConfig
    from fewframes.serve.security import in_address

    # Listen before the model is loaded: a port that is taken is known at once, and early clients wait instead of failing.
    listening = listen(host, port)
    is_here = is_loopback(listening)
    values = {
        "root": None if root is None else str(root),
        "urls": allow_urls,
        "token": token,
        # A name outside these may be a page's that came to stand for this machine (security.py). With a token, or behind a
        # proxy, the server may have any name.
        "names": host_names(host) if is_here and not token else (),
        "max_mb": max_mb,
        "max_seconds": max_seconds,
        "max_megapixels": max_megapixels,
        "timeout_s": timeout_s,
        "max_waiting": max_waiting,
        "workers": workers or 0,
    }
    config = settings_from(ServeConfig, values, "serve")
    began = time.perf_counter()
    models = open_models(
        names,
        device=device,
        dtype=dtype,
        backend="pyav",
        merge=merge,
        runtime=runtime,
        unknown=unknown_of(unknown),
    )
    tell(f"{describe_all(models)}, loaded in {time.perf_counter() - began:.1f} s")
    search = None
    if index is not None:
        there = open_index(index, config, device=device, dtype=dtype, runtime=runtime)
        search = opened_search(there, config, None if labels else encoder)
    app = create_app(models, config, search)
    if not is_here and not token:
        tell("warning: there is no token, so anybody who reaches this address can use the server; set FEWFRAMES_TOKEN")
    tell(f"http://{in_address(host)}:{listening.getsockname()[1]} (Ctrl-C stops it)")
    num_cut = run(app, listening, stop_s=stop_s, leave=os._exit)
    until = f"within --stop-s {stop_s:g}, or before a second signal"
    tell(f"stopped; not answered {until}: {count_of(num_cut, 'request')}" if num_cut else "stopped")
    code = EXIT_SOME_FAILED if num_cut else 0
    if app.state.service.num_inside:  # threads still work for clients that are gone, and Python would wait for them
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


def opened_search(there: Index, config: ServeConfig, encoder: str | None) -> MomentSearch:
    """Return what searches an index for others, and tell what it can search for. Text is left out if it cannot be understood.

    Args:
        there: The index.
        config: The settings of the server.
        encoder: The name or folder of the image-text encoder of the index, if it has been moved; errors with it are raised.
    """
    from fewframes.serve.moments.search import MomentSearch

    knows_words = there.knows_words or encoder is not None
    if knows_words:
        try:
            there.open_encoder(encoder=encoder)
        except FewframesError as error:
            if encoder is not None:
                raise
            tell(f"warning: words cannot be searched: {error}")
            knows_words = False
    root = os.path.abspath(str(config.root))
    num_below = sum(video.startswith(f"{root}/") for video in there.videos())
    words = "by words, labels and examples" if knows_words else "by labels and examples, not by words"
    tell(f"searches {count_of(num_below, 'video')} of {there.url} below {root}, {words}")
    if not num_below:
        tell("warning: none of the indexed videos lies below --root, so nothing can be found")
    return MomentSearch(there, config, knows_words=knows_words)


@contextmanager
def needing_serve(verb: str) -> Iterator[None]:
    """Turn a missing package of the extra `serve` into an error with the pip line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in PACKAGES:
            raise
        raise MissingDependency(f"{verb} needs {error.name}; pip install 'fewframes[serve]'") from None


def is_loopback(listening: socket.socket) -> bool:
    """Return True if only this machine can connect to a socket."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def host_names(host: str) -> tuple[str, ...]:
    """Return the names under which a server on the loopback may be asked: this machine's, and that of `--host`."""
    return tuple(dict.fromkeys((*LOOPBACK, host.lower().removesuffix("."))))
