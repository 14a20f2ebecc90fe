"""`fewframes index` and `fewframes search`: moments like a moment, among many videos. A part of the command line."""

from __future__ import annotations

import csv
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, describe, print_lines, speaks_unicode, tell
from fewframes.cli.options import (
    BackendOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    EndOption,
    MergeOption,
    ModelOption,
    NoCacheOption,
    StartOption,
    check_writable,
    embedding_cache,
    named_videos,
)
from fewframes.core.files import check_not_read, write_file
from fewframes.core.text import for_csv, json_line
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, DataError, VideoError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.search.index import Index
    from fewframes.search.table import Hit

IndexOption = Annotated[
    str, typer.Option("--index", metavar="FOLDER|URL", help="Where the index is, e.g. moments or s3://bucket/moments.")
]


def index(
    where: IndexOption,
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[VIDEO...]", help="Videos, folders, globs, URLs.")
    ] = None,
    model: ModelOption = "lite0-16",
    window: Annotated[float | None, typer.Option(help="Seconds of a window; default: the index's own, else 4.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds from window to window; default: likewise, else 2.")] = None,
    embedding: Annotated[
        Literal["video", "frames", "both"] | None,
        typer.Option(
            help="What stands for a window: the video embedding, the mean of its frames', both.", show_default="video"
        ),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="Forget this video (again for each); folders and globs too.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Forget videos whose files are gone.")] = False,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Who looks at the videos: this process, or Ray's workers.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of --engine ray; default: one a core, or a GPU.")
    ] = None,
) -> None:
    """Keep embeddings of all moments of videos, to be searched with `fewframes search`.

    Videos that are in the index already are skipped, changed ones replaced; what was interrupted goes on where it stopped.
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
        removed = there.remove(_in_index(there, remove or [])) + (there.prune() if prune else 0)
        tell(f"{removed} videos forgotten, {len(there.videos())} left")
    if not paths:
        return
    predictor = load(model, device="cpu" if on_ray else device, dtype=dtype, backend=backend, merge=merge)
    tell(f"{model} on Ray" if on_ray else describe(predictor))
    there = Index.open(where, predictor, window_s=window, hop_s=hop, embedding=embedding)
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
    for failure in added.failures:
        tell(f"failed: {failure.error}")
    for path, gap in added.gaps:
        tell(f"left out: {path} from {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    tell(
        f"{tally(added.num_added, 'indexed', added.failures)}, {added.num_kept} there already; {added.num_rows} windows in "
        f"{time.perf_counter() - began:.1f} s, {there.num_rows} in all"
    )
    if added.failures and len(paths) == 1:
        raise typer.Exit(added.failures[0].exit_code)
    if added.failures or added.gaps:
        raise typer.Exit(EXIT_SOME_FAILED)


def search(
    where: IndexOption,
    video: Annotated[str | None, typer.Argument(metavar="[VIDEO]", help="Find moments like this video.")] = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    label: Annotated[
        str | None, typer.Option(help="Find moments of a label: the model's, or one that was taught.")
    ] = None,
    like: Annotated[str | None, typer.Option(metavar="ID", help="Find moments like this one, found before.")] = None,
    condition: Annotated[
        str,
        typer.Option("--where", metavar="SQL", help="Only rows like this, e.g. \"label = 'kick' AND score > 0.5\"."),
    ] = "",
    videos: Annotated[
        str, typer.Option("--videos", metavar="GLOB", help="Only videos with such a path, e.g. '*/2024/*'.")
    ] = "",
    num: Annotated[int, typer.Option(min=1, max=4096, help="Moments to find.")] = 20,
    distinct: Annotated[bool, typer.Option("--distinct", help="One moment of each video.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="A page with a frame of each moment, where a click plays it, into this HTML file."),
    ] = None,
    teach: Annotated[
        str | None, typer.Option(metavar="NAME", help="Teach this label from --yes and --no, and search for it.")
    ] = None,
    yes: Annotated[
        str, typer.Option(metavar="1,4,ID", help="Numbers of this search's results, or ids, that show it.")
    ] = "",
    no: Annotated[str, typer.Option(metavar="2,3,ID", help="Those that do not show it.")] = "",
    model: Annotated[str | None, typer.Option(help="The model, where the index's own now has another name.")] = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Find moments like a moment, or of a label; teach a label from a few of them.

    Exit codes: 0 done (also when nothing was found), 1 it cannot be searched, 2 wrong use.
    """
    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    check_asked([video, label, like], teach, yes + no)
    if page is not None:
        check_writable(page, "--page")
        check_not_read(page, [] if video is None else [video])
    from fewframes.inference.predictor import load
    from fewframes.search.index import Index

    there = Index.open(where)
    if video is not None:
        named, merge = model or there.settings.model, there.settings.merge
        there = Index.open(where, load(named, device=device, dtype=dtype, backend=backend, merge=merge))
    began = time.perf_counter()
    query = there.moment(video, start, end) if video is not None else label if like is None else there.row(like)
    found: tuple[Hit, ...] = ()
    if query is not None:
        found = there.search(query, where=condition, videos=videos, num=num, distinct=distinct)
    if teach is not None:
        teach_label(there, teach, _ids(yes, found), _ids(no, found))
        found = there.search(teach, where=condition, videos=videos, num=num, distinct=distinct)
    show(found, "json" if json else "csv" if as_csv else "table")
    tell(f"{len(found)} of {there.num_rows} moments in {time.perf_counter() - began:.2f} s")
    if page is not None:
        title = teach or label or (f"like {like}" if like else f"like {Path(str(video)).name}")
        write_page(found, title, page)


