"""`fewframes export`: a model as graphs for other runtimes. A part of the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewframes.cli.console import describe, print_lines, tell, with_progress
from fewframes.cli.options import MergeOption, make_folder, named_videos

if TYPE_CHECKING:  # the command line must not load torch before a command needs it
    from fewframes.inference.predictor import Predictor
    from fewframes.results import Clip, Failure, Prediction


def export(
    model: Annotated[str, typer.Argument(help="A preset (see `fewframes models`) or a checkpoint file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; default: the model's name with the format's ending, here."),
    ] = None,
    format: Annotated[  # noqa: A002
        Literal["onnx", "openvino", "torch"] | None,
        typer.Option(
            help="onnx (.onnx), openvino (.xml and .bin), torch (.pt2).", show_default="as --output ends, else onnx"
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="How the frame encoder is kept and computes.")
    ] = "float32",
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            help="Videos like those to be labelled, to fit int8 convolutions to: a folder, file or glob in quotes; repeatable."
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            help="Videos to compare on, named as for --calibrate; default: those of it, else pans over two photographs."
        ),
    ] = None,
    merge: MergeOption = None,
) -> None:
    """Write a model for onnxruntime, OpenVINO or torch.export: whole, and its frame encoder and temporal part.

    Each file is run on real frames and compared with the model before it is kept. `predict --model FILE` runs it. Exit codes: 0
    written and compared, 1 it does not say what the model says, 2 wrong use, 4 an optional package is missing.
    """
    from fewframes.models.formats import SUFFIXES

    endings = {kind: ending for ending, kind in SUFFIXES.items()}
    if output is not None and format is not None and output.suffix != endings[format]:
        raise typer.BadParameter(f"--output {output}: files of {format} end in {endings[format]}")
    if output is None:
        output = Path(Path(model).name.removesuffix(".safetensors") + endings[format or "onnx"])
    import logging

    from fewframes.export.exporter import checked_format
    from fewframes.export.exporter import export as export_model
    from fewframes.inference.predictor import load

    make_folder(output.parent)
    began = time.perf_counter()
    predictor = load(model, device="cpu", dtype="float32", backend="pyav", merge=merge)
    tell(describe(predictor))
    checked_format(predictor, output, dtype, calibrated=calibrate is not None)  # before videos are read
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
    tell(f"exported in {time.perf_counter() - began:.1f} s")


def labelled_by_graph(
    model: str,
    paths: Sequence[str],
    unused: Mapping[str, bool],
    *,
    num_frames: int | None,
    start_s: float,
    end_s: float | None,
    workers: int | None,
) -> Iterator[Prediction[Any] | Failure]:
    """What an exported model says of each video, for `predict`; `unused` are options that it cannot follow, and whether they were
    given."""
    given = [option for option, is_given in unused.items() if is_given]
    if given:
        raise typer.BadParameter(f"{model} is an exported graph, for which {', '.join(given)} cannot be changed")
    from fewframes.export.predictor import ExportedPredictor

    began = time.perf_counter()
    predictor = ExportedPredictor(model)
    tell(f"{predictor}, loaded in {time.perf_counter() - began:.1f} s")
    return predictor.predict_many(paths, num_frames=num_frames, start_s=start_s, end_s=end_s, workers=workers)


def _clips(predictor: Predictor, sources: list[str] | None) -> list[Clip]:
    """The frames that the model looks at in these videos."""
    paths = named_videos(sources) if sources else []
    return [predictor.read_clip(path) for path in with_progress(paths, len(paths), "reading")]
