"""`fewframes train`: teach a model your own actions."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.boundaries import check_boundaries, finish_with_boundaries
from fewframes.cli.console import (
    StageProgress,
    is_first_process,
    print_lines,
    tell,
    tell_data,
    tell_failures,
    tell_notes,
)
from fewframes.cli.options import (
    DATA,
    INPUT,
    MODEL,
    OFFICIAL_HELP,
    OUTPUT,
    SCENES_HELP,
    TASK_HELP,
    VIDEOS_HELP,
    CacheOption,
    DeviceOption,
    DtypeOption,
    NoCacheOption,
    Tasks,
    embedding_cache,
    setting,
)
from fewframes.errors import ConfigError, MissingDependency
from fewframes.training.config import DEFAULT_RUN as RUN
from fewframes.training.config import RunConfig, changed, changed_by_words, read_run, with_encoder_placed

if TYPE_CHECKING:
    from fewframes.data.dataset import VideoSet
    from fewframes.training.background import ReadBackground
    from fewframes.training.run.finish import TrainingResult
    from fewframes.training.solved.run import SolveOptions

LEARNING = "Learning"


def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|LIST",
            help="Labelled videos. A folder has one folder of videos per action, or train and val folders of such. A list has "
            "lines of path and label, or CSV columns path,label[,start_s,end_s][,split][,group]. The published lists of "
            "UCF101, HMDB51, Kinetics and Something-Something work as they are.",
        ),
    ],
    *,
    holdout: Annotated[
        float | None,
        setting(
            DATA,
            "holdout",
            INPUT,
            "Fraction of the videos kept out of training to measure accuracy on. 0 trains on all of them.",
            most=0.9,
        ),
    ] = None,
    task: Annotated[Tasks | None, setting(DATA, "task", INPUT, TASK_HELP)] = None,
    group: Annotated[
        str | None,
        setting(
            DATA,
            "group",
            INPUT,
            "CSV column that names the recording or person. Videos of one group stay on one side of the split.",
        ),
    ] = None,
    scenes: Annotated[Literal["auto", "off"] | None, setting(DATA, "scenes", INPUT, SCENES_HELP)] = None,
    folder: Annotated[str | None, setting(DATA, "videos", INPUT, VIDEOS_HELP, "--videos")] = None,
    official_split: Annotated[int | None, setting(DATA, "official_split", INPUT, OFFICIAL_HELP)] = None,
    mirror: Annotated[
        bool | None,
        setting(
            DATA,
            "mirror",
            INPUT,
            "Train on mirrored videos too. Not for actions that differ in left and right.",
            "--mirror/--no-mirror",
        ),
    ] = None,
    background: Annotated[
        list[str] | None,
        setting(
            DATA,
            "background",
            INPUT,
            "Footage in which nothing of interest happens: a folder or a long video. It is no action. May be given several times.",
            shown="",
        ),
    ] = None,
    alarms_per_day: Annotated[
        float | None,
        typer.Option(
            "--alarms-per-day",
            help="Fix the threshold with which `fewframes stream` raises at most this many false alarms a day. It comes from "
            "--background: 24 hours of it for 1 a day.",
            show_default="no promise",
            rich_help_panel=INPUT,
        ),
    ] = None,
    model: Annotated[
        str | None,
        setting(
            RUN,
            "start",
            MODEL,
            "Model to start from: a preset, or a trained model's file or folder. Its frame encoder is used again; what "
            "it learned about actions is not, unless --keep-temporal is given. With --head solved also an exported .onnx file; "
            "the result is one again.",
        ),
    ] = None,
    keep_temporal: Annotated[
        bool | None,
        setting(
            RUN,
            "keep_temporal",
            MODEL,
            "Go on from the whole --model: keep its temporal encoder too, and learn only a new head from scratch.",
            "--keep-temporal/--no-keep-temporal",
            shown="kept for the authors' release",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            metavar="NAME",
            help="Another frame encoder: a network of timm, such as timm:vit_base_patch16_siglip_224.v2_webli, or the image half "
            "of a model of open_clip, such as clip:PE-Core-B-16/meta. Its weights are downloaded, and frames are made as it knows "
            "them. The list: `fewframes models --encoders`.",
            show_default="that of --model",
            rich_help_panel=MODEL,
        ),
    ] = None,
    init: Annotated[
        str | None,
        setting(
            RUN,
            "init",
            MODEL,
            "Other weights for the frame encoder: a file, as for a machine without a network, or a timm name.",
            "--weights",
            "--init",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Frames to look at in each video. Fewer are faster, and usually less accurate.",
            show_default="the model's own",
            rich_help_panel=MODEL,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            help="Run file (TOML) with any settings. Options given here override it.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    head: Annotated[
        Literal["trained", "solved"] | None,
        setting(
            RUN.train,
            "head",
            LEARNING,
            "How the actions are learned. trained: a small network, in steps. solved: a linear read-out, in one "
            "calculation of seconds, measured by leaving out each group of videos in turn.",
        ),
    ] = None,
    unfreeze: Annotated[
        str | None,
        setting(
            RUN.train,
            "unfreeze",
            LEARNING,
            "Train the frame encoder too, to fit it to your videos: none, last-N-blocks or all. Takes gigabytes of memory; "
            "see docs/guide/train.md.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        setting(
            RUN.train,
            "teacher",
            LEARNING,
            "Learn from the scores of this model as well as from the labels. It must have the same actions.",
        ),
    ] = None,
    early_exit: Annotated[
        bool | None,
        setting(
            RUN.train,
            "early_exit",
            LEARNING,
            "Train on few frames too, so that `predict --early-exit auto` can answer easy videos sooner.",
            "--early-exit",
        ),
    ] = None,
    boundaries: Annotated[
        bool | None,
        typer.Option(
            "--boundaries/--no-boundaries",
            help="Train a detector of where actions begin and end too, for `timeline`: a minute or two more.",
            show_default="if the data label parts of longer videos",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        setting(
            RUN.train,
            "epochs",
            LEARNING,
            "Times that each video is seen.",
            shown=f"{RUN.train.epochs}; {RUN.train.min_steps} steps at least",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, setting(RUN.train, "learning_rate", LEARNING, "Highest learning rate.")
    ] = None,
    seed: Annotated[
        int | None, setting(RUN.train, "seed", LEARNING, "Random seed of the split and the training.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any setting of a run file, such as train.ema_decay=0.999. May be given several times.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the model and its figures.", rich_help_panel=OUTPUT)
    ],
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the model in the output folder.", rich_help_panel=OUTPUT),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the interrupted run in the output folder, if there is one. A finished run stays as it is.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Teach a model your own actions.

    Each video is encoded once and its embeddings are cached, so training again takes seconds.
    A small network learns from these embeddings. With --head solved there are no steps: a linear read-out is calculated.
    With --unfreeze the frame encoder learns too, on videos that are cropped and coloured anew each time.

    Writes model.safetensors (for `predict --model`), run.toml (the settings), metrics.json, predictions.csv, history.csv,
    curves.png, confusion.png and TensorBoard logs.

    On several processors: torchrun --nproc-per-node 8 -m fewframes.cli train ...
    All settings: docs/guide/train.md.

    Exit codes: 0 done, 1 the data cannot be used, 2 wrong use, 3 done but some videos could not be read.
    """
    from fewframes.data.dataset import read_data
    from fewframes.runtime.open import has_torch

    chosen = changed(
        read_run(run) if run is not None else RUN,
        {
            "start": model,
            "init": init,
            "keep_temporal": keep_temporal,
            "model": {"num_frames": frames, "encoder": encoder},
            "data": {
                "task": task,
                "holdout": holdout,
                "group": group,
                "scenes": scenes,
                "videos": folder,
                "official_split": official_split,
                "mirror": mirror,
                "background": background or None,
                "alarms_per_day": alarms_per_day,
            },
            "train": {
                "head": head,
                "unfreeze": unfreeze,
                "teacher": teacher,
                "early_exit": early_exit,
                "boundaries": None if boundaries is None else "on" if boundaries else "off",
                "epochs": epochs,
                "min_steps": epochs and 1,  # who asks for a number of epochs gets exactly these
                "learning_rate": learning_rate,
                "seed": seed,
            },
        },
    )
    chosen = with_encoder_placed(changed_by_words(chosen, settings or []))
    if chosen.train.head != "solved" and not has_torch():
        raise MissingDependency(
            "training in steps needs torch, which is not installed; pip install 'fewframes[train]', or take --head solved"
        )
    videos = read_data(data, chosen.data)
    _check_names(chosen, output, holdout, resume=resume, overwrite=overwrite)
    videos = _with_scenes(videos, chosen)
    tell_data(data, videos)
    if holdout is not None and {"val", "test"} & {sample.split for sample in videos.samples}:
        tell("--holdout is not used: the data name their own held-out videos")
    command, kept = shlex.join(["fewframes", *sys.argv[1:]]), embedding_cache(cache, unused=no_cache)
    if chosen.train.head == "solved":
        from fewframes.training.solved.run import SolveOptions

        check_boundaries(chosen)
        options_of_head = SolveOptions(cache=kept, device=device, dtype=dtype, overwrite=overwrite, command=command)
        are_whole = _solve(videos, output, chosen, options_of_head)
        finish_with_boundaries(videos, output, chosen, are_whole, cache=kept, device=device, dtype=dtype)
        return
    from fewframes.training.run.folder import RunFolder  # late: it loads torch, which a solved head does not need
    from fewframes.training.train import TrainOptions
    from fewframes.training.train import train as train_model

    options = TrainOptions(cache=kept, device=device, dtype=dtype, overwrite=overwrite, resume=resume, command=command)
    if resume and RunFolder(output, chosen, videos, options.command).finished():
        if is_first_process():
            tell(f"{output}: this run is already finished; use it: fewframes predict VIDEO --model {output}")
        return
    with StageProgress() as progress:
        trained = train_model(videos, output, chosen, options, progress.show)
    if not is_first_process():
        return
    are_whole = _tell_result(trained, len(videos.samples))
    finish_with_boundaries(videos, output, chosen, are_whole, cache=kept, device=device, dtype=dtype)


