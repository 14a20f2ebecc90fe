"""`fewframes timeline`: find which actions happen in long videos, and when."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, print_lines, speaks_unicode, tell, tell_failures
from fewframes.cli.heads import check_alone, describe_all, names_of, open_models
from fewframes.cli.options import (
    OUTPUT,
    BackendOption,
    CacheOption,
    CsvOption,
    DeviceOption,
    DtypeOption,
    EndOption,
    JsonOption,
    MergeOption,
    ModelsOption,
    NoCacheOption,
    RuntimeOption,
    StartOption,
    StillOption,
    UnknownOption,
    VideosArgument,
    check_writable,
    embedding_cache,
    frame_counts,
    make_folder,
    named_videos,
    unknown_of,
)
from fewframes.core.files import check_not_read, write_file, writing
from fewframes.core.text import count_of, json_line, plain
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, FewframesError

DETECTION = "Detection"
SHOWN_FRAMES = 9
"""The most spans that have a frame in the picture of `--plot`; the surest ones."""

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.timeline import Timeline


def timeline(
    sources: VideosArgument,
    start: StartOption = 0.0,
    end: EndOption = None,
    model: ModelsOption = None,
    unknown: UnknownOption = "auto",
    window: Annotated[
        float,
        typer.Option(help="Seconds of the shortest windows, about what an action lasts.", rich_help_panel=DETECTION),
    ] = 4.0,
    lengths: Annotated[
        str,
        typer.Option(
            help="Lengths of the windows as multiples of --window, such as 1,2,4. Long windows find long actions.",
            rich_help_panel=DETECTION,
        ),
    ] = "1,2",
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Confidence that a span needs. Lower ones find more, and more that is wrong.",
            rich_help_panel=DETECTION,
        ),
    ] = 0.8,
    json: JsonOption = False,
    as_csv: CsvOption = False,
    vtt: Annotated[
        Path | None,
        typer.Option(help="Write subtitles (WebVTT) that name the actions to this file.", rich_help_panel=OUTPUT),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw frames, spans and scores over time into this PNG file.", rich_help_panel=OUTPUT),
    ] = None,
    thumbnails: Annotated[
        Path | None,
        typer.Option(
            help="Write a frame of each span, index.json, and a page that jumps to the moments, to this folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    still: StillOption = 0.0,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Find which actions happen in long videos, and when.

    Each frame is encoded once and its embedding is cached.
    So an interrupted run continues where it stopped, and other windows take seconds.

    Exit codes: 0 done, 1 the one video given failed, 2 wrong use, 3 some of many failed or parts could not be decoded.
    """
    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from fewframes.core.settings import settings_from
    from fewframes.inference.heads import Heads
    from fewframes.inference.timeline import CSV_COLUMNS, SHARED_CSV_COLUMNS, TimelineConfig, sweep
    from fewframes.results import Failure

    config = settings_from(
        TimelineConfig,
        {"window_s": window, "lengths": frame_counts(lengths, "--lengths"), "threshold": threshold, "still": still},
        "timeline",
    )
    paths, names = named_videos(sources), names_of(model)
    files = {"--vtt": vtt is not None, "--plot": plot is not None, "--thumbnails": thumbnails is not None}
    check_alone(names, files, "these files show the spans of one model")
    if len(paths) != 1 and (vtt or plot or thumbnails):
        raise typer.BadParameter(
            f"--vtt, --plot and --thumbnails take one video, and {len(paths)} are given; name one, or leave them out"
        )
    check_outputs(vtt, plot, thumbnails)
    for file in filter(None, (vtt, plot)):
        check_not_read(file, paths)
    models = open_models(
        names, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime, unknown=unknown_of(unknown)
    )
    tell(describe_all(models))
    store = embedding_cache(cache, unused=no_cache)
    if as_csv:
        typer.echo(",".join(CSV_COLUMNS if len(names) == 1 else SHARED_CSV_COLUMNS))
    all_whole = True
    for path in paths:
        began = time.perf_counter()
        try:
            with StageProgress() as progress:
                way = models.timeline if isinstance(models, Heads) else partial(sweep, models)
                found = way(path, config, cache=store, start_s=start, end_s=end, progress=progress.show)
        except FewframesError as error:
            if len(paths) == 1:
                raise
            tell_failures([Failure.of(path, error)])
            all_whole = False
            continue
        timelines = found if isinstance(found, tuple) else (found,)
        all_whole = all_whole and not timelines[0].gaps
        show(timelines, "json" if json else "csv" if as_csv else "table", time.perf_counter() - began)
        write_files(timelines[0], vtt, plot, thumbnails)
    if not all_whole:
        raise typer.Exit(EXIT_SOME_FAILED)