def check_engine(engine: Literal["local", "ray"], workers: int | None) -> bool:
    """Whether it is Ray, which then is there."""
    if engine == "ray":
        from fewframes.batch.ray import check_ray

        check_ray()
    elif workers is not None:
        raise typer.BadParameter("--workers are those of --engine ray")
    return engine == "ray"


def check_asked(queries: list[str | None], teach: str | None, examples: str) -> None:
    """That one thing is searched for, and that what is taught has examples."""
    num_asked = sum(query is not None for query in queries)
    if num_asked > 1 or (not num_asked and teach is None):
        raise typer.BadParameter("name one thing to search for: a VIDEO, --label NAME or --like ID (or --teach NAME)")
    if (teach is None) != (not examples):
        raise typer.BadParameter("--teach NAME goes with --yes and --no, which name examples")


def teach_label(there: Index, name: str, yes: list[str], no: list[str]) -> None:
    """Teach it, and say from what."""
    taught = there.teach(name, yes, no)
    gone = f", {taught.num_gone} former examples are gone" if taught.num_gone else ""
    tell(f"{name!r} taught from {len(taught.yes)} that show it and {len(taught.no)} that do not{gone}")


def show(found: tuple[Hit, ...], form: Literal["json", "csv", "table"]) -> None:
    """The moments on standard output."""
    if form == "json":
        for hit in found:
            typer.echo(json_line(hit.to_dict()))
    elif form == "csv":
        from fewframes.search.table import Hit

        writer = csv.DictWriter(sys.stdout, [column.name for column in fields(Hit)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: for_csv(cell) for name, cell in hit.to_dict().items()} for hit in found)
    else:
        from fewframes.inference.spans import clock

        full = "█" if speaks_unicode() else "#"
        print_lines(
            [
                f"{number:>4}  {hit.similarity:6.3f} {full * round(10 * max(0.0, hit.similarity)):<10}  {clock(hit.start_s):>8} - "
                f"{clock(hit.end_s):<8} {hit.label} {hit.score:.0%}  {hit.source}  [{hit.id}]"
                for number, hit in enumerate(found, 1)
            ]
            or ["nothing found"]
        )


def write_page(found: tuple[Hit, ...], title: str, page: Path) -> None:
    """The page, with frames that are read again from the videos; of those that cannot be read none is shown."""
    from fewframes.inference.spans import Span
    from fewframes.search.page import search_page
    from fewframes.viz.thumbnails import jpeg, middle_frames

    pictures: dict[str, bytes] = {}
    for source in dict.fromkeys(hit.source for hit in found):
        own = [hit for hit in found if hit.source == source]
        spans = [Span(hit.start_s, hit.end_s, hit.label) for hit in own]
        try:
            for hit, frame_CHW in zip(own, middle_frames(source, spans), strict=True):
                pictures[hit.id] = jpeg(frame_CHW)
        except VideoError as error:
            tell(f"no pictures: {error}")
    write_file(page, search_page(title, found, pictures))
    tell(f"open {page} to see and play them")


def _ids(text: str, found: tuple[Hit, ...]) -> list[str]:
    """Ids of rows from ids and numbers of results."""
    ids = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not part.isdecimal():
            ids.append(part)
        elif 1 <= int(part) <= len(found):
            ids.append(found[int(part) - 1].id)
        else:
            raise ConfigError(
                f"{part}: no such result, there are {len(found)}; numbers are those of the same search without --teach"
            )
    return ids


def _in_index(there: Index, named: list[str]) -> list[str]:
    """The videos that these names stand for: themselves, or what lies below them, whether the files are still there or not."""
    import fnmatch

    from fewframes.data.lists import absolute

    paths, found = there.videos(), []
    for name in named:
        whole = absolute(name)
        below = [path for path in paths if path.startswith(f"{whole}/") or fnmatch.fnmatchcase(path, whole)]
        if whole not in paths and not below:
            raise DataError(f"{name}: not in the index {there.url}, which has {len(paths)} videos")
        found += [whole] if whole in paths else below
    return found
