"""`fewframes timeline`: find which actions happen in long videos, and when."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.changes import (
    Against,
    AgainstModelOption,
    AgainstOption,
    ConfidenceOption,
    Form,
    PageOption,
    ShiftOption,
    comparison,
    form_of,
)
from fewframes.cli.console import StageProgress, print_lines, speaks_unicode, tell, tell_failures, who_lines
from fewframes.cli.draw import DrawOption, check_draw, draw_timelines
from fewframes.cli.engine import (
    Engine,
    EngineOption,
    RayWorkersOption,
    ShardRowsOption,
    check_workers,
    fill_folder,
)
from fewframes.cli.heads import check_alone, describe_all, names_of, open_models
from fewframes.cli.options import (
    LARGE_RUNS,
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
from fewframes.cli.region_options import Asked, BoxesOption, DetectorOption, ShowZonesOption, ZoneOption
from fewframes.cli.words import EncoderOption, LabelsOption, with_words
from fewframes.core.files import check_not_read, write_file, writing
from fewframes.core.text import count_of, json_line, plain
from fewframes.errors import EXIT_SOME_FAILED, ConfigError, FewframesError

DETECTION = "Detection"
SHOWN_FRAMES = 9
"""The most spans that have a frame in the picture of `--plot`; the surest ones."""

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.core.cache import EmbeddingCache
    from fewframes.inference.heads import Heads
    from fewframes.inference.predictor import Predictor
    from fewframes.inference.timeline import Timeline, TimelineConfig
    from fewframes.results import Failure
    from fewframes.runtime.open import RuntimeName
    from fewframes.video.regions.zone import Region


def timeline(
    sources: VideosArgument,
    start: StartOption = 0.0,
    end: EndOption = None,
    zone: ZoneOption = None,
    boxes: BoxesOption = None,
    detector: DetectorOption = None,
    model: ModelsOption = None,
    labels: LabelsOption = None,
    encoder: EncoderOption = None,
    unknown: UnknownOption = "auto",
    spans: Annotated[
        Literal["auto", "learned", "windows"],
        typer.Option(
            help="How spans are found. learned: by the detector of the model (`train --boundaries`). windows: by sliding "
            "windows. auto: the detector if the model has one and neither --window nor --lengths is given.",
            rich_help_panel=DETECTION,
        ),
    ] = "auto",
    window: Annotated[
        float | None,
        typer.Option(
            help="Seconds of the shortest windows, about what an action lasts.",
            show_default="the median clip of the model's training, or 4",
            rich_help_panel=DETECTION,
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Lengths of the windows as multiples of --window, such as 1,2,4. Long windows find long actions.",
            show_default="1; 1,2 for models that do not tell their clips' length",
            rich_help_panel=DETECTION,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Confidence that a span needs. Lower ones find more, and more that is wrong.",
            show_default="the detector's own; 0.8 with windows",
            rich_help_panel=DETECTION,
        ),
    ] = None,
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
    draw: DrawOption = None,
    show_zones: ShowZonesOption = None,
    against: AgainstOption = None,
    against_model: AgainstModelOption = None,
    changes_page: PageOption = None,
    least_shift: ShiftOption = 0.5,
    least_change: ConfidenceOption = 0.1,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    still: StillOption = 0.0,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
    engine: EngineOption = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder or URL that --engine writes to.", rich_help_panel=LARGE_RUNS),
    ] = None,
    shard_rows: ShardRowsOption = 16,
    workers: RayWorkersOption = None,
) -> None:
    """Find which actions happen in long videos, and when.

    Each frame is encoded once and its embedding is cached.
    So an interrupted run continues where it stopped, and other windows or another model of the same encoder take seconds.

    Exit codes: 0 done, 1 the one video given failed, 2 wrong use, 3 some of many failed (with --engine: one or more) or parts could
    not be decoded.
    """
    form = form_of(json=json, as_csv=as_csv)
    from fewframes.core.settings import settings_from
    from fewframes.inference.timeline import TimelineConfig

    config = settings_from(
        TimelineConfig,
        {
            "spans": spans,
            "window_s": window,
            "lengths": None if lengths is None else frame_counts(lengths, "--lengths"),
            "threshold": threshold,
            "still": still,
        },
        "timeline",
    )
    names, files = names_of(with_words(model, labels, encoder)), Files(vtt, plot, thumbnails, draw, start, end)
    compared = Against(against, against_model, changes_page, comparison(least_shift, least_change))
    check_asked(names, files, compared, form, engine, output, runtime)
    shown = {"--vtt, --plot or --thumbnails": any((vtt, plot, thumbnails)), "--against": compared.is_asked}
    parts = Asked(zone, boxes, detector, show_zones)
    parts.check(names, {"--engine": engine is not None} | shown)
    check_workers(engine, workers)
    store = embedding_cache(cache, unused=no_cache)
    before = compared.read(sources)
    if engine is not None and output is not None:
        from fewframes.batch.timelines import TimelineJob, read_timelines

        job = TimelineJob(
            model=names[0], config=config, device=device, dtype=dtype, backend=backend, merge=merge, start_s=start, end_s=end,
            unknown=unknown_of(unknown), cache=None if store is None else store.folder.absolute(), workers=workers,
        )  # fmt: skip
        some_failed = bool(fill_folder(job, sources, output, engine, shard_rows, "timelines"))
        if before is not None:
            some_failed = compared.finish(before, read_timelines(output), form) or some_failed
        if some_failed:
            raise typer.Exit(EXIT_SOME_FAILED)
        return
    paths = named_videos(sources)
    files.check(paths)
    regions = parts.regions(paths, start, end)
    shared = names if against_model is None else (*names, against_model)
    models = open_models(
        shared, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime, unknown=unknown_of(unknown)
    )
    tell(describe_all(models))
    found = found_in(models, paths, config, store, start, end, regions)
    is_whole = (
        compared.show(found, shared, before, form)
        if compared.is_asked
        else show_all(found, names, form, files, regions)
    )
    if not is_whole:
        raise typer.Exit(EXIT_SOME_FAILED)


@dataclass(frozen=True)
class Files:
    """The files that show one timeline, as they were asked for."""

    vtt: Path | None
    plot: Path | None
    thumbnails: Path | None
    draw: Path | None
    start_s: float
    """The part of the video that `draw` shows, with `end_s`; None is the end of the video."""
    end_s: float | None

    @property
    def are_asked(self) -> bool:
        """Return True if there is one of them."""
        return any((self.vtt, self.plot, self.thumbnails, self.draw))

    def check(self, paths: Sequence[str]) -> None:
        """Check that they can be written for these videos. Raises BadParameter and ConfigError."""
        if len(paths) != 1 and self.are_asked:
            raise typer.BadParameter(
                f"--vtt, --plot, --thumbnails and --draw take one video, and {len(paths)} are given; name one, or leave them out"
            )
        if self.plot is not None and self.plot.suffix != ".png":
            raise ConfigError(f"--plot {self.plot}: needs a name that ends in .png")
        for file, option in ((self.vtt, "--vtt"), (self.plot, "--plot")):
            if file is not None:
                check_writable(file, option)
        if self.thumbnails is not None:
            make_folder(self.thumbnails)
        check_draw(self.draw, paths)
        check_has_pictures(paths, shown=any((self.plot, self.thumbnails, self.draw)))
        for file in filter(None, (self.vtt, self.plot)):
            check_not_read(file, paths)


def check_asked(
    names: tuple[str, ...],
    files: Files,
    compared: Against,
    form: Form,
    engine: Engine | None,
    output: str | None,
    runtime: RuntimeName,
) -> None:
    """Raise BadParameter for options that exclude each other."""
    for wrong, words in (
        ((engine is None) != (output is None), "--engine and --output go together: give both, or neither"),
        (
            engine and form != "table" and not compared.is_asked,
            "--engine writes Parquet; leave out --json and --csv",
        ),
        (engine and runtime != "auto", "--engine takes the runtime that suits each machine; leave out --runtime"),
        (
            engine and compared.model is not None,
            "--engine writes the spans of one model; write those of each to a folder, and compare these: fewframes changes OLD NEW",
        ),
        (
            compared.result is not None and compared.model is not None,
            "--against and --against-model exclude each other: compare with one earlier result or model",
        ),
        (
            compared.page is not None and not compared.is_asked,
            "--changes-page shows a comparison; add --against RESULT or --against-model MODEL",
        ),
        (
            files.are_asked and (engine or compared.is_asked),
            "--vtt, --plot, --thumbnails and --draw show one timeline; leave out --engine and --against, or leave them out",
        ),
    ):
        if wrong:
            raise typer.BadParameter(words)
    given = {
        "--vtt": files.vtt is not None,
        "--plot": files.plot is not None,
        "--thumbnails": files.thumbnails is not None,
        "--draw": files.draw is not None,
    }
    check_alone(names, given, "these files show the spans of one model")
    check_alone(names, {"--engine": engine is not None}, "each input has exactly one row")
    asked = {"--against": compared.result is not None, "--against-model": compared.model is not None}
    check_alone(names, asked, "one model is compared with one earlier result or model")


def found_in(
    models: Predictor | Heads,
    paths: Sequence[str],
    config: TimelineConfig,
    store: EmbeddingCache | None,
    start_s: float,
    end_s: float | None,
    regions: Sequence[Region] = (),
) -> Iterator[tuple[Timeline, ...] | Failure]:
    """Yield the timelines of each video, of models or regions, or its failure. Raises FewframesError if the only video fails."""
    from fewframes.cli.region_options import way_of
    from fewframes.results import Failure

    way = way_of(models, regions)
    for path in paths:
        try:
            with StageProgress() as progress:
                found = way(path, config=config, cache=store, start_s=start_s, end_s=end_s, progress=progress.show)
        except FewframesError as error:
            if len(paths) == 1:
                raise
            yield Failure.of(path, error)
        else:
            yield tuple(found) if isinstance(found, Sequence) else (found,)


def show_all(
    found: Iterable[tuple[Timeline, ...] | Failure],
    names: Sequence[str],
    form: Form,
    files: Files,
    regions: Sequence[Region] = (),
) -> bool:
    """Print the timelines of each video, and write the files. Return True if no video failed and all parts could be decoded."""
    from fewframes.cli.region_options import kinds_of
    from fewframes.inference.timeline import csv_columns
    from fewframes.results import Failure

    if form == "csv":
        typer.echo(",".join(csv_columns(*(["model"] if len(names) > 1 else []), *kinds_of(regions))))
    all_whole, began = True, time.perf_counter()
    for timelines in found:
        if isinstance(timelines, Failure):
            tell_failures([timelines])
            if form == "json":
                typer.echo(json_line(timelines.to_dict()))
            all_whole = False
        else:
            all_whole = all_whole and all(gap.is_pause for own in timelines for gap in own.gaps)
            show(timelines, names if len(names) > 1 else [names[0]] * len(timelines), form, time.perf_counter() - began)
            if timelines:
                write_files(timelines, files, regions)
        began = time.perf_counter()
    return all_whole


def check_has_pictures(paths: Sequence[str], *, shown: bool) -> None:
    """Raise BadParameter where frames are to be shown of a frame store, which has none."""
    from fewframes.inference.frame_store.store import is_frame_store

    stores = [path for path in paths if is_frame_store(path)]
    if shown and stores:
        raise typer.BadParameter(
            f"--plot, --thumbnails and --draw show frames, and {stores[0]} has embeddings only; name the video, or leave them out"
        )


def show(timelines: Sequence[Timeline], names: Sequence[str], form: Form, seconds: float) -> None:
    """Print the spans of each model on standard output; parts that were left out, and the time it took, on standard error."""
    from fewframes.inference.frame_store.store import is_frame_store

    for found, name in zip(timelines, names, strict=True):
        if form == "json":
            typer.echo(json_line(replace(found, model=found.model or name).to_dict()))
        elif form == "csv":
            typer.echo(found.to_csv(header=False), nl=False)
        else:
            print_spans(found)
    for gap in dict.fromkeys(gap for own in timelines for gap in own.gaps):
        tell(f"left out: {gap.start_s:.2f} s to {gap.end_s:.2f} s ({gap.error})")
    # Several models look at the same frames; each region has frames of its own.
    looked = [own for own in timelines if own.zone or own.track] or timelines[:1]
    num_frames = sum(len(own.times_s) for own in looked)
    num_reused = sum(own.num_reused for own in looked)
    num_cached = num_frames - num_reused - sum(own.num_encoded + own.num_missing for own in looked)
    spans = count_of(sum(len(own.spans) for own in timelines), "span")
    several = f"{len(timelines)} {'models' if len(set(names)) > 1 else 'parts of the picture'}"
    spans += f" of {several}" if len(timelines) > 1 else ""
    frames = count_of(num_frames, "frame")
    reused = f", {num_reused} showed nothing new" if num_reused else ""
    place = "store" if timelines and is_frame_store(timelines[0].source) else "cache"
    tell(f"{spans}; {frames}, {num_cached} of them from the {place}{reused}, in {seconds:.1f} s")


def print_spans(found: Timeline) -> None:
    """Print the name of the video, and a line for each span: its time, length, label and confidence."""
    from fewframes.inference.detection.spans import clock

    width = max((len(plain(span.label)) for span in found.spans), default=0)
    full = "█" if speaks_unicode() else "#"
    lines = [
        f"  {clock(span.start_s):>8} - {clock(span.end_s):<8} {span.length_s:6.1f} s  {plain(span.label):<{width}} "
        f"{span.confidence:6.1%}  {full * round(20 * span.confidence)}"
        for span in found.spans
    ]
    head = [found.source, *who_lines(found)]
    print_lines([*head, *(lines or [f"  nothing above {found.threshold:.0%}"])])


def write_files(timelines: Sequence[Timeline], files: Files, regions: Sequence[Region]) -> None:
    """Write the files that were asked for. Their frames are read from the video again. A drawn video alone can show several."""
    found = timelines[0]
    if files.vtt is not None:
        write_file(files.vtt, found.to_vtt())
    if files.plot is not None:
        write_plot(found, files.plot)
    if files.thumbnails is not None:
        write_thumbnails(found, files.thumbnails)
    if files.draw is not None:
        draw_timelines(timelines, files.draw, files.start_s, files.end_s, regions)


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
