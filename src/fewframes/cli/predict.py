"""`fewframes predict`: name the actions in videos."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import (
    Shown,
    summary,
    tell,
    tell_failures,
    with_progress,
    write_csv,
    write_json,
    write_table,
)
from fewframes.cli.draw import DrawOption, check_draw, draw_predictions
from fewframes.cli.engine import EngineOption, ShardRowsOption, write_folder
from fewframes.cli.explain import ExplainOption, MapOption, explained, plan_pictures
from fewframes.cli.heads import check_alone, describe_all, names_of, of_first, one_by_one, open_models, predictors_of
from fewframes.cli.options import (
    LARGE_RUNS,
    OUTPUT,
    BackendOption,
    BudgetKbOption,
    BudgetMsOption,
    CsvOption,
    DeviceOption,
    DtypeOption,
    EarlyExitOption,
    EndOption,
    FramesOption,
    JsonOption,
    MergeOption,
    ModelsOption,
    RuntimeOption,
    SourcesArgument,
    StartOption,
    ToleranceOption,
    UnknownOption,
    WorkersOption,
    exit_at,
    named_videos,
    unknown_of,
)
from fewframes.cli.region_options import Asked, BoxesOption, DetectorOption, ShowZonesOption, ZoneOption, kinds_of
from fewframes.cli.words import EncoderOption, LabelsOption, with_words
from fewframes.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from fewframes.results import Prediction


def predict(
    sources: SourcesArgument,
    frames: FramesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    zone: ZoneOption = None,
    boxes: BoxesOption = None,
    detector: DetectorOption = None,
    model: ModelsOption = None,
    labels: LabelsOption = None,
    encoder: EncoderOption = None,
    unknown: UnknownOption = "auto",
    topk: Annotated[
        int, typer.Option(min=1, help="Number of actions to name for each video.", rich_help_panel=OUTPUT)
    ] = 5,
    json: JsonOption = False,
    as_csv: CsvOption = False,
    explain: ExplainOption = None,
    maps: MapOption = "auto",
    draw: DrawOption = None,
    show_zones: ShowZonesOption = None,
    tolerance: ToleranceOption = 0.0,
    early_exit: EarlyExitOption = None,
    budget_ms: BudgetMsOption = None,
    budget_kb: BudgetKbOption = None,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
    workers: WorkersOption = None,
    engine: EngineOption = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder or URL that --engine writes to.", rich_help_panel=LARGE_RUNS),
    ] = None,
    shard_rows: ShardRowsOption = 1000,
) -> None:
    """Name the actions in videos.

    Prints the likeliest actions of each video, with the timestamps and the attention of the frames that were looked at.

    Exit codes: 0 all labelled, 1 the one video given failed, 2 wrong use, 3 some of many failed (with --engine: one or more).
    """
    for wrong, words in (
        (
            (engine is None) != (output is None),
            "--engine and --output go together: give both, or neither",
        ),
        (
            engine and (json or as_csv or explain or draw),
            "--engine writes Parquet; leave out --json, --csv, --explain and --draw",
        ),
        (
            (engine or explain is not None) and (budget_ms is not None or budget_kb is not None),
            "--engine and --explain look at all frames; leave out --budget-ms and --budget-kb",
        ),
        (engine and runtime != "auto", "--engine takes the runtime that suits each machine; leave out --runtime"),
        (json and as_csv, "--json and --csv exclude each other"),
        (
            explain is not None and (early_exit is not None or tolerance),
            "--explain needs all frames at their exact timestamps; leave out --early-exit and --tolerance",
        ),
        (explain is None and maps != "auto", "--map is for --explain; add --explain FILE, or leave out --map"),
    ):
        if wrong:
            raise typer.BadParameter(words)
    names = names_of(with_words(model, labels, encoder))
    staged = {"--early-exit": early_exit is not None, "--budget-ms": budget_ms is not None}
    check_alone(
        names,
        staged | {"--budget-kb": budget_kb is not None},
        "how many frames are looked at follows from the confidence of one model",
    )
    check_alone(names, {"--explain": explain is not None}, "a picture explains the answer of one model")
    check_alone(names, {"--draw": draw is not None}, "a video shows the answer of one model")
    check_alone(names, {"--engine": engine is not None}, "each input has exactly one row")
    not_of_regions = {"--engine": engine is not None, "--explain": explain is not None} | staged
    parts = Asked(zone, boxes, detector, show_zones)
    parts.check(names, not_of_regions | {"--budget-kb": budget_kb is not None})
    if engine is not None and output is not None:
        from fewframes.batch.rows import VideoJob

        job = VideoJob(
            columns="actions", model=names[0], topk=topk, num_frames=frames, start_s=start, end_s=end, tolerance=tolerance,
            early_exit=exit_at(early_exit), unknown=unknown_of(unknown), merge=merge, backend=backend, device=device,
            dtype=dtype, workers=workers,
        )  # fmt: skip
        write_folder(job, sources, output, engine, shard_rows, "labelling")
        return
    from fewframes.inference.heads import Heads
    from fewframes.inference.regions.predict import predict_regions_many
    from fewframes.models.files.formats import format_of
    from fewframes.runtime.open import has_torch

    paths = named_videos(sources)
    check_draw(draw, paths)
    regions = parts.regions(paths, start, end)
    pictures = [] if explain is None else plan_pictures(explain, paths)
    began = time.perf_counter()
    if explain is not None and maps != "none" and runtime == "auto" and format_of(names[0]) is None and has_torch():
        runtime = "torch"  # only torch draws maps
    models = open_models(
        names, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime, unknown=unknown_of(unknown)
    )
    tell(f"{describe_all(models)}, loaded in {time.perf_counter() - began:.1f} s")
    results: Iterable[Shown | tuple[Prediction, ...]] = (
        models.predict_many(paths, num_frames=frames, start_s=start, end_s=end, tolerance=tolerance, workers=workers)
        if isinstance(models, Heads)
        else predict_regions_many(
            models,
            paths,
            regions,
            num_frames=frames,
            start_s=start,
            end_s=end,
            tolerance=tolerance,
            workers=workers,
        )
        if regions
        else explained(models, paths, pictures, maps=maps, num_frames=frames, start_s=start, end_s=end)
        if explain is not None
        else models.predict_many(
            paths,
            num_frames=frames,
            start_s=start,
            end_s=end,
            tolerance=tolerance,
            early_exit=exit_at(early_exit),
            budget_ms=budget_ms,
            budget_kb=budget_kb,
            workers=workers,
        )
    )
    began = time.perf_counter()
    multilabel = any(predictor.runtime.task == "multilabel" for predictor in predictors_of(models))
    in_csv = partial(write_csv, multilabel=multilabel, several=len(names) > 1, named=kinds_of(regions))
    write = write_json if json else in_csv if as_csv else write_table
    shown = list(write(one_by_one(with_progress(results, len(paths), "labelling")), topk))
    seconds = time.perf_counter() - began
    if draw is not None:
        draw_predictions(shown, draw, start, end, regions)
    _end(of_first(shown), seconds)


def _end(shown: list[Shown], seconds: float) -> None:
    """Print the failures and the tally. If a video failed, end the command with the exit code for that."""
    from fewframes.results import Failure

    failures = [result for result in shown if isinstance(result, Failure)]
    tell_failures(failures)
    tell(summary(shown, seconds))
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED if len(shown) > 1 else failures[0].exit_code)
