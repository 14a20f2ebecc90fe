"""`fewframes bench`: what systems cost on this machine, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewframes.cli.console import StageProgress, console, tell
from fewframes.cli.options import DeviceOption, MergeOption, ToleranceOption, check_writable, frame_counts, make_folder
from fewframes.core.files import write_file
from fewframes.errors import EXIT_SOME_FAILED, ConfigError

if TYPE_CHECKING:
    from fewframes.bench.measure import Bench
    from fewframes.bench.tables import TableFormat

BENCH_FILES: tuple[tuple[str, TableFormat], ...] = (
    ("bench.json", "json"),
    ("bench.csv", "csv"),
    ("table.md", "markdown"),
)
SCALING_FILES: tuple[tuple[str, TableFormat], ...] = (("scaling.json", "json"), ("scaling.csv", "csv"))
DEFAULT_CONTENDERS = ("lite0-16", "stam-16", "x3d-m", "x3d-l", "slowfast-8x8-r50", "tsm-r50")


def bench(
    contenders: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONTENDER...]",
            help="Systems by name (--list), or files of our models; `all` for every one; default: "
            + ", ".join(DEFAULT_CONTENDERS),
            show_default=False,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the contenders and their protocols, and stop.")] = False,
    clip: Annotated[
        str | None,
        typer.Option(help="Video to decode; default: one of 10 s that is made for this.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled videos: those that have weights are judged too.", show_default=False)
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="Kinetics-400 weights of a contender, its library's names.", show_default=False
        ),
    ] = None,
    tolerance: ToleranceOption = 0.0,
    merge: MergeOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.01, help="Seconds of a turn, about.")] = 3.0,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling", help="Instead: time and memory over frames, for three places of attention over time."
        ),
    ] = False,
    preset: Annotated[str, typer.Option(help="Whose ViT --scaling runs.")] = "vit-ti-16",
    frames: Annotated[str, typer.Option(help="Numbers of frames for --scaling.")] = "4,8,16,32,64,128",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for all of it: bench.json, bench.csv, table.md, figure1.png (scaling.*).", show_default=False
        ),
    ] = None,
    plot: Annotated[
        list[Path] | None,
        typer.Option(help="Draw it as .png or .svg: the paper's Figure 1 for this machine.", show_default=False),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Table 1 as Markdown on standard output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Measure systems side by side on this machine: cost, videos/s, latency, memory.

    Each turn is a process of its own, by turns A B A B. Random weights serve for speed. Exit codes: 0 all measured, 3 some
    could not be.
    """
    if table + as_json + as_csv > 1:
        raise typer.BadParameter("--table, --json and --csv exclude each other")
    if show:
        _list()
        return
    if scaling and (contenders or clip or data or weights or table or tolerance or merge):
        raise typer.BadParameter(
            "--scaling takes --preset, --frames, --seconds, --output, --plot, --json and --csv; leave the others out"
        )
    for path in plot or ():
        _check_picture(path)
    form: TableFormat = "json" if as_json else "csv" if as_csv else "markdown" if table else "table"
    if output is not None:
        make_folder(output)
    from fewframes.bench import tables as compared

    if scaling:
        _scale(preset, frame_counts(frames, "--frames"), seconds, device, form, output, plot or [])
        return
    result = _measured(contenders, clip, data, weights, rounds, seconds, device, tolerance, merge or 0)
    typer.echo(compared.bench_text(result.to_dict(), form))
    _write(result, output, plot or [])
    for missed in result.missed:
        tell(f"missing: {missed.name}: {missed.reason}")
    tell(f"{len(result.rows)} measured, {len(result.missed)} failed, on {result.machine}")
    if result.interrupted:
        tell("interrupted: this is what was measured until then")
        raise typer.Exit(130)
    if result.missed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _measured(
    contenders: list[str] | None,
    clip: str | None,
    data: str | None,
    weights: list[str] | None,
    rounds: int,
    seconds: float,
    device: str,
    tolerance: float,
    merge: int,
) -> Bench:
    from tempfile import TemporaryDirectory

    from fewframes.bench.contenders import CONTENDERS, contender_of
    from fewframes.bench.measure import bench as measure
    from fewframes.bench.measure import write_clip
    from fewframes.data.dataset import read_data

    files = dict(_weights_of(text) for text in weights or ())
    names = [name for part in contenders or DEFAULT_CONTENDERS for name in (CONTENDERS if part == "all" else [part])]
    with TemporaryDirectory(prefix="fewframes-") as folder, StageProgress() as progress:
        if clip is None:
            for name in names:
                contender_of(name)
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
    name, equals, file = text.partition("=")
    if not equals or not file:
        raise ConfigError(f"--weights {text!r}: needs NAME=FILE, such as x3d-m=x3d_m.pyth")
    return name, file


def _write(result: Bench, output: Path | None, plot: list[Path]) -> None:
    from fewframes.bench import tables as compared

    if output is not None:
        for name, form in BENCH_FILES:
            write_file(output / name, compared.bench_text(result.to_dict(), form) + "\n")
        plot = [*plot, output / "figure1.png"]
    for path in plot:
        compared.write_picture(compared.figure_1(result.to_dict()), path)


def _scale(
    preset: str,
    counts: tuple[int, ...],
    seconds: float,
    device: str,
    form: TableFormat,
    output: Path | None,
    plot: list[Path],
) -> None:
    from fewframes.bench import tables as compared
    from fewframes.bench.scaling import scale

    with StageProgress() as progress:
        points = scale(preset, frames=counts, device=device, seconds=seconds, progress=progress.show)
    typer.echo(compared.scaling_text(points, form))
    if output is not None:
        for name, kind in SCALING_FILES:
            write_file(output / name, compared.scaling_text(points, kind) + "\n")
        plot = [*plot, output / "scaling.png"]
    for path in plot:
        compared.write_picture(compared.scaling_figure(points, preset), path)


def _check_picture(path: Path) -> None:
    """Before minutes of work, not after."""
    if path.suffix not in {".png", ".svg"}:
        raise ConfigError(f"--plot {path}: needs a name that ends in .png or .svg")
    check_writable(path, "--plot")


def _list() -> None:
    from rich.table import Table

    from fewframes.bench.contenders import CONTENDERS

    table = Table("name", "protocol", "frames read", "px", "needs", "published top-1", box=None, pad_edge=False)
    for name, contender in CONTENDERS.items():
        top1 = contender.published.top1
        table.add_row(
            name,
            contender.views.describe(contender.frames),
            str(contender.frames_read),
            str(contender.size_px),
            contender.package,
            "" if top1 is None else f"{top1:.1f}",
        )
    console().print(table)
