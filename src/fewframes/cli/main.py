"""The `fewframes` command: its verbs in the order of `--help`, and one exit code for each kind of error.

Each verb is a file beside this one, but for `predict`, `models` and `doctor`. Standard output is for data, standard error for
people.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewframes.cli.bench import bench
from fewframes.cli.console import (
    Results,
    console,
    describe,
    summary,
    tell,
    tell_failures,
    with_progress,
    write_csv,
    write_json,
    write_table,
)
from fewframes.cli.data import data_app
from fewframes.cli.embed import embed
from fewframes.cli.engine import EngineOption, ShardRowsOption, write_folder
from fewframes.cli.evaluate import evaluate
from fewframes.cli.explain import ExplainOption, MapOption, explained, plan_pictures
from fewframes.cli.export import export
from fewframes.cli.help import Command, Commands
from fewframes.cli.index import index
from fewframes.cli.options import (
    LARGE_RUNS,
    OUTPUT,
    BackendOption,
    CsvOption,
    DeviceOption,
    DtypeOption,
    EarlyExitOption,
    EndOption,
    FramesOption,
    JsonOption,
    MergeOption,
    ModelOption,
    RuntimeOption,
    SourcesArgument,
    StartOption,
    ToleranceOption,
    WorkersOption,
    exit_at,
    named_videos,
)
from fewframes.cli.search import search
from fewframes.cli.serve import serve
from fewframes.cli.stream import stream
from fewframes.cli.timeline import timeline
from fewframes.cli.train import train
from fewframes.core.process import keep_memory
from fewframes.errors import EXIT_SOME_FAILED, FewframesError, missing_training

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.explain import Explanation
    from fewframes.results import Failure, Prediction


NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
"""Errors of the system that mean that a file cannot be written: a full or read-only disk is not a bug."""


class Main(Commands):
    """The group of all verbs, which turns every error that is not a bug into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # else a write error would surface as a traceback when the interpreter ends
        except FewframesError as error:
            tell(f"error: {error}")
            sys.exit(error.exit_code)
        except ModuleNotFoundError as error:  # commands import what they need before they work
            missing = missing_training(error)
            if missing is None:
                raise
            tell(f"error: {missing}")
            sys.exit(missing.exit_code)
        except KeyboardInterrupt:
            tell("interrupted; cached embeddings are kept, so the same command continues from them")
            sys.exit(130)
        except BrokenPipeError:  # the reader of standard output, such as `head`, needs no more
            _discard_output()
            sys.exit(0)
        except OSError as error:
            if error.errno not in NOT_WRITTEN:
                raise
            _discard_output()
            tell(f"error: {error.filename or 'standard output'}: cannot be written ({error.strerror}); free some space")
            sys.exit(1)


def _discard_output() -> None:
    """Send what is still buffered for standard output to nowhere; else it would raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=Main,
    help="Recognise what happens in a video from a handful of its frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
models_app = typer.Typer(cls=Commands, invoke_without_command=True)


def main() -> None:
    """Entry point of the `fewframes` command."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # the terminal's encoding may lack characters of file names
            output.reconfigure(errors="backslashreplace")
    keep_memory()
    app()


