"""`fewframes serve`: answers over HTTP, and a page to try it. A part of the command line."""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewframes.cli.console import describe, tell
from fewframes.cli.options import DeviceOption, DtypeOption, MergeOption, ModelOption
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, MissingDependency

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""What this machine is called by its own browsers."""
PACKAGES = ("fastapi", "httpx2", "multipart", "prometheus_client", "python_multipart", "starlette", "uvicorn")


def serve(
    model: ModelOption = "lite0-16",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    root: Annotated[Path | None, typer.Option(help="Folder of the videos that requests may name by path.")] = None,
    allow_urls: Annotated[
        Literal["none", "public", "any"],
        typer.Option(help="Addresses that requests may name; any: those of this machine and its network too."),
    ] = "none",
    token: Annotated[
        str, typer.Option(envvar="FEWFRAMES_TOKEN", help="What requests must show (Authorization: Bearer ...).")
    ] = "",
    max_mb: Annotated[float, typer.Option(min=0.001, help="Megabytes of a video.")] = 256,
    max_seconds: Annotated[float, typer.Option(min=0.001, help="Seconds of a video.")] = 900,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Million pixels of a frame (4K: 8.3).")] = 9,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds for a request, upload and waiting too.")] = 120,
    max_waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are refused (429).")] = 16,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos worked on at a time.", show_default="two a core")
    ] = None,
    stop_s: Annotated[
        float, typer.Option(min=0, help="Seconds for what is inside when told to stop; then it gets 503.")
    ] = 30,
    merge: MergeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Answer over HTTP: what happens in a video, when, and embeddings; with a page to try it.

    Ctrl-C or SIGTERM: what is inside is finished, what is new refused; a second one: what is inside too, now. Exit codes:
    0 stopped when told to, 2 wrong use, 3 stopped before everything inside was answered, 4 needs the packages of the extra `serve`.
    """
    if root is not None and not root.is_dir():
        raise ConfigError(f"--root {root}: no such folder; name one")
    try:
        from fewframes.serve.app import create_app, listen, run
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in PACKAGES:
            raise
        raise MissingDependency(f"serve needs {error.name}; pip install 'fewframes[serve]'") from None
    from fewframes.core.settings import settings_from
    from fewframes.inference.predictor import load
    from fewframes.serve.security import in_address
    from fewframes.serve.service import ServeConfig

    listening = listen(host, port)
    is_here = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    values = {
        "root": None if root is None else str(root),
        "urls": allow_urls,
        "token": token,
        "names": tuple(dict.fromkeys((*LOOPBACK, host.lower().removesuffix(".")))) if is_here and not token else (),
        "max_mb": max_mb,
        "max_seconds": max_seconds,
        "max_megapixels": max_megapixels,
        "timeout_s": timeout_s,
        "max_waiting": max_waiting,
        "workers": workers or 0,
    }
    config = settings_from(ServeConfig, values, "serve")
    began = time.perf_counter()
    predictor = load(model, device=device, dtype=dtype, backend="pyav", merge=merge)
    tell(f"{describe(predictor)}, loaded in {time.perf_counter() - began:.1f} s")
    app = create_app(predictor, config)
    if not is_here and not token:
        tell("warning: no token, so anybody who reaches this address may ask; set FEWFRAMES_TOKEN")
    tell(f"http://{in_address(host)}:{listening.getsockname()[1]} (Ctrl-C stops it)")
    num_cut = run(app, listening, stop_s=stop_s, leave=os._exit)
    until = f"within --stop-s {stop_s:g}, or before a second signal"
    tell(f"stopped; not answered {until}: {num_cut} requests" if num_cut else "stopped")
    code = EXIT_SOME_FAILED if num_cut else 0
    if app.state.service.num_inside:  # Python would wait for threads that work on for nobody
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