def _tell_result(trained: TrainingResult, num_videos: int) -> bool:
    """Tell how good a trained model is. Return False if some videos could not be read, or a promise not made."""
    from fewframes.results import tally

    tell_failures(trained.failures)
    read = tally(num_videos - len(trained.failures), "videos read", trained.failures)
    tell(
        f"{read} ({trained.num_cached} from the cache) in {trained.embedding_s:.1f} s; trained in {trained.training_s:.1f} s"
    )
    if trained.evaluation is None:
        missing = "none of the held-out videos could be read" if trained.num_held_out else "nothing was held out"
        tell(f"{missing}, so the accuracy of this model is unknown")
    else:
        first, *others = trained.evaluation.report.lines()
        calibration = [] if trained.evaluation.calibration is None else [f"  {trained.evaluation.calibration}"]
        print_lines([f"held-out videos: {first}", *others, f"  {trained.evaluation.interval}", *calibration])
        tell_notes(trained.evaluation.interval.warning)
    tell(str(trained.calibration))
    if trained.forecast is not None:
        tell(str(trained.forecast))
    return not _tell_background(trained.background) and not trained.failures


def _tell_background(found: ReadBackground | None) -> bool:
    """Tell how much footage was read, and what is promised. Return True if some of it could not be read, or a promise not made."""
    if found is None:
        return False
    tell_failures(found.failures)
    for line in found.lines():
        tell(line)
    return bool(found.failures or found.note)


