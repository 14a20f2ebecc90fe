"""`fewframes mcp`: let agents ask about videos, over the Model Context Protocol."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewframes.cli.console import tell
from fewframes.cli.heads import describe_all, names_of, open_models, predictors_of
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
    make_folder,
    unknown_of,
)
from fewframes.errors import needed

if TYPE_CHECKING:
    from fewframes.runtime.open import RuntimeName
    from fewframes.runtime.protocol import DtypeName
    from fewframes.search.index import Index
    from fewframes.serve.config import ServeConfig
    from fewframes.serve.mcp.tools import Clips


def mcp(
    root: Annotated[
        list[Path],
        typer.Option(
            help="Folder whose videos agents may have read. Give it several times for several. Links out of it are refused.",
            rich_help_panel=ACCESS,
        ),
    ],
    index: Annotated[
        str | None,
        typer.Option(help="Index of `fewframes index` that agents may search.", rich_help_panel=ACCESS),
    ] = None,
    allow_teach: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Let agents teach models, which are written to this folder. Without it nothing is written.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    max_mb: MaxMbOption = 256,
    max_seconds: MaxSecondsOption = 900,
    max_megapixels: MaxMegapixelsOption = 9,
    timeout_s: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds for a call, with its time in the queue.", rich_help_panel=LIMITS),
    ] = 120,
    model: ModelsOption = None,
    unknown: UnknownOption = "auto",
    workers: VideosAtOnceOption = None,
    merge: MergeOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Let agents ask about videos, over the Model Context Protocol: actions, timelines, counts and search.

    An agent's program starts this command, and talks to it on standard input and output. It ends when that program closes them, and
    at Ctrl-C or SIGTERM.
    Agents read videos below the roots alone, and fetch nothing.

    Exit codes: 0 ended by the client, 1 the model or the index cannot be used, 2 wrong use, 4 needs the extra `mcp`.
    """
    needed("mcp", "mcp", "fewframes mcp needs the Model Context Protocol's package")
    import asyncio

    from fewframes.core.settings import settings_from
    from fewframes.inference.predictor import load
    from fewframes.serve.config import ServeConfig
    from fewframes.serve.mcp.models import ServedModels
    from fewframes.serve.mcp.roots import Roots
    from fewframes.serve.mcp.server import create_server, run_on_stdio
    from fewframes.serve.mcp.tools import VideoTools
    from fewframes.serve.service import Service

    limits = {"max_mb": max_mb, "max_seconds": max_seconds, "max_megapixels": max_megapixels, "timeout_s": timeout_s}
    config = settings_from(ServeConfig, {**limits, "workers": workers or 0}, "mcp")
    roots = Roots(root, config.max_bytes)
    if allow_teach is not None:
        make_folder(allow_teach)
    began = time.perf_counter()
    with _nothing_on_stdout():  # the client takes whatever stands there for the protocol
        loaded = open_models(
            names_of(model),
            device=device,
            dtype=dtype,
            backend="pyav",
            merge=merge,
            runtime=runtime,
            unknown=unknown_of(unknown),
        )
        searched = None if index is None else open_index(index, config, device=device, dtype=dtype, runtime=runtime)
    tell(f"{describe_all(loaded)}, loaded in {time.perf_counter() - began:.1f} s")
    service = Service(loaded, config)
    open_taught = partial(
        load, device=device, dtype=dtype, backend="pyav", runtime=runtime, unknown=unknown_of(unknown)
    )
    models = ServedModels(service, config, allow_teach, open_taught)
    start = predictors_of(loaded)[0].name
    teacher = partial(teach_clips, start=start, device=device, dtype=dtype)
    tools = VideoTools(models, roots, config, searched, allow_teach, teacher)
    server = create_server(tools.by_name(), service)
    tell(f"reads {', '.join(map(str, roots.folders))}; " + _written(allow_teach))
    # Python's own handler would wait for the thread that reads standard input, which waits for the client.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(run_on_stdio(server))
    is_busy = service.num_inside > 0
    service.close()
    if is_busy:  # threads still work for the client that is gone, and Python would wait for them
        sys.stderr.flush()
        os._exit(0)


def _written(folder: Path | None) -> str:
    return "writes nothing" if folder is None else f"writes taught models to {folder}"


def open_index(url: str, config: ServeConfig, *, device: str, dtype: DtypeName, runtime: RuntimeName) -> Index:
    """Open an index with its own model, which reads videos up to the limits of the server."""
    from fewframes.inference.predictor import load
    from fewframes.search.index import Index

    settings = Index.open(url).settings
    predictor = load(settings.model, device=device, dtype=dtype, backend="pyav", merge=settings.merge, runtime=runtime)
    return Index.open(url, predictor.with_runtime(predictor.runtime, config.limits))


def teach_clips(
    folder: Path,
    yes: Mapping[str, Clips],
    no: Mapping[str, Clips],
    forget: Clips,
    remove: Sequence[str],
    rename: Mapping[str, str],
    progress: Any,
    *,
    start: str,
    device: str,
    dtype: DtypeName,
) -> dict[str, object]:
    """Teach the model in a folder, and return what it knows then as plain values. A new one starts from the model `start`.

    `progress` is called with the examples that are embedded and their number; what it raises ends the teaching.
    """
    from fewframes.data.samples import Sample
    from fewframes.training.teaching.changes import TeachChanges
    from fewframes.training.teaching.teach import TeachOptions, teach

    def samples(clips: Clips) -> list[Sample]:
        return [Sample(path=path, labels=(), start_s=start_s, end_s=end_s) for path, start_s, end_s in clips]

    def show(stage: str, done: int, total: int, _: str) -> None:
        if stage == "embedding":  # later the model is being written, which must not end halfway
            progress(done, total)

    changes = TeachChanges(
        yes={label: samples(clips) for label, clips in yes.items()},
        no={label: samples(clips) for label, clips in no.items()},
        forget=samples(forget),
        remove=remove,
        rename=rename,
    )
    command = shlex.join(["fewframes", *sys.argv[1:]])
    found = teach(folder, changes, TeachOptions(start=start, device=device, dtype=dtype, command=command), show)
    return {
        "labels": list(found.labels),
        "examples": found.examples,
        "new": found.num_new,
        "left_out_examples": list(found.read_out.report.lines()),
        "tells_unknown": found.has_judge,
        "notes": list(found.notes),
    }


@contextmanager
def _nothing_on_stdout() -> Iterator[None]:
    """Send what libraries write to standard output to standard error, native ones too."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
