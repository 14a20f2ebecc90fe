"""`fewframes timeline`: what happens when, in long videos. A part of the command line."""

from __future__ import annotations

import time
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
    frame_counts,
    make_folder,
    named_videos,
)
from fewframes.core.files import check_not_read, write_file, writing
from fewframes.core.text import json_line, plain
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, FewframesError

SHOWN_FRAMES = 9
"""Spans, the surest, that have a frame in the picture."""

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.timeline import Timeline


def timeline(
    sources: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Videos, folders, globs, URLs.")],
    model: ModelOption = "lite0-16",
    window: Annotated[float, typer.Option(help="Seconds of the shortest windows, about what an action lasts.")] = 4.0,
    lengths: Annotated[str, typer.Option(help="Windows of so many times that length, e.g. 1,2,4.")] = "1,2",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Confidence below which nothing is said to happen.")
    ] = 0.8,
    start: StartOption = 0.0,
    end: EndOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a video on standard output.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output, a row for each span.")] = False,
    vtt: Annotated[Path | None, typer.Option(help="Subtitles (WebVTT) that name what happens, into this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of frames, spans and scores over time, into this PNG file.")
    ] = None,
    thumbnails: Annotated[
        Path | None,
        typer.Option(help="Folder for a frame of each span, index.json, and a page that jumps to the moment."),
    ] = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Find what happens when in long videos.

    Each frame is encoded once and kept, so that a sweep that was interrupted goes on, and other windows cost seconds.
    Exit codes: 0 done, 1 the one video given failed, 2 wrong use, 3 some of many failed or parts could not be decoded.
    """
    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from fewframes.core.settings import settings_from
    from fewframes.inference.predictor import load
    from fewframes.inference.timeline import CSV_COLUMNS, TimelineConfig, sweep

    config = settings_from(
        TimelineConfig,
        {"window_s": window, "lengths": frame_counts(lengths, "--lengths"), "threshold": threshold},
        "timeline",
    )
    paths = named_videos(sources)
    if len(paths) != 1 and (vtt or plot or thumbnails):
        raise typer.BadParameter(f"--vtt, --plot and --thumbnails are of one video, and {len(paths)} are given")
    check_outputs(vtt, plot, thumbnails)
    for file in filter(None, (vtt, plot)):
        check_not_read(file, paths)
    predictor = load(model, device=device, dtype=dtype, backend=backend, merge=merge)
    tell(describe(predictor))
    store = embedding_cache(cache, unused=no_cache)
    if as_csv:
        typer.echo(",".join(CSV_COLUMNS))
    all_whole = True
    for path in paths:
        began = time.perf_counter()
        try:
            with StageProgress() as progress:
                found = sweep(predictor, path, config, cache=store, start_s=start, end_s=end, progress=progress.show)
        except FewframesError as error:
            if len(paths) == 1:
                raise
            tell(f"failed: {error}")
            all_whole = False
            continue
        all_whole = all_whole and not found.gaps
        show(found, "json" if json else "csv" if as_csv else "table", time.perf_counter() - began)
        write_files(found, vtt, plot, thumbnails)
    if not all_whole:
        raise typer.Exit(EXIT_SOME_FAILED)


def check_outputs(vtt: Path | None, plot: Path | None, thumbnails: Path | None) -> None:
    """That what is asked for can be written, before minutes of work."""
    if plot is not None and plot.suffix != ".png":
        raise ConfigError(f"--plot {plot}: needs a name that ends in .png")
    for file, option in ((vtt, "--vtt"), (plot, "--plot")):
        if file is not None:
            check_writable(file, option)
    if thumbnails is not None:
        make_folder(thumbnails)


def show(found: Timeline, form: Literal["json", "csv", "table"], seconds: float) -> None:
    """The spans on standard output; what was left out, and how long it took, for people."""
    if form == "json":
        typer.echo(json_line(found.to_dict()))
    elif form == "csv":
        typer.echo(found.to_csv(header=False), nl=False)
    else:
        print_spans(found)
    for gap in found.gaps:
        tell(f"left out: {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    num_frames = len(found.times_s)
    kept = num_frames - found.num_encoded - found.num_missing
    tell(f"{len(found.spans)} spans; {num_frames} frames, {kept} of them kept from before, in {seconds:.1f} s")


def print_spans(found: Timeline) -> None:
    """For people: a line for each span."""
    from fewframes.inference.spans import clock

    width = max((len(plain(span.label)) for span in found.spans), default=0)
    full = "█" if speaks_unicode() else "#"
    lines = [
        f"  {clock(span.start_s):>8} - {clock(span.end_s):<8} {span.length_s:6.1f} s  {plain(span.label):<{width}} "
        f"{span.confidence:6.1%}  {full * round(20 * span.confidence)}"
        for span in found.spans
    ]
    print_lines([found.source, *(lines or [f"  nothing above {found.threshold:.0%}"])])


def write_files(found: Timeline, vtt: Path | None, plot: Path | None, thumbnails: Path | None) -> None:
    """Subtitles, the picture, and the folder of thumbnails; frames for people are read again from the video."""
    if vtt is not None:
        write_file(vtt, found.to_vtt())
    if plot is not None:
        write_plot(found, plot)
    if thumbnails is not None:
        write_thumbnails(found, thumbnails)


def write_plot(found: Timeline, plot: Path) -> None:
    """The picture, with frames of the surest spans, in the order of time."""
    from fewframes.viz.charts import timeline_png
    from fewframes.viz.thumbnails import middle_frames

    surest = sorted(found.spans, key=lambda span: -span.confidence)[:SHOWN_FRAMES]
    shown = sorted(surest, key=lambda span: span.start_s)
    write_file(plot, timeline_png(found, shown, list(middle_frames(found.source, shown))))


def write_thumbnails(found: Timeline, folder: Path) -> None:
    """A JPEG of each span, an index of them, and a page on which they lead into the video."""
    from fewframes.core.storage import is_address
    from fewframes.viz.thumbnails import jpeg, middle_frames
    from fewframes.viz.timeline import timeline_page

    with writing(folder):
        for former in folder.glob("[0-9][0-9][0-9][0-9].jpg"):
            former.unlink(missing_ok=True)
    names = [f"{number:04d}.jpg" for number in range(1, len(found.spans) + 1)]
    for name, frame_CHW in zip(names, middle_frames(found.source, found.spans), strict=True):
        write_file(folder / name, jpeg(frame_CHW))
    index = [{"file": name, **span.to_dict()} for name, span in zip(names, found.spans, strict=True)]
    write_file(folder / "index.json", json_line(index, indent=1) + "\n")
    video = found.source if is_address(found.source) else Path(found.source).resolve().as_uri()
    page = timeline_page(found, video, names)
    write_file(folder / "index.html", page)
    tell(f"{len(names)} thumbnails; open {folder / 'index.html'} to jump to a moment")
