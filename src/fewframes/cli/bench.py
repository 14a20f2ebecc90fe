"""`fewframes bench`: measure the speed, cost and memory of models side by side on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import StageProgress, console, tell
from fewframes.cli.options import (
    INPUT,
    OUTPUT,
    CsvOption,
    DeviceOption,
    MergeOption,
    ToleranceOption,
    check_writable,
    frame_counts,
    make_folder,
)
from fewframes.core.files import write_file
from fewframes.errors import EXIT_SOME_FAILED, ConfigError

if TYPE_CHECKING:
    from fewframes.bench.results import Bench
    from fewframes.bench.tables import TableFormat

BENCH_FILES: tuple[tuple[str, TableFormat], ...] = (
    ("bench.json", "json"),
    ("bench.csv", "csv"),
    ("table.md", "markdown"),
)
SCALING_FILES: tuple[tuple[str, TableFormat], ...] = (("scaling.json", "json"), ("scaling.csv", "csv"))
MEASURING, SCALING = "Measuring", "Time over frames"
DEFAULT_SYSTEMS = ("lite0-16", "stam-16", "x3d-m", "x3d-l", "slowfast-8x8-r50", "tsm-r50")


def bench(
    systems: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SYSTEM...]",
            help="Systems to compare: names (see --list), files or folders of trained models, hf:FOLDER, hf:OWNER/NAME, or `all`. "
            "By default " + ", ".join(DEFAULT_SYSTEMS) + ".",
            show_default=False,
        ),
    ] = None,
    show: Annotated[
        bool,
        typer.Option("--list", help="List the systems with their frames and views, and stop.", rich_help_panel=INPUT),
    ] = False,
    clip: Annotated[
        str | None,
        typer.Option(help="Video to decode.", show_default="one of 10 s that is made for this", rich_help_panel=INPUT),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Labelled videos, to measure the accuracy of systems that have weights.",
            show_default=False,
            rich_help_panel=INPUT,
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Kinetics-400 weights of a system, with the names of its library. May be given several times.",
            show_default=False,
            rich_help_panel=INPUT,
        ),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(min=1, help="Turns of each system. More make the figures surer.", rich_help_panel=MEASURING),
    ] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Approximate seconds of a turn.", rich_help_panel=MEASURING)
    ] = 3.0,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling",
            help="Measure time and memory over the number of frames instead, for three layouts of attention over time.",
            rich_help_panel=SCALING,
        ),
    ] = False,
    preset: Annotated[
        str, typer.Option(help="Preset whose ViT --scaling runs.", rich_help_panel=SCALING)
    ] = "vit-ti-16",
    frames: Annotated[
        str, typer.Option(help="Numbers of frames for --scaling.", rich_help_panel=SCALING)
    ] = "4,8,16,32,64,128",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write bench.json, bench.csv, table.md and figure1.png (with --scaling: scaling.*) to this folder.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            help="Draw the paper's Figure 1 for this machine, as .png or .svg.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print the paper's Table 1 as Markdown.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", rich_help_panel=OUTPUT)] = False,
    as_csv: CsvOption = False,
    tolerance: ToleranceOption = 0.0,
    merge: MergeOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Compare the speed, cost and memory of models on this machine.

    Turns are interleaved: all systems have their first before any has its second. Each turn is a process of its own.
    Speed is measured with random weights.
    --tolerance and --merge apply to our own models only.

    Exit codes: 0 all measured, 2 wrong use, 3 some could not be measured, 130 interrupted.
    """
    if table + as_json + as_csv > 1:
        raise typer.BadParameter("--table, --json and --csv exclude each other")
    if show:
        _list()
        return
    if scaling and (systems or clip or data or weights or table or tolerance or merge):
        raise typer.BadParameter(
            "--scaling takes --preset, --frames, --seconds, --output, --plot, --json and --csv; leave the others out"
        )
    for path in plot or ():
        _check_picture(path)
    form: TableFormat = "json" if as_json else "csv" if as_csv else "markdown" if table else "table"
    if output is not None:
        make_folder(output)
    from fewframes.bench import tables

    if scaling:
        _scale(preset, frame_counts(frames, "--frames"), seconds, device, form, output, plot or [])
        return
    result = _measured(systems, clip, data, weights, rounds, seconds, device, tolerance, merge or 0)
    typer.echo(tables.bench_text(result.to_dict(), form))
    _write(result, output, plot or [])
    for missed in result.missed:
        tell(f"failed: {missed.name}: {missed.reason}")
    tell(f"{len(result.rows)} measured, {len(result.missed)} failed, on {result.machine}")
    if result.interrupted:
        tell("interrupted: the table has what was measured until then")
        raise typer.Exit(130)
    if result.missed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _measured(
    systems: list[str] | None,
    clip: str | None,
    data: str | None,
    weights: list[str] | None,
    rounds: int,
    seconds: float,
    device: str,
    tolerance: float,
    merge: int,
) -> Bench:
    """Measure the systems with a bar of progress; a clip that was not given is made in a folder that is removed again.

    Args:
        systems: Names, files, or `all`; None is `DEFAULT_SYSTEMS`.
        clip: Video to decode; None makes one.
        data: Labelled videos to measure accuracy on, if any.
        weights: Texts NAME=FILE.
        rounds: Turns of each system.
        seconds: Approximate seconds of a turn.
        device: Name of the device.
        tolerance: How far the timestamps of our models may move, as a fraction of the interval between frames.
        merge: Patches to merge in each block of our ViTs.
    """
    from tempfile import TemporaryDirectory

    from fewframes.bench.clip import write_clip
    from fewframes.bench.measure import bench as measure
    from fewframes.data.dataset import read_data
    from fewframes.models.baselines.catalogue import BASELINES, baseline_of

    files = dict(_weights_of(text) for text in weights or ())
    names = [name for part in systems or DEFAULT_SYSTEMS for name in (BASELINES if part == "all" else [part])]
    with TemporaryDirectory(prefix="fewframes-") as folder, StageProgress() as progress:
        if clip is None:
            for name in names:
                baseline_of(name)  # an unknown name fails before seconds go into the clip
            clip = str(write_clip(Path(folder) / "made, 10 s, 340x256, 30 a second.mp4"))
        return measure(
            names,
            device=device,
            rounds=rounds,
            seconds=seconds,
            clip=clip,
            data=None if data is None else read_data(data).part("auto"),
            weights=files,
            tolerance=tolerance,
            merge=merge,
            progress=progress.show,
        )


