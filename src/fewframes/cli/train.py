"""`fewframes train` and `fewframes evaluate`: what is done with labelled videos. A part of the command line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewframes.cli.console import (
    StageProgress,
    describe,
    evaluation_lines,
    is_first_process,
    print_lines,
    tell,
    tell_data,
)
from fewframes.cli.options import (
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
    TaskOption,
    ToleranceOption,
    VideosOption,
    embedding_cache,
    exit_at,
    frame_counts,
)
from fewframes.errors import EXIT_SOME_FAILED

REPORT = "report.html"


def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|LIST",
            help="A folder with a folder of videos for each action (or train and val folders of such), or a list: lines of "
            "path and label, CSV with the columns path,label[,start_s,end_s][,split][,group], or the lists of UCF101, "
            "HMDB51, Kinetics, Something-Something.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model and its figures.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Start from this preset, checkpoint or folder of a trained model: its frame encoder is kept.",
            show_default="lite0-16",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A run file (TOML); options given here override it.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Other weights for the frame encoder: a file or a timm name.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of each video.")] = None,
    holdout: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="Share of the videos to measure on; 0 trains on all.", show_default="0.2"),
    ] = None,
    task: Annotated[
        Literal["auto", "single", "multilabel"] | None,
        typer.Option(help="One action a video, or any number of them (in one cell, parted by ;).", show_default="auto"),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="CSV column of what must not be split (recording, person).", show_default="group")
    ] = None,
    folder: Annotated[
        str | None, typer.Option("--videos", help="Folder of the videos, when paths are not relative to the list.")
    ] = None,
    official_split: Annotated[
        int | None, typer.Option(min=1, help="Which official split (UCF101, HMDB51).", show_default="1")
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option("--mirror/--no-mirror", help="See videos mirrored too.", show_default="mirror"),
    ] = None,
    unfreeze: Annotated[
        str | None,
        typer.Option(
            help="Let the frame encoder learn too: none, last-N-blocks, all. Takes gigabytes: docs/training.md.",
            show_default="none",
        ),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="A model whose scores are learned beside the labels.")] = None,
    early_exit: Annotated[
        bool | None,
        typer.Option(
            "--early-exit", help="Learn from few frames too, so that `predict --early-exit auto` may stop early."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Times each video is seen.", show_default="80; 300 steps at least")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.001")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split and the training.", show_default="0")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting of a run file, such as train.ema_decay=0.999; may be given often."),
    ] = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in the output folder.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the interrupted run in the output folder, if there is one; one that is finished stays as it is.",
        ),
    ] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Teach a model your own actions.

    As it is, each video is encoded once and kept, and a small network learns on that; with --unfreeze the frame encoder
    learns too, on videos that are cropped and coloured anew each time. On several processors: torchrun
    --nproc-per-node 8 -m fewframes.cli train ... All settings: docs/training.md.

    Writes model.safetensors (for `predict --model`), metrics.json, predictions.csv, curves.png, confusion.png, history.csv,
    run.toml and TensorBoard logs. Exit codes: 0 done, 1 the data cannot be used, 2 wrong use, 3 done but some videos could
    not be read.
    """
    from fewframes.data.dataset import read_data
    from fewframes.results import tally
    from fewframes.training.config import RunConfig, changed, changed_by_words, read_run
    from fewframes.training.run_folder import RunFolder
    from fewframes.training.train import TrainOptions
    from fewframes.training.train import train as train_model

    chosen = changed(
        read_run(run) if run is not None else RunConfig(),
        {
            "start": model,
            "init": init,
            "model": {"num_frames": frames},
            "data": {
                "task": task,
                "holdout": holdout,
                "group": group,
                "videos": folder,
                "official_split": official_split,
                "mirror": mirror,
            },
            "train": {
                "unfreeze": unfreeze,
                "teacher": teacher,
                "early_exit": early_exit,
                "epochs": epochs,
                "min_steps": epochs and 1,
                "learning_rate": learning_rate,
                "seed": seed,
            },
        },
    )
    chosen = changed_by_words(chosen, settings or [])
    videos = read_data(data, chosen.data)
    tell_data(data, videos)
    if holdout is not None and {"val", "test"} & {sample.split for sample in videos.samples}:
        tell("the data name what is held out themselves, so --holdout has no say")
    options = TrainOptions(
        cache=embedding_cache(cache, unused=no_cache),
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        resume=resume,
        command=shlex.join(["fewframes", *sys.argv[1:]]),
    )
    if resume and RunFolder(output, chosen, videos, options.command).finished():
        if is_first_process():
            tell(f"{output}: this run is finished; use it: fewframes predict VIDEO --model {output}")
        return
    with StageProgress() as progress:
        trained = train_model(videos, output, chosen, options, progress.show)
    if not is_first_process():
        return
    for failure in trained.failures:
        tell(f"failed: {failure.error}")
    read = tally(len(videos.samples) - len(trained.failures), "videos read", trained.failures)
    tell(
        f"{read} ({trained.num_cached} from the cache) in {trained.embedding_s:.1f} s; trained in {trained.training_s:.1f} s"
    )
    if trained.evaluation is None:
        missing = "none of the held-out videos could be read" if trained.num_held_out else "nothing was held out"
        tell(f"{missing}, so nothing says how good it is")
    else:
        first, *others = trained.evaluation.report.lines()
        print_lines([f"held-out videos: {first}", *others])
    tell(f"use it: fewframes predict VIDEO --model {output}")
    if trained.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def evaluate(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    model: ModelOption = "lite0-16",
    part: Annotated[
        Literal["auto", "all", "train", "val", "test"],
        typer.Option(help="Which part of the data, where they are split; auto: what is not for training."),
    ] = "auto",
    views: Annotated[
        str,
        typer.Option(
            help="Clips x crops of each video, their scores averaged, e.g. 10x3; 1x1 is one pass over all of it."
        ),
    ] = "1x1",
    clip_s: Annotated[
        float | None, typer.Option("--clip-s", help="Seconds that a clip spans.", show_default="2.67 for several clips")
    ] = None,
    tolerance: ToleranceOption = 0.0,
    early_exit: EarlyExitOption = None,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    official_subset: Annotated[
        bool,
        typer.Option("--official-subset", help="Also the figure over the videos that the 2021 release's loader keeps."),
    ] = False,
    sweep: Annotated[str, typer.Option(help="Judge with other numbers of frames too, e.g. 4,8,16,32.")] = "",
    no_order: Annotated[
        bool,
        typer.Option(
            "--no-order",
            help="Leave out frames backwards and shuffled (layouts that mix frames in the encoder run seven times for them).",
        ),
    ] = False,
    task: TaskOption = "auto",
    group: GroupOption = "group",
    folder: VideosOption = "",
    official_split: OfficialOption = 1,
    predictions: Annotated[Literal["csv", "parquet"], typer.Option(help="Format of the table of predictions.")] = "csv",
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Of shuffled frames and intervals.")] = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """How often a model is right on your videos, how far to trust that, and what it gets wrong.

    Writes report.html (one file), metrics.json and predictions.csv (or .parquet). Exit codes: 0 done, 1 the data cannot be
    used, 2 wrong use, 3 done but some videos could not be read, 4 Parquet without pyarrow.
    """
    from fewframes.core.files import check_format, check_writable, filled, writing
    from fewframes.data.dataset import DataConfig, read_data
    from fewframes.data.known_videos import known_words
    from fewframes.inference.predictor import load
    from fewframes.results import tally
    from fewframes.training.evaluate import EvaluateConfig
    from fewframes.training.evaluate import evaluate as evaluate_model
    from fewframes.training.report import write_metrics, write_predictions
    from fewframes.training.report_page import read_mistakes, report_page
    from fewframes.video.sampling import Views

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
    predictor = load(model, device=device, dtype=dtype, backend=backend, merge=merge)
    tell(describe(predictor))
    store = embedding_cache(cache, unused=no_cache)
    with StageProgress() as progress:
        evaluation = evaluate_model(videos, predictor, store, settings, progress=progress.show)
    page = report_page(evaluation, read_mistakes(evaluation, predictor))
    with writing(output), filled(output, ("metrics.json", "predictions.csv", "predictions.parquet", REPORT)) as new:
        write_metrics(evaluation, new / "metrics.json")
        write_predictions(evaluation, predictor.labels, new / f"predictions.{predictions}")
        (new / REPORT).write_text(page, encoding="utf-8", errors="replace")
    for failure in evaluation.failures:
        tell(f"failed: {failure.error}")
    if known := known_words(evaluation.provenance, len(evaluation.samples)):
        tell(known)
    print_lines(evaluation_lines(evaluation))
    tell(f"{tally(len(evaluation.samples), 'evaluated', evaluation.failures)}; {output / REPORT}")
    if evaluation.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
