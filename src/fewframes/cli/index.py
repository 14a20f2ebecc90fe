"""`fewframes index`: make and keep up an index of the moments in many videos, for `fewframes search`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.changes import ConfidenceOption, Form, PageOption, check_page, comparison, finish, form_of
from fewframes.cli.console import StageProgress, describe, tell, tell_failures
from fewframes.cli.engine import RayWorkersOption, check_workers
from fewframes.cli.options import (
    INPUT,
    LARGE_RUNS,
    BackendOption,
    CacheOption,
    CsvOption,
    DeviceOption,
    DtypeOption,
    IndexOption,
    IndexStillOption,
    JsonOption,
    MergeOption,
    ModelOption,
    NoCacheOption,
    RuntimeOption,
    embedding_cache,
    named_videos,
)
from fewframes.core.text import count_of
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, DataError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.core.cache import EmbeddingCache
    from fewframes.inference.detection.changes import ChangesConfig
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.timeline import SpanMethod
    from fewframes.search.index import Index
    from fewframes.search.writing import AddSummary

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
    relabel: Annotated[
        str | None,
        typer.Option(
            metavar="INDEX",
            help="Take the videos of this older index, and their cached frame embeddings, and print which moments have another "
            "label with --model. No video is read.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    model: ModelOption = "lite0-16",
    window: Annotated[
        float | None,
        typer.Option(
            help="Seconds of a window, about what a moment lasts.",
            show_default="the index's own, else 4, or with learned spans what the detector needs",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            help="Seconds from the start of a window to the start of the next.",
            show_default="the index's own, else 2, or with learned spans half a window",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    spans: Annotated[
        Literal["auto", "learned", "windows"],
        typer.Option(
            help="What is indexed. learned: windows, and the spans that the model's detector (`train --boundaries`) finds. "
            "windows: these alone. auto: what the index has; in a new one, spans too if the model has a detector and the "
            "windows suit it.",
            rich_help_panel=WINDOWS,
        ),
    ] = "auto",
    embedding: Annotated[
        Literal["video", "frames", "both"] | None,
        typer.Option(
            help="What a window is compared by: its video embedding, the mean of its frame embeddings, or both.",
            show_default="video",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            "--words",
            metavar="NAME|FOLDER",
            help="Keep a vector by this image-text encoder beside each of the model's, so that `search --text` finds moments by "
            "words: clip:ARCHITECTURE/TAG of open_clip, such as clip:PE-Core-B-16/meta, or a folder. Frames are decoded once for "
            "both. Give it when the index is made, later only if the encoder has been moved.",
            show_default="the index's own, if it has one",
            rich_help_panel=WINDOWS,
        ),
    ] = None,
    json: JsonOption = False,
    as_csv: CsvOption = False,
    changes_page: PageOption = None,
    least_change: ConfidenceOption = 0.1,
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
    workers: RayWorkersOption = None,
) -> None:
    """Make moments of many videos searchable with `fewframes search`.

    Videos that are in the index already are skipped, and changed ones are replaced.
    An interrupted run continues where it stopped.
    With --relabel the index is made from an older one and a new model, and what changed is printed.

    Exit codes: 0 done, 1 the one video given failed, 2 wrong use, 3 some of many failed or parts could not be decoded.
    """
    if not (sources or remove or prune or relabel):
        raise typer.BadParameter("name videos to index, or --remove VIDEO, or --prune, or --relabel INDEX")
    form = form_of(json=json, as_csv=as_csv)
    check_relabel(
        relabel,
        {
            "VIDEO": bool(sources),
            "--remove": bool(remove),
            "--prune": prune,
            "--window": window is not None,
            "--hop": hop is not None,
            "--embedding": embedding is not None,
            "--still": still is not None,
            "--no-cache": no_cache,
            "--engine ray": engine == "ray",
        },
        form,
        changes_page,
    )
    on_ray = check_engine(engine, workers)
    from fewframes.inference.predictor import load
    from fewframes.results import tally
    from fewframes.search.index import Index
    from fewframes.search.ray import EncodeOnRay
    from fewframes.search.rows import WindowJob

    store = embedding_cache(cache, unused=no_cache)
    if relabel is not None and store is not None:
        predictor = load(model, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime)
        tell(describe(predictor))
        config = comparison(0.0, least_change)
        relabel_index(relabel, where, predictor, store, config, form, changes_page, spans, words)
        return
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
    there = Index.open(
        where, predictor, window_s=window, hop_s=hop, embedding=embedding, still=still, spans=spans, words=words
    )
    if there.settings.words is not None:
        tell(f"with words, by {there.settings.words.encoder}")
    encode = None
    if on_ray:
        folder = None if store is None else store.folder
        job = WindowJob(
            model=model,
            settings=there.settings,
            device=device,
            dtype=dtype,
            backend=backend,
            merge=merge,
            cache=folder,
            words=words,
        )
        encode = EncodeOnRay(job, predictor, workers)
    began = time.perf_counter()
    with StageProgress() as progress:
        added = there.add(paths, cache=store, progress=progress.show, encode=encode)
    tell_failures(added.failures)
    for path, gap in added.gaps:
        tell(f"left out: {path} from {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    tell(
        f"{tally(added.num_added, 'indexed', added.failures)}, {added.num_kept} there already; {rows_in(there, added)} in "
        f"{time.perf_counter() - began:.1f} s, {there.num_rows} in all; "
        f"{count_of(added.num_embedded, 'frame')} embedded, {added.num_reused} reused"
    )
    if added.failures and len(paths) == 1:
        raise typer.Exit(added.failures[0].exit_code)
    if added.failures or not all(gap.is_pause for _, gap in added.gaps):
        raise typer.Exit(EXIT_SOME_FAILED)


def rows_in(there: Index, added: AddSummary) -> str:
    """Return how many windows were added, and how many spans, if the index has them."""
    windows = count_of(added.num_rows - added.num_spans, "window")
    return f"{windows} and {count_of(added.num_spans, 'span')}" if there.settings.spans == "learned" else windows


def check_relabel(relabel: str | None, given: dict[str, bool], form: Form, page: Path | None) -> None:
    """Raise BadParameter for options that do not go with --relabel, or only with it."""
    others = [option for option, is_given in given.items() if is_given]
    if relabel is not None and others:
        raise typer.BadParameter(
            f"--relabel takes the videos, windows and cached embeddings of {relabel}; leave out {', '.join(others)}"
        )
    if relabel is None and (form != "table" or page is not None):
        raise typer.BadParameter("--json, --csv and --changes-page show what --relabel changes; add --relabel INDEX")
    check_page(page, [])


def relabel_index(
    older: str,
    where: str,
    predictor: Predictor,
    store: EmbeddingCache,
    config: ChangesConfig,
    form: Form,
    page: Path | None,
    spans: SpanMethod,
    words: str | None,
) -> None:
    """Make an index from the cached embeddings of an older one, and print what changed. Ends with code 3 if a video failed.

    Args:
        older: The older index.
        where: The new one.
        predictor: The new model.
        store: The cache.
        config: The smallest differences that count.
        form: The form of the output.
        page: The page of changes, if one is wanted.
        spans: What is indexed.
        words: The image-text encoder of the new one; None is that of the older one, if that has one.
    """
    from fewframes.results import tally
    from fewframes.search.index import Index

    former = Index.open(older)
    if os.path.realpath(older) == os.path.realpath(where):
        raise ConfigError(
            f"--relabel {older}: is --index itself; name a new folder, so that the older index stays as it is"
        )
    settings = former.settings
    there = Index.open(
        where,
        predictor,
        window_s=settings.window_s,
        hop_s=settings.hop_s,
        embedding=settings.embedding,
        still=settings.still,
        spans=spans,
        words=words or settings.words,
    )
    began = time.perf_counter()
    with StageProgress() as progress:
        added = there.relabel(former, cache=store, progress=progress.show)
    seconds = time.perf_counter() - began
    some_failed = finish(there.changes_since(former, config, failures=added.failures), form, page)
    labels, taught = former.taught(), there.taught()
    words = f", {len(set(labels) & set(taught))} of {count_of(len(labels), 'taught label')}" if labels else ""
    tell(
        f"{tally(added.num_added, 'relabelled', added.failures)}, {added.num_kept} there already; "
        f"{rows_in(there, added)} in {seconds:.1f} s, no video read{words}; {where}"
    )
    if some_failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def check_engine(engine: Literal["local", "ray"], workers: int | None) -> bool:
    """Return True if the engine is Ray. Raises MissingDependency without Ray, and BadParameter for workers without it."""
    check_workers(engine, workers)
    if engine == "ray":
        from fewframes.batch.ray import check_ray

        check_ray()
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
