"""`fewframes export`: write a model as graphs for other runtimes; and `predict` with such a graph."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fewframes.cli.console import describe, print_lines, tell, with_progress
from fewframes.cli.options import MODEL, OUTPUT, MergeOption, make_folder, named_videos

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.predictor import Predictor
    from fewframes.results import Clip


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="The model: a preset (see `fewframes models`), or a file or folder written by `fewframes train`."
        ),
    ],
    dtype: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(
            help="Precision of the frame encoder. The lower ones give smaller files. A head can be solved for the int8 file: "
            "fewframes train --head solved --model FILE.",
            rich_help_panel=MODEL,
        ),
    ] = "float32",
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            help="Videos like those to be labelled, which int8 convolutions are fitted to: a folder, file or glob in quotes. "
            "May be given several times.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; for the format web, the folder to write.",
            show_default="the model's name with the ending of the format",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    format: Annotated[  # noqa: A002
        Literal["onnx", "openvino", "torch", "web"] | None,
        typer.Option(
            help="onnx (.onnx), openvino (.xml and .bin), torch (.pt2), or web: a folder with a page that runs in browsers.",
            show_default="as --output ends, else onnx",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            help="Videos on which the files are compared with the model, named as for --calibrate.",
            show_default="those of --calibrate, else pans over two photographs",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    into_model: Annotated[
        bool,
        typer.Option(
            "--into-model",
            help="Write the graphs into the model's own file instead, so that it runs without torch. No other option applies.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    merge: MergeOption = None,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO, torch.export or web browsers.

    Writes the whole model, and its frame encoder and its temporal part as files of their own.
    Each file is run on real frames and compared with the model before it is kept.
    `fewframes predict --model FILE` runs it.

    Exit codes: 0 written and compared, 1 a file disagrees with the model, 2 wrong use, 4 an optional package is missing.
    """
    from fewframes.models.files.formats import SUFFIXES

    if into_model:
        if dtype != "float32" or any(value is not None for value in (calibrate, output, format, check, merge)):
            raise typer.BadParameter(
                "--into-model takes no other option: its graphs are those of the model, in float32"
            )
        _export_into(model)
        return
    endings: dict[str, str] = {kind: ending for ending, kind in SUFFIXES.items()} | {"web": "-page"}
    if output is not None and format is not None and format != "web" and output.suffix != endings[format]:
        raise typer.BadParameter(f"--output {output}: files of {format} end in {endings[format]}")
    if output is None:
        output = Path(Path(model).name.removesuffix(".safetensors") + endings[format or "onnx"])
    import logging

    from fewframes.export.exporter import checked_format
    from fewframes.export.exporter import export as export_file
    from fewframes.export.web import GRAPHS, check_halves, export_page
    from fewframes.inference.predictor import load

    make_folder(output if format == "web" else output.parent)
    began = time.perf_counter()
    predictor = load(model, device="cpu", dtype="float32", backend="pyav", merge=merge, runtime="torch")
    tell(describe(predictor))
    # Fail before videos are read.
    graph = output / GRAPHS["frames"] if format == "web" else output
    checked_format(predictor, graph, dtype, calibrated=calibrate is not None)
    if format == "web":
        check_halves(predictor)
    export_model = export_page if format == "web" else export_file
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    done = export_model(
        predictor,
        output,
        precision=dtype,
        calibrate=_clips(predictor, calibrate),
        check=_clips(predictor, check),
    )
    print_lines(f"{path}  {size / 1e6:.1f} MB" for path, size in done.files.items())
    print_lines([f"compared on {done.checked_on}, {done.agreement}"])
    if format == "web":
        tell(f"complete the page with: npm install --ignore-scripts --prefix {output}")
    tell(f"exported in {time.perf_counter() - began:.1f} s")


def _export_into(model: str) -> None:
    """Write the graphs of a model into its own file."""
    import logging

    from fewframes.export.file_graphs import add_graphs
    from fewframes.models.files.names import find_model

    path, began = find_model(model), time.perf_counter()
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    add_graphs(path)
    print_lines([f"{path}  {path.stat().st_size / 1e6:.1f} MB"])
    tell(f"added the graphs in {time.perf_counter() - began:.1f} s")


def _clips(predictor: Predictor, sources: list[str] | None) -> list[Clip]:
    """Return the clip that the model looks at in each of these videos; none if no sources are given."""
    paths = named_videos(sources) if sources else []
    return [predictor.read_clip(path) for path in with_progress(paths, len(paths), "reading")]
