"""The command line: one short function a command. Standard output is for data, standard error for people."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fewframes.cli.bench import bench
from fewframes.cli.console import (
    Results,
    console,
    describe,
    summary,
    tell,
    with_progress,
    write_csv,
    write_json,
    write_table,
)
from fewframes.cli.data import data_app
from fewframes.cli.embed import embed
from fewframes.cli.engine import EngineOption, ShardRowsOption, write_folder
from fewframes.cli.explain import ExplainOption, MapOption, explained, plan_pictures
from fewframes.cli.export import export, labelled_by_graph
from fewframes.cli.train import evaluate, train
from fewframes.cli.options import (
    BackendOption,
    DeviceOption,
    DtypeOption,
    EarlyExitOption,
    EndOption,
    FramesOption,
    MergeOption,
    ModelOption,
    SourcesArgument,
    StartOption,
    ToleranceOption,
    WorkersOption,
    exit_at,
    named_videos,
)
from fewframes.cli.search import index, search
from fewframes.cli.serve import serve
from fewframes.cli.stream import stream
from fewframes.cli.timeline import timeline
from fewframes.core.memory import keep_memory
from fewframes.errors import EXIT_SOME_FAILED, FewframesError

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.explain import Explanation
    from fewframes.results import Failure, Prediction


NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
"""What the system says where something cannot be written: no bug of ours."""


class Commands(TyperGroup):
    """The commands, with every end that is no bug as one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # else what cannot be written shows when the interpreter ends, as a traceback
        except FewframesError as error:
            tell(f"error: {error}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            tell("interrupted; what is in the cache stays there, so the same command goes on from it")
            sys.exit(130)
        except BrokenPipeError:  # the reader of standard output, `head` for example, has seen enough
            _discard_output()
            sys.exit(0)
        except OSError as error:
            if error.errno not in NOT_WRITTEN:
                raise
            _discard_output()
            tell(f"error: {error.filename or 'standard output'}: cannot be written ({error.strerror}); make room")
            sys.exit(1)


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=Commands,
    help="Recognise what happens in a video from a handful of its frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List the networks by name, and fetch published weights.", invoke_without_command=True)
app.add_typer(models_app, name="models")
app.command()(train)
app.command()(evaluate)
app.command()(bench)
app.command()(embed)
app.command()(export)
app.command()(timeline)
app.command()(serve)
app.command()(stream)
app.command()(index)
app.command()(search)
app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point of the `fewframes` command."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # names of files and the terminal's encoding need not agree
            output.reconfigure(errors="backslashreplace")
    keep_memory()
    app()


@app.command()
def predict(
    sources: SourcesArgument,
    model: ModelOption = "lite0-16",
    topk: Annotated[int, typer.Option(min=1, help="Actions to name for each video.")] = 5,
    frames: FramesOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    tolerance: ToleranceOption = 0.0,
    early_exit: EarlyExitOption = None,
    merge: MergeOption = None,
    backend: BackendOption = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    explain: ExplainOption = None,
    maps: MapOption = "auto",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    workers: WorkersOption = None,
    engine: EngineOption = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder (or URL) for --engine to write to.")
    ] = None,
    shard_rows: ShardRowsOption = 1000,
) -> None:
    """Name what happens in videos.

    Exit codes: 0 all labelled, 1 the one video given failed, 2 wrong use, 3 some of many failed (with --engine: one or more).
    """
    for wrong, words in (
        (
            (engine is None) != (output is None),
            "--engine and --output go together: who computes, and a folder for the rows",
        ),
        (engine and (json or as_csv or explain), "--engine writes Parquet; leave out --json, --csv and --explain"),
        (json and as_csv, "--json and --csv exclude each other"),
        (
            explain is not None and (early_exit is not None or tolerance),
            "--explain shows what the model makes of all its frames at their exact moments; leave out --early-exit and --tolerance",
        ),
        (explain is None and maps != "auto", "--map is for --explain; name a picture with it"),
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
    from fewframes.models.formats import format_of

    paths = named_videos(sources)
    pictures = [] if explain is None else plan_pictures(explain, paths)
    if format_of(model) is not None:
        unused = {
            "--explain": explain is not None,
            "--early-exit": early_exit is not None,
            "--tolerance": tolerance > 0,
            "--merge": merge is not None,
            "--backend": backend == "torchcodec",
            "--dtype": dtype != "auto",
            "--device": device not in ("auto", "cpu"),
        }
        results: Results = labelled_by_graph(
            model, paths, unused, num_frames=frames, start_s=start, end_s=end, workers=workers
        )
    else:
        from fewframes.inference.predictor import load

        began = time.perf_counter()
        predictor = load(model, device=device, dtype=dtype, backend=backend, merge=merge)
        tell(f"{describe(predictor)}, loaded in {time.perf_counter() - began:.1f} s")
        results = (
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
    """Name what failed, and end with the exit code that says so."""
    from fewframes.results import Failure

    failures = [result for result in shown if isinstance(result, Failure)]
    for failure in failures:
        tell(f"failed: {failure.error}")
    tell(summary(shown, seconds))
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED if len(shown) > 1 else failures[0].exit_code)


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the networks by name: cost, frames, input, where their weights come from and under which licence."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from fewframes.models.presets import PRESETS

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

    from fewframes.models.hub import pull as pull_weights

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        path = pull_weights(
            name, file=file, progress=lambda done, total: progress.update(task, completed=done, total=total or None)
        )
    tell(f"{name}: checked and kept as {path}")


@app.command()
def doctor(device: DeviceOption = "auto") -> None:
    """What this installation has, what it will use, and what to install for what is missing."""
    from fewframes.cli.doctor import examine

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