def predict(
    sources: SourcesArgument,
    frames: FramesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    model: ModelOption = "lite0-16",
    topk: Annotated[
        int, typer.Option(min=1, help="Number of actions to name for each video.", rich_help_panel=OUTPUT)
    ] = 5,
    json: JsonOption = False,
    as_csv: CsvOption = False,
    explain: ExplainOption = None,
    maps: MapOption = "auto",
    tolerance: ToleranceOption = 0.0,
    early_exit: EarlyExitOption = None,
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
        (engine and (json or as_csv or explain), "--engine writes Parquet; leave out --json, --csv and --explain"),
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
    if engine is not None and output is not None:
        from fewframes.batch.rows import VideoJob

        job = VideoJob(
            columns="actions", model=model, topk=topk, num_frames=frames, start_s=start, end_s=end, tolerance=tolerance,
            early_exit=exit_at(early_exit), merge=merge, backend=backend, device=device, dtype=dtype, workers=workers,
        )  # fmt: skip
        write_folder(job, sources, output, engine, shard_rows, "labelling")
        return
    from fewframes.inference.predictor import load
    from fewframes.models.files.formats import format_of
    from fewframes.runtime.open import has_torch

    paths = named_videos(sources)
    pictures = [] if explain is None else plan_pictures(explain, paths)
    began = time.perf_counter()
    if explain is not None and maps != "none" and runtime == "auto" and format_of(model) is None and has_torch():
        runtime = "torch"  # only torch draws maps
    predictor = load(model, device=device, dtype=dtype, backend=backend, merge=merge, runtime=runtime)
    tell(f"{describe(predictor)}, loaded in {time.perf_counter() - began:.1f} s")
    results: Results = (
        predictor.predict_many(
            paths,
            num_frames=frames,
            start_s=start,
            end_s=end,
            tolerance=tolerance,
            early_exit=exit_at(early_exit),
            workers=workers,
        )
        if explain is None
        else explained(predictor, paths, pictures, maps=maps, num_frames=frames, start_s=start, end_s=end)
    )
    began = time.perf_counter()
    write = write_json if json else write_csv if as_csv else write_table
    _end(list(write(with_progress(results, len(paths), "labelling"), topk)), time.perf_counter() - began)


def _end(shown: list[Prediction | Explanation | Failure], seconds: float) -> None:
    """Print the failures and the tally. If a video failed, end the command with the exit code for that."""
    from fewframes.results import Failure

    failures = [result for result in shown if isinstance(result, Failure)]
    tell_failures(failures)
    tell(summary(shown, seconds))
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED if len(shown) > 1 else failures[0].exit_code)


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the models with their size, cost, input, weights and licence; fetch published weights."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from fewframes.models.presets import PRESETS

    table = Table(
        "name",
        "parameters",
        "billion multiply-adds",
        "frames",
        "weights",
        "licence",
        "of the paper",
        box=None,
        pad_edge=False,
    )
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
            f"{preset.gmacs + preset.attention_gmacs:.1f}",
            f"{preset.model.num_frames} x {preset.model.image_size} px",
            weights[preset.weights],
            preset.licence,
            preset.paper,
        )
    console().print(table)
    tell(
        "Multiply-adds are for one video. The paper counts them without the products of attention, so its figures are a little "
        "lower; docs/explanation/paper.md compares them."
    )


@models_app.command(cls=Command)
def pull(
    name: Annotated[str, typer.Argument(help="Weights to fetch: stam-8, stam-16, stam-32 or stam-64.")],
    file: Annotated[str | None, typer.Option(help="Use this file instead of downloading one.")] = None,
) -> None:
    """Fetch the weights that the paper's authors published, check that they load, and store them for `--model`."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from fewframes.models.files.hub import pull as pull_weights

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        path = pull_weights(
            name, file=file, progress=lambda done, total: progress.update(task, completed=done, total=total or None)
        )
    tell(f"{name}: checked, and stored as {path}")


def doctor(device: DeviceOption = "auto") -> None:
    """Show what is installed, what this machine will use, and what is missing."""
    from fewframes.cli.doctor import examine

    for line in examine(device):
        console().print(line, highlight=False, markup=False, soft_wrap=True)


def version(value: bool) -> None:
    """Print the version, a bare number that scripts can read, and end the command."""
    if value:
        from fewframes.core.version import __version__

        console().print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


# The verbs as `--help` shows them. Groups (models, data) come after the plain verbs of their box.
VERBS = {
    "Recognise": (predict, timeline, stream),
    "Learn": (train, evaluate),
    "Search": (index, search, embed),
    "Use elsewhere": (serve, export),
    "This machine": (doctor, bench),
}
for box, verbs in VERBS.items():
    for verb in verbs:
        app.command(cls=Command, rich_help_panel=box)(verb)
app.add_typer(data_app, name="data", rich_help_panel="Learn")
app.add_typer(models_app, name="models", rich_help_panel="Learn")