def _weights_of(text: str) -> tuple[str, str]:
    """Return the name and the file in a text NAME=FILE. Raises ConfigError for anything else."""
    name, equals, file = text.partition("=")
    if not equals or not file:
        raise ConfigError(f"--weights {text!r}: needs NAME=FILE, such as x3d-m=x3d_m.pyth")
    return name, file


def _write(result: Bench, output: Path | None, plot: list[Path]) -> None:
    """Write the tables and the picture into the folder, and the picture to each path of `plot`."""
    from fewframes.bench import tables

    if output is not None:
        for name, form in BENCH_FILES:
            write_file(output / name, tables.bench_text(result.to_dict(), form) + "\n")
        plot = [*plot, output / "figure1.png"]
    for path in plot:
        tables.write_picture(tables.figure_1(result.to_dict()), path)


def _scale(
    preset: str,
    counts: tuple[int, ...],
    seconds: float,
    device: str,
    form: TableFormat,
    output: Path | None,
    plot: list[Path],
) -> None:
    """Measure time and memory over numbers of frames, print them, and write them to the folder and the pictures."""
    from fewframes.bench import tables
    from fewframes.bench.scaling import scale

    with StageProgress() as progress:
        points = scale(preset, frames=counts, device=device, seconds=seconds, progress=progress.show)
    typer.echo(tables.scaling_text(points, form))
    if output is not None:
        for name, kind in SCALING_FILES:
            write_file(output / name, tables.scaling_text(points, kind) + "\n")
        plot = [*plot, output / "scaling.png"]
    for path in plot:
        tables.write_picture(tables.scaling_figure(points, preset), path)


def _check_picture(path: Path) -> None:
    """Check the name and the place of a picture, before minutes of work. Raises ConfigError."""
    if path.suffix not in {".png", ".svg"}:
        raise ConfigError(f"--plot {path}: needs a name that ends in .png or .svg")
    check_writable(path, "--plot")


def _list() -> None:
    """Print a table of all systems: their frames and views, the package they need, their published accuracy."""
    from rich.table import Table

    from fewframes.models.baselines.catalogue import BASELINES

    table = Table("name", "protocol", "frames read", "px", "needs", "published top-1", box=None, pad_edge=False)
    for name, baseline in BASELINES.items():
        top1 = baseline.published.top1
        table.add_row(
            name,
            baseline.views.describe(baseline.frames),
            str(baseline.frames_read),
            str(baseline.size_px),
            baseline.package,
            "" if top1 is None else f"{top1:.1f}",
        )
    console().print(table)