def _check_names(run: RunConfig, output: Path, holdout: float | None, *, resume: bool, overwrite: bool) -> None:
    """Raise an error for what is missing or in the way, before a single video is decoded."""
    if run.train.head == "solved":
        from fewframes.training.solved.checks import check_settings
        from fewframes.training.solved.files import check_folder

        _check_solved(holdout, resume=resume)
        check_settings(run)
        check_folder(output, overwrite=overwrite)
    else:
        from fewframes.training.run.start import check_start  # late: it loads torch, which a solved head does not need

        check_start(run)


def _with_scenes(videos: VideoSet, run: RunConfig) -> VideoSet:
    """Return the videos with a group for each scene, if they name no groups."""
    from fewframes.data.scenes.groups import with_scenes

    held = 0 if run.train.head == "solved" else run.data.holdout
    with StageProgress() as progress:
        return with_scenes(videos, run.data, held, progress.show)


def _check_solved(holdout: float | None, *, resume: bool) -> None:
    """Raise ConfigError for options that mean nothing if the head is solved. `train_solved` checks the settings themselves."""
    if holdout:
        raise ConfigError(
            f"--holdout {holdout:g} with --head solved: every group is left out in turn, so none is held out; leave --holdout away"
        )
    if (num_processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ConfigError(
            f"torchrun with {num_processes} processes and --head solved: 1 process solves; run it without torchrun"
        )
    if resume:
        raise ConfigError(
            "--resume with --head solved: there is no state to continue from; run it again with --overwrite"
        )


def _solve(videos: VideoSet, output: Path, run: RunConfig, options: SolveOptions) -> bool:
    """Solve a read-out, and tell how good it is. Return False if some videos could not be read, or a promise not made."""
    from fewframes.results import tally
    from fewframes.training.solved.run import train_solved

    with StageProgress() as progress:
        solved = train_solved(videos, output, run, options, progress.show)
    tell_failures(solved.failures)
    read = tally(len(videos.samples) - len(solved.failures), "videos read", solved.failures)
    tell(
        f"{read} ({solved.num_cached} from the cache) in {solved.embedding_s:.1f} s; solved in {solved.solving_s:.1f} s"
    )
    for note in solved.notes:
        tell(note)
    tell(str(solved.calibration))
    for name, figures in (("videos of left-out groups", solved.left_out), ("held-out videos", solved.held_out)):
        if figures is not None:
            first, *others = figures.report.lines()
            print_lines([f"{name}: {first}", *others, f"  {figures.interval}"])
            tell_notes(figures.interval.warning)
    tell(str(solved.forecast))
    return not _tell_background(solved.background) and not solved.failures
