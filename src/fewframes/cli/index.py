"""`fewframes index`: make and keep up an index of the moments in many videos, for `fewframes search`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, describe, tell, tell_failures
from fewframes.cli.options import (
    INPUT,
    LARGE_RUNS,
    BackendOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    IndexOption,
    IndexStillOption,
    MergeOption,
    ModelOption,
    NoCacheOption,
    RuntimeOption,
    embedding_cache,
    named_videos,
)
from fewframes.core.text import count_of
from fewframes.errors import EXIT_SOME_FAILED, DataError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.search.index import Index

WINDOWS = "Windows"


def index(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[VIDEO...]", help="Videos, folders, globs or URLs to add.")
    ] = None,
    *,
    where: IndexOption,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            help="Remove this video, folder or glob from the index. May be given several times.", rich_help_panel=INPUT
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove videos whose files are gone.", rich_help_panel=INPUT)
    ] = False,
    model: ModelOption = "lite0-16",
    window: Annotated[
        float | None,
        typer.Option(
            help="Seconds of a window, about what a moment lasts.",
            show_default="the index's own, else 4",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            help="Seconds from the start of a window to the start of the next.",
            show_default="the index's own, else 2",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    embedding: Annotated[
        Literal["video", "frames", "both"] | None,
        typer.Option(
            help="What a window is compared by: its video embedding, the mean of its frame embeddings, or both.",
            show_default="video",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    still: IndexStillOption = None,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Where the videos are encoded: local is this process, ray is many processes or machines.",
            rich_help_panel=LARGE_RUNS,
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes of --engine ray.",
            show_default="one per core, or per GPU",
            rich_help_panel=LARGE_RUNS,
        ),
    ] = None,
) -> None:
    """Make moments of many videos searchable with `fewframes search`.

    Videos that are in the index already are skipped, and changed ones are replaced.
    An interrupted run continues where it stopped.

    Exit codes: 0 done, 1 the one video given failed, 2 wrong use, 3 some of many failed or parts could not be decoded.
    """
    if not (sources or remove or prune):
        raise typer.BadParameter("name videos to index, or --remove VIDEO, or --prune")
    on_ray = check_engine(engine, workers)
    from fewframes.inference.predictor import load
    from fewframes.results import tally
    from fewframes.search.index import Index
    from fewframes.search.ray import EncodeOnRay
    from fewframes.search.rows import WindowJob

    paths = named_videos(sources) if sources else []
    if remove or prune:
        there = Index.open(where)
        removed = there.remove(_indexed_videos(there, remove or [])) + (there.prune() if prune else 0)
        tell(f"{count_of(removed, 'video')} forgotten, {len(there.videos())} left")
    if not paths:
        return
    predictor = load(
        model, device="cpu" if on_ray else device, dtype=dtype, backend=backend, merge=merge, runtime=runtime
    )
    tell(f"{model} on Ray" if on_ray else describe(predictor))
    there = Index.open(where, predictor, window_s=window, hop_s=hop, embedding=embedding, still=still)
    store = embedding_cache(cache, unused=no_cache)
    encode = None
    if on_ray:
        folder = None if store is None else store.folder
        job = WindowJob(
            model=model, settings=there.settings, device=device, dtype=dtype, backend=backend, merge=merge, cache=folder
        )
        encode = EncodeOnRay(job, predictor, workers)
    began = time.perf_counter()
    with StageProgress() as progress:
        added = there.add(paths, cache=store, progress=progress.show, encode=encode)
    tell_failures(added.failures)
    for path, gap in added.gaps:
        tell(f"left out: {path} from {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    windows = count_of(added.num_rows, "window")
    tell(
        f"{tally(added.num_added, 'indexed', added.failures)}, {added.num_kept} there already; {windows} in "
        f"{time.perf_counter() - began:.1f} s, {there.num_rows} in all; "
        f"{count_of(added.num_embedded, 'frame')} embedded, {added.num_reused} reused"
    )
    if added.failures and len(paths) == 1:
        raise typer.Exit(added.failures[0].exit_code)
    if added.failures or added.gaps:
        raise typer.Exit(EXIT_SOME_FAILED)


def check_engine(engine: Literal["local", "ray"], workers: int | None) -> bool:
    """Return True if the engine is Ray. Raises MissingDependency without Ray, and BadParameter for workers without it."""
    if engine == "ray":
        from fewframes.batch.ray import check_ray

        check_ray()
    elif workers is not None:
        raise typer.BadParameter("--workers is an option of --engine ray; leave it out, or add --engine ray")
    return engine == "ray"


def _indexed_videos(there: Index, named: list[str]) -> list[str]:
    """Return the indexed videos that these paths, folders and globs name; their files may be gone.

    Raises DataError for a name that matches no video of the index.
    """
    import fnmatch

    from fewframes.data.samples import absolute

    paths, found = there.videos(), []
    for name in named:
        whole = absolute(name)
        below = [path for path in paths if path.startswith(f"{whole}/") or fnmatch.fnmatchcase(path, whole)]
        if whole not in paths and not below:
            raise DataError(f"{name}: not in the index {there.url}, which has {count_of(len(paths), 'video')}")
        found += [whole] if whole in paths else below
    return found
