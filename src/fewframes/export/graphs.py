"""Graphs of a model: torch traces them, and they are written as ONNX, OpenVINO and torch files. exporter.py checks them.

The frame encoder and the temporal part are traced by themselves, for any number of videos, and for three frames or more (a change
from frame to frame needs two). The whole graph of an ONNX file is made by joining the two. If frames are mixed inside the encoder
(`joint`, `per_block`), there is only the whole graph, for the model's own number of frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewframes.errors import ExportError, needed
from fewframes.models.layers import pixels_of
from fewframes.models.stam import STAM
from fewframes.runtime.graphs import CARD_KEY, INPUT, LEAST_FRAMES, OUTPUTS, Array, Card, GraphPart

OPSET = 18
"""The version of ONNX's operators. It is the first that the exporter of torch writes without a conversion."""
FLOAT32_ONE_IN = 6
"""The number of convolutions of which one stays in float32 when the others become int8: the first sixth does
(docs/guide/export.md)."""
CALIBRATED_AT_ONCE = 8
"""The number of frames in a batch of calibration."""


class FramesGraph(nn.Module):
    """The frame encoder as a graph: uint8 frames (M, C, H, W) -> frame embeddings (M, D)."""

    def __init__(self, model: STAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames_MCHW: Tensor) -> tuple[Tensor]:
        return (self.model.encode_frames(pixels_of(frames_MCHW)),)


class TimeGraph(nn.Module):
    """The temporal part as a graph: frame embeddings (B, T, D) -> scores (B, K), frame attention (B, T), embedding (B, D')."""

    def __init__(self, model: STAM) -> None:
        super().__init__()
        self.model = model

    # torch stores the argument's name in .pt2 files, so it stays as it is although these are embeddings.
    def forward(self, frames_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self.model.encode_video(frames_BTD, with_attention=True)
        assert encoded.frame_attention is not None
        return self.model.scores(encoded.logits), encoded.frame_attention, encoded.embedding


class WholeGraph(nn.Module):
    """The whole model as a graph: uint8 videos (B, T, C, H, W) -> the outputs of `TimeGraph`, and frame embeddings (B, T, D)."""

    def __init__(self, model: STAM) -> None:
        super().__init__()
        self.model, self.time = model, TimeGraph(model)

    def forward(self, frames_BTCHW: Tensor) -> tuple[Tensor, ...]:
        embeddings_BTD = self.model.encode_clips(pixels_of(frames_BTCHW))
        return *self.time(embeddings_BTD), embeddings_BTD


GRAPHS: dict[GraphPart, type[nn.Module]] = {"whole": WholeGraph, "frames": FramesGraph, "time": TimeGraph}


def traced(model: STAM, part: GraphPart, graph: nn.Module | None = None) -> torch.export.ExportedProgram:
    """Trace this part of a model in eval mode, for any number of videos (and of frames, unless the layout mixes them).

    Args:
        model: the model.
        part: the part, which decides the input.
        graph: the module to trace; None is that of `GRAPHS`.

    Raises:
        ExportError: torch cannot trace it.
    """
    size, num_frames = model.config.image_size, model.config.num_frames
    mixes = model.config.layout != "factorised"
    videos = torch.export.Dim("videos")
    frames = torch.export.Dim("frames", min=LEAST_FRAMES)
    # The sizes of the examples differ from 1 and from each other, so that torch takes none of them for a constant.
    num_traced = num_frames if mixes else 5
    example, dynamic = {
        "whole": (
            torch.zeros(2, num_traced, 3, size, size, dtype=torch.uint8),
            {0: videos} if mixes else {0: videos, 1: frames},
        ),
        "frames": (torch.zeros(2, 3, size, size, dtype=torch.uint8), {0: videos}),
        "time": (torch.zeros(2, num_traced, model.frame_width), {0: videos, 1: frames}),
    }[part]
    try:
        return torch.export.export((graph or GRAPHS[part](model)).eval(), (example,), dynamic_shapes=(dynamic,))
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExportError(f"the {part} graph cannot be traced: {' '.join(reason[:2])[:300]}") from error


def onnx_of(
    program: torch.export.ExportedProgram, part: GraphPart, outputs: tuple[str, ...] = (), *, optimise: bool = True
) -> Any:
    """Return a traced graph as an onnx.ModelProto, with the names of `INPUT` and `OUTPUTS`.

    Args:
        program: the traced graph.
        part: its part of the model.
        outputs: the names of its outputs, if they are not those of `OUTPUTS`.
        optimise: False keeps every weight as it is, under its own name.

    Raises:
        ExportError: ONNX has no operator for a step.
        MissingDependency: a package that makes the graph is not installed.
    """
    needed("onnxscript", "train")
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT[part]],
                output_names=list(outputs or OUTPUTS[part]),
                optimize=optimise,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = [line for line in str(error.__cause__ or error).splitlines() if line.strip()][-1]
        raise ExportError(f"the {part} graph has no form in ONNX ({reason[:200]}); take .pt2") from error
    assert exported is not None
    return exported.model_proto


