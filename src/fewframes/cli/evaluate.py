"""`fewframes evaluate`: measure how often a model is right on labelled videos, and write a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fewframes.cli.console import (
    StageProgress,
    describe,
    evaluation_lines,
    print_lines,
    tell,
    tell_data,
    tell_failures,
    tell_notes,
)
from fewframes.cli.options import (
    DATA,
    INPUT,
    OUTPUT,
    BackendOption,
    CacheOption,
    DataArgument,
    DeviceOption,
    DtypeOption,
    EarlyExitOption,
    GroupOption,
    MergeOption,
    ModelOption,
    NoCacheOption,
    OfficialOption,
    RuntimeOption,
    TaskOption,
    ToleranceOption,
    UnknownOption,
    VideosOption,
    embedding_cache,
    exit_at,
    frame_counts,
    unknown_of,
)
from fewframes.data.config import DataConfig
from fewframes.errors import EXIT_SOME_FAILED

PROTOCOL = "What is measured"
REPORT = "report.html"


def evaluate(
    data: DataArgument,
    *,
    part: Annotated[
        Literal["auto", "all", "train", "val", "test"],
        typer.Option(
            help="Part of split data to evaluate on. auto takes every part that is not for training.",
            rich_help_panel=INPUT,
        ),
    ] = "auto",
    task: TaskOption = DATA.task,
    group: GroupOption = DATA.group,
    folder: VideosOption = DATA.videos,
    official_split: OfficialOption = DATA.official_split,
    model: ModelOption = "lite0-16",
    unknown: UnknownOption = "auto",
    views: Annotated[
        str,
        typer.Option(
            help="Clips x crops of each video, such as 10x3; their scores are averaged. For comparison with other methods, "
            "which use many views. 1x1 is one pass over the whole video.",
            rich_help_panel=PROTOCOL,
        ),
    ] = "1x1",
    clip_s: Annotated[
        float | None,
        typer.Option(
            "--clip-s",
            help="Seconds that a clip spans.",
            show_default="2.67 for several clips",
            rich_help_panel=PROTOCOL,
        ),
    ] = None,
    official_subset: Annotated[
        bool,
        typer.Option(
            "--official-subset",
            help="Report the accuracy on the videos that the 2021 release's loader keeps, too.",
            rich_help_panel=PROTOCOL,
        ),
    ] = False,
    sweep: Annotated[
        str,
        typer.Option(
            help="Measure the accuracy with these other numbers of frames too, such as 4,8,16,32.",
            rich_help_panel=PROTOCOL,
        ),
    ] = "",
    no_order: Annotated[
        bool,
        typer.Option(
            "--no-order",
            help="Skip the test with frames backwards and shuffled. It takes seven more runs for models that mix frames in "
            "the encoder.",
            rich_help_panel=PROTOCOL,
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Random seed of the shuffled frames and the intervals.", rich_help_panel=PROTOCOL),
    ] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.", rich_help_panel=OUTPUT)],
    predictions: Annotated[
        Literal["csv", "parquet"],
        typer.Option(help="Format of the table of predictions.", rich_help_panel=OUTPUT),
    ] = "csv",
    tolerance: ToleranceOption = 0.0,
    early_exit: EarlyExitOption = None,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    runtime: RuntimeOption = "auto",
) -> None:
    """Measure how often a model is right on your videos, and show what it gets wrong.

    The accuracy comes with its 95 % interval, the effect of frame order, the cost of a video, and the surest mistakes.

    Writes report.html (one file), metrics.json and predictions.csv (or .parquet).

    Exit codes: 0 done, 1 the data cannot be used, 2 wrong use, 3 done but some videos could not be read, 4 Parquet without
    pyarrow.
    """
    from fewframes.core.files import check_format, check_writable, filled, writing
    from fewframes.data.dataset import read_data
    from fewframes.data.known_videos import known_words
    from fewframes.inference.predictor import load
    from fewframes.results import tally
    from fewframes.sampling import Views
    from fewframes.training.evaluation.evaluate import EvaluateConfig
    from fewframes.training.evaluation.evaluate import evaluate as evaluate_model
    from fewframes.training.evaluation.report import write_metrics, write_predictions
    from fewframes.training.evaluation.report_page import read_mistakes, report_page

    settings = EvaluateConfig(
        views=Views.parse(views, clip_s, tolerance),
        sweep=frame_counts(sweep, "--sweep"),
        order=not no_order,
        early_exit=exit_at(early_exit),
        official_subset=official_subset,
        seed=seed,
    )
    check_format(predictions)
    check_writable(output)
    videos = read_data(data, DataConfig(task=task, group=group, videos=folder, official_split=official_split)).part(
        part
    )
    tell_data(data, videos)
    predictor = load(
        model, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime, unknown=unknown_of(unknown)
    )
    tell(describe(predictor))
    store = embedding_cache(cache, unused=no_cache)
    with StageProgress() as progress:
        evaluation = evaluate_model(videos, predictor, store, settings, progress=progress.show)
    page = report_page(evaluation, read_mistakes(evaluation, predictor))
    with writing(output), filled(output, ("metrics.json", "predictions.csv", "predictions.parquet", REPORT)) as new:
        write_metrics(evaluation, new / "metrics.json")
        write_predictions(evaluation, predictor.labels, new / f"predictions.{predictions}")
        (new / REPORT).write_text(page, encoding="utf-8", errors="replace")
    tell_failures(evaluation.failures)
    if known := known_words(evaluation.provenance, len(evaluation.samples)):
        tell(known)
    print_lines(evaluation_lines(evaluation))
    tell_notes(evaluation.interval.warning, evaluation.warning)
    tell(f"{tally(len(evaluation.samples), 'evaluated', evaluation.failures)}; {output / REPORT}")
    if evaluation.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