def check_outputs(vtt: Path | None, plot: Path | None, thumbnails: Path | None) -> None:
    """Check that the files that were asked for can be written, before minutes of work. Raises ConfigError."""
    if plot is not None and plot.suffix != ".png":
        raise ConfigError(f"--plot {plot}: needs a name that ends in .png")
    for file, option in ((vtt, "--vtt"), (plot, "--plot")):
        if file is not None:
            check_writable(file, option)
    if thumbnails is not None:
        make_folder(thumbnails)


def show(timelines: Sequence[Timeline], form: Literal["json", "csv", "table"], seconds: float) -> None:
    """Print the spans of each model on standard output; parts that were left out, and the time it took, on standard error."""
    for found in timelines:
        if form == "json":
            typer.echo(json_line(found.to_dict()))
        elif form == "csv":
            typer.echo(found.to_csv(header=False), nl=False)
        else:
            print_spans(found)
    found = timelines[0]
    for gap in found.gaps:
        tell(f"left out: {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    num_frames = len(found.times_s)
    num_cached = num_frames - found.num_encoded - found.num_reused - found.num_missing
    spans = count_of(sum(len(own.spans) for own in timelines), "span")
    spans += f" of {len(timelines)} models" if len(timelines) > 1 else ""
    frames = count_of(num_frames, "frame")
    reused = f", {found.num_reused} showed nothing new" if found.num_reused else ""
    tell(f"{spans}; {frames}, {num_cached} of them from the cache{reused}, in {seconds:.1f} s")


def print_spans(found: Timeline) -> None:
    """Print the name of the video, and a line for each span: its time, length, label and confidence."""
    from fewframes.inference.spans import clock

    width = max((len(plain(span.label)) for span in found.spans), default=0)
    full = "█" if speaks_unicode() else "#"
    lines = [
        f"  {clock(span.start_s):>8} - {clock(span.end_s):<8} {span.length_s:6.1f} s  {plain(span.label):<{width}} "
        f"{span.confidence:6.1%}  {full * round(20 * span.confidence)}"
        for span in found.spans
    ]
    head = [found.source, *([f"  model {found.model}"] if found.model else [])]
    print_lines([*head, *(lines or [f"  nothing above {found.threshold:.0%}"])])


def write_files(found: Timeline, vtt: Path | None, plot: Path | None, thumbnails: Path | None) -> None:
    """Write the subtitles, the picture and the thumbnails that were asked for. Their frames are read from the video again."""
    if vtt is not None:
        write_file(vtt, found.to_vtt())
    if plot is not None:
        write_plot(found, plot)
    if thumbnails is not None:
        write_thumbnails(found, thumbnails)


def write_plot(found: Timeline, plot: Path) -> None:
    """Write the picture of a timeline, with frames of its `SHOWN_FRAMES` surest spans in the order of time."""
    from fewframes.viz.charts import timeline_png
    from fewframes.viz.thumbnails import middle_frames

    surest = sorted(found.spans, key=lambda span: -span.confidence)[:SHOWN_FRAMES]
    shown = sorted(surest, key=lambda span: span.start_s)
    write_file(plot, timeline_png(found, shown, list(middle_frames(found.source, shown))))


def write_thumbnails(found: Timeline, folder: Path) -> None:
    """Write a JPEG of each span, an index of them, and a page on which a click on one plays the video from there."""
    from fewframes.core.storage import is_address
    from fewframes.viz.thumbnails import jpeg, middle_frames
    from fewframes.viz.timeline import timeline_page

    with writing(folder):
        # Thumbnails of an earlier run would stay beside the new ones and belong to no span.
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
    tell(f"{count_of(len(names), 'thumbnail')}; open {folder / 'index.html'} to jump to a moment")
