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
from typing import Annotated, Literal

import typer

from fewframes.cli.console import tell
from fewframes.cli.heads import describe_all, names_of, open_models
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
from fewframes.core.text import count_of
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, MissingDependency

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
    unknown: UnknownOption = "auto",
    workers: VideosAtOnceOption = None,
    merge: MergeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Answer over HTTP: actions, timelines and embeddings of videos. Has a web page to try it.

    Ctrl-C or SIGTERM stops it: open requests are finished, new ones are refused. A second one ends the open requests, too.

    Exit codes: 0 stopped when told to, 2 wrong use, 3 stopped before every open request was answered, 4 needs the packages of
    the extra `serve`.
    """
    if root is not None and not root.is_dir():
        raise ConfigError(f"--root {root}: no such folder; name one that exists")
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
        names_of(model),
        device=device,
        dtype=dtype,
        backend="pyav",
        merge=merge,
        runtime=runtime,
        unknown=unknown_of(unknown),
    )
    tell(f"{describe_all(models)}, loaded in {time.perf_counter() - began:.1f} s")
    app = create_app(models, config)
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
