"""The command line: one short function a command. Standard output is for data, standard error for people."""

from __future__ import annotations

import ctypes
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from fewframes.console import (
    StageProgress,
    console,
    describe,
    evaluation_lines,
    print_lines,
    summary,
    tell,
    tell_data,
    with_progress,
    write_csv,
    write_json,
    write_table,
)
from fewframes.data_commands import data_app
from fewframes.errors import EXIT_SOME_FAILED, FewframesError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from malloc.h."""


class Commands(TyperGroup):
    """The commands, with every end that is no bug as one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FewframesError as error:
            tell(f"error: {error}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            tell("interrupted; what is in the cache stays there, so the same command goes on from it")
            sys.exit(130)
        except BrokenPipeError:  # the reader of standard output, `head` for example, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


app = typer.Typer(
    cls=Commands,
    help="Recognise what happens in a video from a handful of its frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List the networks by name, and fetch published weights.", invoke_without_command=True)
app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")

ModelOption = Annotated[str, typer.Option(help="A preset (see `fewframes models`) or a checkpoint file.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="auto (measured here), float32, bfloat16, float16."),
]


def main() -> None:
    """Entry point of the `fewframes` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files and the terminal's encoding need not agree
            stream.reconfigure(errors="backslashreplace")
    keep_memory()
    app()


def keep_memory() -> None:
    """Let malloc keep what the network frees, instead of fetching it zeroed again for each layer (docs/decisions.md).

    The command owns its process and may; a library may not. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # older glibc refuses more
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@app.command()
def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Videos, folders, globs, URLs, a .txt file with one of these a line, or - to read such lines.",
        ),
    ],
    model: ModelOption = "lite0-16",
    topk: Annotated[int, typer.Option(min=1, help="Actions to name for each video.")] = 5,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames to look at; default: the model's own.")] = None,
    start: Annotated[float, typer.Option(min=0, help="Look from this second on.")] = 0.0,
    end: Annotated[float | None, typer.Option(min=0, help="Look up to this second; default: the end.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Videos decoded at a time; default: one a core.")] = None,
) -> None:
    """Name what happens in videos.

    Exit codes: 0 all labelled, 1 the one video given failed, 2 wrong use, 3 some of many failed.
    """
    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from fewframes.predictor import Failure, load
    from fewframes.sources import expand

    paths = list(expand(sources))
    if not paths:
        raise FewframesError("no videos were named; pass files, folders, globs, URLs or a list of them")

    began = time.perf_counter()
    predictor = load(model, device=device, dtype=dtype)
    tell(f"{describe(predictor)}, loaded in {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    results = predictor.predict_many(paths, num_frames=frames, start_s=start, end_s=end, workers=workers)
    write = write_json if json else write_csv if as_csv else write_table
    shown = list(write(with_progress(results, len(paths)), topk))
    failures = [result for result in shown if isinstance(result, Failure)]
    for failure in failures:
        tell(f"failed: {failure.error}")
    tell(summary(shown, time.perf_counter() - began))
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED if len(paths) > 1 else failures[0].exit_code)


