"""The command line: one short function a command. Standard output is for data, standard error for people."""

from __future__ import annotations

import csv
import glob
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.errors import EXIT_SOME_FAILED, FewframesError

if TYPE_CHECKING:  # nothing below may load torch before a command needs it
    from rich.progress import TaskID

    from fewframes.clip import Prediction
    from fewframes.data import VideoSet
    from fewframes.evaluate import Evaluation
    from fewframes.layouts import Sample
    from fewframes.predictor import Failure, Predictor

app = typer.Typer(
    help="Recognise what happens in a video from a handful of its frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List the networks by name, and fetch published weights.", invoke_without_command=True)
app.add_typer(models_app, name="models")

ModelOption = Annotated[str, typer.Option(help="A preset (see `fewframes models`) or a checkpoint file.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="auto (measured here), float32, bfloat16, float16."),
]


def main() -> None:
    """Entry point of the `fewframes` command."""
    try:
        app()
    except FewframesError as error:
        tell(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        tell("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of standard output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


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
    paths = list(expand(sources))
    from fewframes.predictor import Failure, load

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
        raise typer.Exit(EXIT_SOME_FAILED if len(paths) > 1 else 1)


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
    epochs: Annotated[int | None, typer.Option(min=1, help="Times each video is seen.", show_default="80")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.001")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split and the training.", show_default="0")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of frame embeddings; default: the user's cache.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep frame embeddings.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in the output folder.")] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Teach a model your own actions: each video is encoded once and kept, then a small network learns on that.

    Writes model.safetensors (for `predict --model`), metrics.json, confusion.png, history.csv and run.toml. Exit codes: 0
    done, 1 the data cannot be used, 2 wrong use, 3 done but some videos could not be read.
    """
    from fewframes.cache import EmbeddingCache
    from fewframes.config import RunConfig, cache_dir, changed, read_run
    from fewframes.data import read_data
    from fewframes.train import train as train_model

    settings = read_run(run) if run is not None else RunConfig()
    settings = changed(
        settings,
        {
            "start": model,
            "init": init,
            "model": None if frames is None else {**settings.model, "num_frames": frames},
            "data": {
                "task": task,
                "holdout": holdout,
                "group": group,
                "videos": folder,
                "official_split": official_split,
                "mirror": mirror,
            },
            "train": {"epochs": epochs, "learning_rate": learning_rate, "seed": seed},
        },
    )
    videos = read_data(data, settings.data)
    tell_data(data, videos)
    with StageProgress() as progress:
        trained = train_model(
            videos,
            output,
            settings,
            cache=None if no_cache else EmbeddingCache(cache or cache_dir() / "embeddings"),
            device=device,
            dtype=dtype,
            overwrite=overwrite,
            progress=progress.show,
        )
    for failure in trained.failures:
        tell(f"failed: {failure.error}")
    read = len(videos.samples) - len(trained.failures)
    tell(
        f"embedded {read} videos ({trained.num_cached} from the cache) in {trained.embedding_s:.1f} s, {len(trained.failures)} "
        f"failed; trained in {trained.training_s:.1f} s"
    )
    if trained.report is None:
        tell("nothing was held out, so nothing says how good it is")
    else:
        first, *others = trained.report.lines()
        print_lines([f"held-out videos: {first}", *others])
    tell(f"use it: fewframes predict VIDEO --model {output / 'model.safetensors'}")
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
    sweep: Annotated[str, typer.Option(help="Judge with other numbers of frames too, e.g. 4,8,16,32.")] = "",
    task: Annotated[
        Literal["auto", "single", "multilabel"],
        typer.Option(help="One action a video, or any number of them (in one cell, parted by ;)."),
    ] = "auto",
    group: Annotated[str, typer.Option(help="Column of what belongs together (recording, person).")] = "group",
    folder: Annotated[str, typer.Option("--videos", help="Folder of the videos.")] = "",
    official_split: Annotated[int, typer.Option(min=1, help="Which official split (UCF101, HMDB51).")] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder of frame embeddings; default: the user's cache.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep frame embeddings.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of shuffled frames and intervals.")] = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """How often a model is right on your videos, how far to trust that, and what it gets wrong.

    Writes report.html (one file), metrics.json and predictions.csv. Exit codes: 0 done, 1 the data cannot be used, 2 wrong
    use, 3 done but some videos could not be read.
    """
    from fewframes.cache import EmbeddingCache
    from fewframes.config import DataConfig, cache_dir
    from fewframes.data import read_data
    from fewframes.evaluate import evaluate as evaluate_model
    from fewframes.evaluate import write_metrics, write_predictions
    from fewframes.pages import report_page
    from fewframes.predictor import load

    counts = frame_counts(sweep)
    videos = read_data(data, DataConfig(task=task, group=group, videos=folder, official_split=official_split)).part(
        part
    )
    tell_data(data, videos)
    predictor = load(model, device=device, dtype=dtype)
    tell(describe(predictor))
    store = None if no_cache else EmbeddingCache(cache or cache_dir() / "embeddings")
    with StageProgress() as progress:
        evaluation = evaluate_model(videos, predictor, store, sweep=counts, seed=seed, progress=progress.show)
    output.mkdir(parents=True, exist_ok=True)
    write_metrics(evaluation, output / "metrics.json")
    write_predictions(evaluation, predictor.labels, output / "predictions.csv")
    (output / "report.html").write_text(report_page(evaluation, predictor), encoding="utf-8")
    for failure in evaluation.failures:
        tell(f"failed: {failure.error}")
    if evaluation.provenance["trained_on_these"]:
        tell("the model was trained on these data: held-out videos would say more")
    print_lines([f"{evaluation.interval}", *evaluation.report.lines(), *order_lines(evaluation)])
    tell(f"{len(evaluation.samples)} evaluated, {len(evaluation.failures)} failed; {output / 'report.html'}")
    if evaluation.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the networks by name: cost, frames, input, where their weights come from and under which licence."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from fewframes.config import PRESETS

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


def expand(sources: Iterable[str]) -> Iterator[str]:
    """Every video that the sources stand for: files and URLs as they are, folders searched, lists and globs opened."""
    from fewframes.video import find_videos

    for source in sources:
        if source == "-":
            yield from expand(listed(sys.stdin))
        elif source.endswith(".txt") and Path(source).is_file():
            with open(source, encoding="utf-8") as file:
                yield from expand(listed(file))
        elif not os.path.exists(source) and glob.has_magic(source) and "://" not in source:
            found = sorted(glob.glob(source, recursive=True))
            if not found:
                raise FewframesError(f"{source}: the pattern matches nothing; check it, and quote it for the shell")
            yield from expand(found)
        elif os.path.isdir(source):
            yield from find_videos(source)
        else:
            yield source


def listed(lines: Iterable[str]) -> list[str]:
    """The lines that name something: no blanks, no # comments."""
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


Results = Iterable["Prediction | Failure"]


def write_json(results: Results, topk: int) -> Iterator[Prediction | Failure]:
    """One JSON object a line, each written as soon as it is known."""
    import json

    from fewframes.predictor import Failure

    for result in results:
        values = result.to_dict() if isinstance(result, Failure) else result.to_dict(topk)
        typer.echo(json.dumps(values, ensure_ascii=False))
        yield result


def write_csv(results: Results, topk: int) -> Iterator[Prediction | Failure]:
    """A row for each video, failed ones with their reason; `topk` pairs of label and score."""
    from fewframes.predictor import Failure

    ranks = range(1, topk + 1)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["source", "error", *(f"{what}_{rank}" for rank in ranks for what in ("label", "score"))])
    for result in results:
        if isinstance(result, Failure):
            writer.writerow([result.source, result.error] + [""] * 2 * topk)
        else:
            pairs = [cell for label, score in result.top(topk) for cell in (label, f"{score:.6f}")]
            writer.writerow([result.source, "", *pairs, *[""] * (2 * topk - len(pairs))])
        yield result


def write_table(results: Results, topk: int) -> Iterator[Prediction | Failure]:
    """For people: a block for each video with its likeliest actions, and where the model looked."""
    from fewframes.predictor import Failure

    for result in results:
        if not isinstance(result, Failure):
            console().print(block(result, topk), highlight=False, markup=False, soft_wrap=True)
        yield result


def block(prediction: Prediction, topk: int) -> str:
    """One prediction in a few lines of text."""
    top = prediction.top(topk)
    width = max(len(label) for label, _ in top)
    times, attention = prediction.times_s.tolist(), prediction.frame_attention.tolist()
    strip = "".join("▁▂▃▄▅▆▇█"[round(7 * weight / max(attention))] for weight in attention)
    timing = prediction.timing
    return "\n".join(
        [
            prediction.source,
            *(f"  {label:<{width}} {score:6.1%}  {'█' * round(30 * score)}" for label, score in top),
            f"  frames from {times[0]:.2f} s to {times[-1]:.2f} s, attention {strip} most at "
            f"{times[attention.index(max(attention))]:.2f} s",
            f"  decode {timing.decode_s:.3f} s, transform {timing.transform_s:.3f} s, network {timing.network_s:.3f} s",
        ]
    )


def frame_counts(text: str) -> tuple[int, ...]:
    """`4,8,16` as numbers."""
    try:
        counts = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise typer.BadParameter(f"--sweep {text!r}: needs numbers of frames, such as 4,8,16")
    return counts


def order_lines(evaluation: Evaluation) -> list[str]:
    """What the order of frames is worth, and other numbers of frames."""
    order = evaluation.order
    lines = [f"frames backwards {order.backwards:.1%}, in random order {order.shuffled:.1%}"]
    return lines + [f"{num_frames} frames {value:.1%}" for num_frames, value in evaluation.sweep.items()]


def print_lines(lines: Iterable[str]) -> None:
    """Lines on standard output."""
    console().print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def tell_data(source: str, videos: VideoSet) -> None:
    """What was found, and how the first rows were understood."""
    found = f"{len(videos.samples)} videos of {len(videos.labels)} actions"
    tell(f"{source}: {videos.layout}; {found}: {counted(videos.counts())}")
    for sample in videos.samples[:3]:
        tell(f"  {parsed(sample)}")


def parsed(sample: Sample) -> str:
    """How one row was understood."""
    part = f" from {sample.start_s:g} s" if sample.start_s else ""
    part += f" to {sample.end_s:g} s" if sample.end_s is not None else ""
    marks = "".join(f", {name} {value}" for name, value in (("split", sample.split), ("group", sample.group)) if value)
    return f"{sample.path}{part}: {', '.join(sample.labels)}{marks}"


def counted(counts: dict[str, int]) -> str:
    """The labels with their numbers of videos; the first ones when there are many."""
    shown = [f"{label} {count}" for label, count in list(counts.items())[:12]]
    return ", ".join(shown) + (", ..." if len(counts) > 12 else "")


def describe(predictor: Predictor) -> str:
    """Which model runs where, in which precision."""
    precision = str(predictor.dtype).removeprefix("torch.")
    return f"{predictor.name}: {len(predictor.labels)} actions, {predictor.device} in {precision}"


def summary(results: list[Prediction | Failure], seconds: float) -> str:
    """How many were labelled, how many failed, and how fast it went."""
    from fewframes.predictor import Failure

    failed = sum(isinstance(result, Failure) for result in results)
    labelled = len(results) - failed
    return f"{labelled} labelled, {failed} failed in {seconds:.1f} s ({labelled / seconds:.1f} videos/s)"


def with_progress(results: Results, total: int) -> Results:
    """The same results, with a progress bar on standard error when that is a terminal and there is more than one."""
    if total < 2 or not sys.stderr.isatty():
        return results
    from rich.progress import track

    return track(results, description="labelling", total=total, console=console(stderr=True))


class StageProgress:
    """A progress bar for each stage of the work on standard error, when that is a terminal."""

    def __enter__(self) -> StageProgress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self.bars.start()
        self.tasks: dict[str, TaskID] = {}
        return self

    def show(self, stage: str, done: int, total: int) -> None:
        """Move the stage's bar, a new one when it is the first."""
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total)
        self.bars.update(self.tasks[stage], completed=done)

    def __exit__(self, *_: object) -> None:
        self.bars.stop()


def console(*, stderr: bool = False):  # type: ignore[no-untyped-def]
    """Where rich writes."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() or "COLUMNS" in os.environ else 180)


def tell(message: str) -> None:
    """A line for people, on standard error."""
    typer.echo(message, err=True)


if __name__ == "__main__":
    main()