def joined(frames: Any, time: Any) -> Any:
    """Return the whole graph as an onnx.ModelProto, made of the graphs of the frame encoder and of the temporal part.

    Videos (B, T, ...) are folded to frames (M, ...) before the frame encoder, and its embeddings are unfolded after it.
    """
    onnx = needed("onnx", "train")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    # The prefixes keep names apart that both graphs have.
    first = onnx.compose.add_prefix(frames, "frames/")
    second = onnx.compose.add_prefix(time, "time/")
    (entry,), (middle,) = first.graph.input, second.graph.input
    shape = [dim.dim_value or None for dim in entry.type.tensor_type.shape.dim]
    width = middle.type.tensor_type.shape.dim[2].dim_value
    constants = {"fold/shape": [-1, *shape[1:]], "fold/width": [width]}
    fold = [
        helper.make_node("Reshape", ["frames", "fold/shape"], [entry.name]),
        helper.make_node("Shape", ["frames"], ["fold/sizes"], start=0, end=2),
    ]
    unfold = [
        helper.make_node("Concat", ["fold/sizes", "fold/width"], ["fold/unfolded"], axis=0),
        helper.make_node("Reshape", [first.graph.output[0].name, "fold/unfolded"], ["frame_embeddings"]),
        helper.make_node("Identity", ["frame_embeddings"], [middle.name]),
    ]
    names = dict(zip([output.name for output in second.graph.output], OUTPUTS["time"], strict=True))
    renamed = [helper.make_node("Identity", [inner], [outer]) for inner, outer in names.items()]
    float_type, byte_type = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    outputs = [
        helper.make_tensor_value_info(outer, float_type, _dims(output))
        for output, outer in zip(second.graph.output, OUTPUTS["time"], strict=True)
    ]
    outputs.append(helper.make_tensor_value_info("frame_embeddings", float_type, ["videos", "frames", width]))
    graph = helper.make_graph(
        [*fold, *first.graph.node, *unfold, *second.graph.node, *renamed],
        "whole",
        [helper.make_tensor_value_info("frames", byte_type, ["videos", "frames", *shape[1:]])],
        outputs,
        [
            *first.graph.initializer,
            *second.graph.initializer,
            *(
                numpy_helper.from_array(torch.tensor(value, dtype=torch.int64).numpy(), name)
                for name, value in constants.items()
            ),
        ],
    )
    opsets = {opset.domain: opset.version for model in (first, second) for opset in model.opset_import}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(first.ir_version, second.ir_version),
        functions=[*first.functions, *second.functions],
    )


def quantised(model: Any, folder: Path, frames: Sequence[Array]) -> Any:
    """Return the graph with int8 products, as an onnx.ModelProto.

    With frames, convolutions and sums of their outputs are computed in 8 bits. The range of each activation is the one that it
    has on these frames. Without frames, matrix products are computed in 8 bits, each input with its own range. Weights have a range
    for each channel, and 7 bits, because sums of two products of u8 and s8 would overflow 16 bits on processors without VNNI.

    Args:
        model: the graph, an onnx.ModelProto.
        folder: a folder for temporary files.
        frames: the frames to calibrate with, each (T, C, H, W) uint8.
    """
    onnx = needed("onnx", "train")
    quantization = needed("onnxruntime.quantization", "train")
    plain, ready, out = folder / "plain.onnx", folder / "ready.onnx", folder / "int8.onnx"
    onnx.save(model, plain)
    # Symbolic shapes are not needed without calibration, and onnxruntime cannot infer them for graphs that merge patches.
    quantization.shape_inference.quant_pre_process(plain, ready, skip_symbolic_shape=not frames)
    if not frames:
        quantization.quantize_dynamic(
            ready,
            out,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(out)
    quantization.quantize_static(
        ready,
        out,
        _calibration_reader(frames),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add", "Clip", "Relu"],
        nodes_to_quantize=_convolutional(onnx.load(ready)),
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return onnx.load(out)


def _calibration_reader(frames: Sequence[Array]) -> Any:
    """Return an object from which onnxruntime reads the frames for calibration, batch by batch."""
    reader = needed("onnxruntime.quantization", "train").CalibrationDataReader
    batches = iter(
        {INPUT["frames"]: clip[start : start + CALIBRATED_AT_ONCE]}
        for clip in frames
        for start in range(0, len(clip), CALIBRATED_AT_ONCE)
    )
    return type("Frames", (reader,), {"get_next": lambda _: next(batches, None)})()


def _convolutional(model: Any) -> list[str]:
    """Return the names of all convolutions but the first sixth, of their activations, and of the sums of their outputs."""
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    convs = convs[len(convs) // FLOAT32_ONE_IN :]
    outputs = {output for node in convs for output in node.output}
    others = [
        node
        for node in model.graph.node
        if node.op_type in ("Clip", "Relu", "Add") and outputs.intersection(node.input)
    ]
    return [node.name for node in (*convs, *others)]


def write_onnx(model: Any, card: Card, path: Path) -> None:
    """Write a graph and its card as one file."""
    del model.metadata_props[:]
    needed("onnx", "train").helper.set_model_props(model, {CARD_KEY: card.to_json()})
    path.write_bytes(model.SerializeToString())


def write_openvino(onnx_path: Path, card: Card, path: Path) -> None:
    """Write the graph of an ONNX file as OpenVINO's .xml, with its weights in a .bin beside it.

    With a float16 card the weights are stored in float16; OpenVINO computes in float32. Raises ExportError if OpenVINO cannot
    convert the graph.

    Args:
        onnx_path: the ONNX file.
        card: the card to store in the .xml file.
        path: the .xml file to write.
    """
    openvino = needed("openvino", "openvino")
    try:
        model = openvino.convert_model(onnx_path)
        model.set_rt_info(card.to_json(), [CARD_KEY])
        openvino.save_model(model, path, compress_to_fp16=card.precision == "float16")
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot write the {card.part} graph ({str(error).strip()}); take .onnx") from error


def write_torch(program: torch.export.ExportedProgram, card: Card, path: Path) -> None:
    """Write a traced graph and its card as one .pt2 file."""
    with _quiet():
        torch.export.save(program, path, extra_files={CARD_KEY: card.to_json()})


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of torch's exporters inside the block. They are about torch's own code, so no caller can act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _dims(value: Any) -> list[int | str]:
    """Return the shape of a graph's input or output: numbers, and names of axes of any size."""
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