@app.command()
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
        typer.Option(help="Start from this preset or checkpoint: its frame encoder is kept.", show_default="lite0-16"),
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
        typer.Option(help="Let the frame encoder learn too: none, last-N-blocks, all.", show_default="none"),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="A model whose scores are learned beside the labels.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Times each video is seen.", show_default="80; 300 steps at least")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.001")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split and the training.", show_default="0")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting of a run file, such as train.ema_decay=0.999; may be given often."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of frame embeddings; default: the user's cache.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep frame embeddings.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in the output folder.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in the output folder, if there is one.")
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
    from fewframes.cache import EmbeddingCache
    from fewframes.config import RunConfig, cache_dir, changed, changed_by_words, read_run
    from fewframes.data import read_data
    from fewframes.train import Options
    from fewframes.train import train as train_model

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
    options = Options(
        cache=None if no_cache else EmbeddingCache(cache or cache_dir() / "embeddings"),
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        resume=resume,
        command=shlex.join(["fewframes", *sys.argv[1:]]),
    )
    with StageProgress() as progress:
        trained = train_model(videos, output, chosen, options, progress.show)
    if not trained.is_main_process:
        return
    for failure in trained.failures:
        tell(f"failed: {failure.error}")
    read = len(videos.samples) - len(trained.failures)
    tell(
        f"read {read} videos ({trained.num_cached} from the cache) in {trained.embedding_s:.1f} s, {len(trained.failures)} "
        f"failed; trained in {trained.training_s:.1f} s"
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


@app.command()
def evaluate(
    data: Annotated[str, typer.Argument(metavar="FOLDER|LIST", help="Labelled videos, as for `train`.")],
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
    task: Annotated[
        Literal["auto", "single", "multilabel"],
        typer.Option(help="One action a video, or any number of them (in one cell, parted by ;)."),
    ] = "auto",
    group: Annotated[str, typer.Option(help="Column of what belongs together (recording, person).")] = "group",
    folder: Annotated[str, typer.Option("--videos", help="Folder of the videos.")] = "",
    official_split: Annotated[int, typer.Option(min=1, help="Which official split (UCF101, HMDB51).")] = 1,
    predictions: Annotated[Literal["csv", "parquet"], typer.Option(help="Format of the table of predictions.")] = "csv",
    cache: Annotated[Path | None, typer.Option(help="Folder of frame embeddings; default: the user's cache.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep frame embeddings.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of shuffled frames and intervals.")] = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """How often a model is right on your videos, how far to trust that, and what it gets wrong.

    Writes report.html (one file), metrics.json and predictions.csv (or .parquet). Exit codes: 0 done, 1 the data cannot be
    used, 2 wrong use, 3 done but some videos could not be read, 4 Parquet without pyarrow.
    """
    from fewframes.cache import EmbeddingCache
    from fewframes.config import DataConfig, cache_dir
    from fewframes.data import read_data
    from fewframes.evaluate import EvaluateConfig
    from fewframes.evaluate import evaluate as evaluate_model
    from fewframes.pages import report_page
    from fewframes.predictor import load, tally
    from fewframes.sampling import Views
    from fewframes.tables import check_format, write_metrics, write_predictions

    settings = EvaluateConfig(
        views=Views.parse(views, clip_s),
        sweep=frame_counts(sweep),
        order=not no_order,
        official_subset=official_subset,
        seed=seed,
    )
    check_format(predictions)
    videos = read_data(data, DataConfig(task=task, group=group, videos=folder, official_split=official_split)).part(
        part
    )
    tell_data(data, videos)
    predictor = load(model, device=device, dtype=dtype)
    tell(describe(predictor))
    store = None if no_cache else EmbeddingCache(cache or cache_dir() / "embeddings")
    with StageProgress() as progress:
        evaluation = evaluate_model(videos, predictor, store, settings, progress=progress.show)
    output.mkdir(parents=True, exist_ok=True)
    write_metrics(evaluation, output / "metrics.json")
    for stale in ("csv", "parquet"):  # of an earlier run in the other format
        (output / f"predictions.{stale}").unlink(missing_ok=True)
    write_predictions(evaluation, predictor.labels, output / f"predictions.{predictions}")
    (output / "report.html").write_text(report_page(evaluation, predictor), encoding="utf-8", errors="replace")
    for failure in evaluation.failures:
        tell(f"failed: {failure.error}")
    if evaluation.provenance["trained_on_these"]:
        tell("the model was trained on these data: held-out videos would say more")
    print_lines(evaluation_lines(evaluation))
    tell(f"{tally(len(evaluation.samples), 'evaluated', evaluation.failures)}; {output / 'report.html'}")
    if evaluation.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the networks by name: cost, frames, input, where their weights come from and under which licence."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from fewframes.presets import PRESETS

    table = Table("name", "params", "GMACs", "frames", "weights", "licence", "of the paper", box=None, pad_edge=False)
    for column in table.columns[:5]:
        column.no_wrap = True
    for column in table.columns[1:3]:
        column.justify = "right"
    for name, preset in PRESETS.items():
        weights = {
            "packaged": "in this package",
            "released": f"fewframes models pull {name}",
            "": f"start: {preset.init}",
        }
        table.add_row(
            name,
            f"{preset.num_parameters / 1e6:.1f} M",
            f"{preset.gmacs:.1f} + {preset.attention_gmacs:.2f}",
            f"{preset.model.num_frames} x {preset.model.image_size} px",
            weights[preset.weights],
            preset.licence,
            preset.paper,
        )
    console().print(table)
    tell(
        "GMACs: multiply-adds of one video in units of 1e9, without attention's products as the paper counts, + those; "
        "FLOPs are twice the sum. The paper's own figures stand beside its rows; docs/paper.md explains differences."
    )


@models_app.command()
def pull(
    name: Annotated[str, typer.Argument(help="stam-8, stam-16, stam-32 or stam-64.")],
    file: Annotated[str | None, typer.Option(help="Take this file instead of downloading.")] = None,
) -> None:
    """Fetch the weights the paper's authors published, check that they load, and keep them."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from fewframes.weights import pull as pull_weights

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        path = pull_weights(
            name, file=file, progress=lambda done, total: progress.update(task, completed=done, total=total or None)
        )
    tell(f"{name}: checked and kept as {path}")


@app.command()
def doctor(device: DeviceOption = "auto") -> None:
    """What this installation has, what it will use, and what to install for what is missing."""
    from fewframes.doctor import examine

    for line in examine(device):
        console().print(line, highlight=False, markup=False, soft_wrap=True)


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        from fewframes import __version__

        console().print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


def frame_counts(text: str) -> tuple[int, ...]:
    """`4,8,16` as numbers."""
    try:
        counts = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise typer.BadParameter(f"--sweep {text!r}: needs numbers of frames, such as 4,8,16")
    return counts


if __name__ == "__main__":
    main()
