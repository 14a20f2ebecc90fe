"""`fewframes count`: count the repetitions of a movement in videos."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import StageProgress, describe, print_lines, tell, tell_failures
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
    ModelOption,
    NoCacheOption,
    RuntimeOption,
    StartOption,
    StillOption,
    UnknownOption,
    VideosArgument,
    check_writable,
    embedding_cache,
    named_videos,
    unknown_of,
)
from fewframes.core.files import check_not_read, write_file
from fewframes.core.text import count_of, json_line, plain
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, FewframesError

COUNTING = "Counting"
SHOWN_FRAMES = 9
"""The most repetitions that have a frame in the picture of `--plot`."""

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.counting.results import RepetitionCount


def count(
    sources: VideosArgument,
    start: StartOption = 0.0,
    end: EndOption = None,
    model: ModelOption = "lite0-16",
    unknown: UnknownOption = "auto",
    rate: Annotated[
        float,
        typer.Option(help="Frames a second that are looked at. A repetition needs four.", rich_help_panel=COUNTING),
    ] = 8.0,
    shortest: Annotated[
        float, typer.Option(help="Seconds of the shortest repetition.", rich_help_panel=COUNTING)
    ] = 0.5,
    longest: Annotated[float, typer.Option(help="Seconds of the longest repetition.", rich_help_panel=COUNTING)] = 20.0,
    pause: Annotated[
        float,
        typer.Option(help="Seconds of the longest pause between repetitions of one stretch.", rich_help_panel=COUNTING),
    ] = 6.0,
    fit: Annotated[
        float,
        typer.Option(
            help="How alike repetitions must be, from 0 to below 1. Lower ones find more, and more that is wrong.",
            rich_help_panel=COUNTING,
        ),
    ] = 0.23,
    json: JsonOption = False,
    as_csv: CsvOption = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw frames, the self-similarity and the repetitions into this PNG file.", rich_help_panel=OUTPUT
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
    """Count the repetitions of a movement in videos, without being told which.

    It compares frames with those before them, so the movement need not be one that the model knows.
    Each frame is encoded once and its embedding is cached.

    Exit codes: 0 done, 1 the one video given failed, 2 wrong use, 3 some of many failed or parts could not be decoded.
    """
    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from fewframes.core.settings import settings_from
    from fewframes.inference.counting.config import CountConfig
    from fewframes.inference.counting.count import count_repetitions
    from fewframes.inference.counting.results import CSV_COLUMNS
    from fewframes.inference.predictor import load
    from fewframes.results import Failure

    values = {"rate": rate, "shortest_s": shortest, "longest_s": longest, "pause_s": pause, "least_fit": fit}
    config = settings_from(CountConfig, {**values, "still": still}, "count")
    paths = named_videos(sources)
    check_plot(plot, paths)
    predictor = load(
        model, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime, unknown=unknown_of(unknown)
    )
    tell(describe(predictor))
    store = embedding_cache(cache, unused=no_cache)
    if as_csv:
        typer.echo(",".join(CSV_COLUMNS))
    all_whole = True
    for path in paths:
        began = time.perf_counter()
        try:
            with StageProgress() as progress:
                found = count_repetitions(
                    predictor, path, config, cache=store, start_s=start, end_s=end, progress=progress.show
                )
        except FewframesError as error:
            if len(paths) == 1:
                raise
            tell_failures([Failure.of(path, error)])
            all_whole = False
            continue
        all_whole = all_whole and all(gap.is_pause for gap in found.gaps)
        show(found, "json" if json else "csv" if as_csv else "table", time.perf_counter() - began)
        if found.end_s - found.start_s < 2 * shortest:
            tell(f"too short: {found.end_s - found.start_s:.2f} s hold no two repetitions of {shortest:g} s")
        if plot is not None:
            write_plot(found, plot)
    if not all_whole:
        raise typer.Exit(EXIT_SOME_FAILED)


def check_plot(plot: Path | None, paths: list[str]) -> None:
    """Check that the picture can be written, before minutes of work. Raises ConfigError, and BadParameter for several videos."""
    if plot is None:
        return
    if len(paths) != 1:
        raise typer.BadParameter(f"--plot takes one video, and {len(paths)} are given; name one, or leave it out")
    if plot.suffix != ".png":
        raise ConfigError(f"--plot {plot}: needs a name that ends in .png")
    check_writable(plot, "--plot")
    check_not_read(plot, paths)


def show(found: RepetitionCount, form: Literal["json", "csv", "table"], seconds: float) -> None:
    """Print the repetitions on standard output; parts that were left out, and the time it took, on standard error."""
    if form == "json":
        typer.echo(json_line(found.to_dict()))
    elif form == "csv":
        typer.echo(found.to_csv(header=False), nl=False)
    else:
        print_stretches(found)
    for gap in found.gaps:
        tell(f"left out: {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    num_cached = found.num_frames - found.num_encoded - found.num_reused - found.num_missing
    reused = f", {found.num_reused} showed nothing new" if found.num_reused else ""
    frames = count_of(found.num_frames, "frame")
    repetitions = count_of(found.count, "repetition")
    tell(f"{repetitions}; {frames}, {num_cached} of them from the cache{reused}, in {seconds:.1f} s")


def print_stretches(found: RepetitionCount) -> None:
    """Print the name of the video, a line for each stretch of repetitions, and the count of each label if there are several."""
    from fewframes.inference.detection.spans import clock

    width = max((len(plain(own.label)) for own in found.stretches), default=0)
    lines = [
        f"  {clock(own.start_s):>8} - {clock(own.end_s):<8} {own.count:4} x {own.period_s:5.2f} s  {plain(own.label):<{width}}"
        + (f" {own.score:6.1%}" if own.score else "")
        for own in found.stretches
    ]
    totals = [f"  {plain(label)}: {number}" for label, number in found.counts.items()] if len(found.counts) > 1 else []
    print_lines([f"{found.source}: {found.count}", *(lines or ["  nothing repeats"]), *totals])


def write_plot(found: RepetitionCount, plot: Path) -> None:
    """Write the picture of a count, with frames of up to `SHOWN_FRAMES` repetitions, evenly chosen."""
    from fewframes.inference.detection.spans import Span
    from fewframes.viz.counting import count_png
    from fewframes.viz.thumbnails import middle_frames

    spans = [
        Span(one.start_s, one.end_s, f"{number} {plain(own.label)}")
        for own in found.stretches
        for number, one in enumerate(own.repetitions, 1)
    ]
    num_shown = min(SHOWN_FRAMES, len(spans))
    shown = [spans[round(place * (len(spans) - 1) / max(1, num_shown - 1))] for place in range(num_shown)]
    write_file(plot, count_png(found, shown, list(middle_frames(found.source, shown))))
