"""A model -> its graphs as torch traces them, and those as ONNX, OpenVINO and torch files. Nothing is checked here (export.py).

The frame encoder and the temporal part are traced apart, for any number of videos, and of frames from three on (a change from
frame to frame needs two). The whole of an ONNX file is these two, joined; where frames are mixed inside the encoder (`joint`,
`per_block`) there is only the whole, for the model's own number of frames.
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
from fewframes.export.runtime import CARD_KEY, INPUT, LEAST_FRAMES, OUTPUTS, Array, Card, GraphPart
from fewframes.models.stam import STAM
from fewframes.video.transforms import pixels_of

OPSET = 18
"""Of ONNX: the first that the exporter of torch writes without converting."""
SENSITIVE_SHARE = 6
"""One convolution in this many, the first ones, stays in float32 when the others become int8 (docs/guide/export.md)."""
CALIBRATED_AT_ONCE = 8


class FramesGraph(nn.Module):
    """uint8 frames (M, C, H, W) -> frame embeddings (M, D)."""

    def __init__(self, model: STAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames_MCHW: Tensor) -> tuple[Tensor]:
        return (self.model.encode_frames(pixels_of(frames_MCHW)),)


class TimeGraph(nn.Module):
    """Frame embeddings (B, T, D) -> scores (B, K), frame attention (B, T), embedding (B, D')."""

    def __init__(self, model: STAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self.model.encode_video(frames_BTD, with_attention=True)
        assert encoded.frame_attention is not None
        return self.model.scores(encoded.logits), encoded.frame_attention, encoded.embedding


class WholeGraph(nn.Module):
    """uint8 videos (B, T, C, H, W) -> what `TimeGraph` gives, and the frame embeddings (B, T, D)."""

    def __init__(self, model: STAM) -> None:
        super().__init__()
        self.model, self.time = model, TimeGraph(model)

    def forward(self, frames_BTCHW: Tensor) -> tuple[Tensor, ...]:
        frames_BTD = self.model.encode_clips(pixels_of(frames_BTCHW))
        return *self.time(frames_BTD), frames_BTD


GRAPHS: dict[GraphPart, type[nn.Module]] = {"whole": WholeGraph, "frames": FramesGraph, "time": TimeGraph}


def traced(model: STAM, part: GraphPart) -> torch.export.ExportedProgram:
    """This part of a model in eval mode, for any number of videos (and of frames). Raises ExportError."""
    size, num_frames = model.config.image_size, model.config.num_frames
    mixes = model.config.layout != "factorised"
    videos = torch.export.Dim("videos")
    frames = torch.export.Dim("frames", min=LEAST_FRAMES)
    # The sizes of the examples differ from 1 and from each other, so that none is taken for a constant.
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
        return torch.export.export(GRAPHS[part](model).eval(), (example,), dynamic_shapes=(dynamic,))
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExportError(f"the {part} graph cannot be traced: {' '.join(reason[:2])[:300]}") from error


def onnx_of(program: torch.export.ExportedProgram, part: GraphPart) -> Any:
    """An onnx.ModelProto of a traced graph, with the names of `INPUT` and `OUTPUTS`. Raises ExportError and MissingDependency."""
    needed("onnxscript", "export")
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT[part]],
                output_names=list(OUTPUTS[part]),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = [line for line in str(error.__cause__ or error).splitlines() if line.strip()][-1]
        raise ExportError(f"the {part} graph has no form in ONNX ({reason[:200]}); take .pt2") from error
    assert exported is not None
    return exported.model_proto


def joined(frames: Any, time: Any) -> Any:
    """The whole as an onnx.ModelProto: videos folded to frames, the frame encoder, unfolded, the temporal part."""
    onnx = needed("onnx", "export")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
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
    names = dict(zip([one.name for one in second.graph.output], OUTPUTS["time"], strict=True))
    named = [helper.make_node("Identity", [inner], [outer]) for inner, outer in names.items()]
    float_type, byte_type = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    outputs = [
        helper.make_tensor_value_info(outer, float_type, _dims(one))
        for one, outer in zip(second.graph.output, OUTPUTS["time"], strict=True)
    ]
    outputs.append(helper.make_tensor_value_info("frame_embeddings", float_type, ["videos", "frames", width]))
    graph = helper.make_graph(
        [*fold, *first.graph.node, *unfold, *second.graph.node, *named],
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
    opsets = {one.domain: one.version for model in (first, second) for one in model.opset_import}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(first.ir_version, second.ir_version),
        functions=[*first.functions, *second.functions],
    )


def quantised(model: Any, folder: Path, frames: Sequence[Array]) -> Any:
    """The graph with int8 products, as an onnx.ModelProto.

    With `frames` (each (T, C, H, W) uint8) convolutions, and sums of their outputs, compute in 8 bits between the least and
    the most that was seen of each activation in these frames; without, matrix products do, each input by its own range.
    Weights have a range for each channel, and 7 bits: without VNNI, sums of two products of u8 and s8 would overflow 16 bits.
    """
    onnx = needed("onnx", "export")
    quantization = needed("onnxruntime.quantization", "export")
    plain, ready, out = folder / "plain.onnx", folder / "ready.onnx", folder / "int8.onnx"
    onnx.save(model, plain)
    # The symbolic shapes are not needed without calibration, and merging patches is too much for what finds them.
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
        _reader(frames),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add", "Clip", "Relu"],
        nodes_to_quantize=_convolutional(onnx.load(ready)),
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return onnx.load(out)


def _reader(frames: Sequence[Array]) -> Any:
    """What onnxruntime reads the frames from that it calibrates with."""
    reader = needed("onnxruntime.quantization", "export").CalibrationDataReader
    batches = iter(
        {INPUT["frames"]: clip[start : start + CALIBRATED_AT_ONCE]}
        for clip in frames
        for start in range(0, len(clip), CALIBRATED_AT_ONCE)
    )
    return type("Frames", (reader,), {"get_next": lambda _: next(batches, None)})()


def _convolutional(model: Any) -> list[str]:
    """Names of the convolutions but the first sixth, their activations, and the sums of what they give."""
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    convs = convs[len(convs) // SENSITIVE_SHARE :]
    made = {output for node in convs for output in node.output}
    others = [
        node for node in model.graph.node if node.op_type in ("Clip", "Relu", "Add") and made.intersection(node.input)
    ]
    return [node.name for node in (*convs, *others)]


def write_onnx(model: Any, card: Card, path: Path) -> None:
    """The graph and its card as one file."""
    del model.metadata_props[:]
    needed("onnx", "export").helper.set_model_props(model, {CARD_KEY: card.to_json()})
    path.write_bytes(model.SerializeToString())


def write_openvino(onnx_path: Path, card: Card, path: Path) -> None:
    """The same graph as OpenVINO's .xml, with its weights in a .bin beside it; float16 is how they are kept. Raises ExportError."""
    openvino = needed("openvino", "openvino")
    try:
        model = openvino.convert_model(onnx_path)
        model.set_rt_info(card.to_json(), [CARD_KEY])
        openvino.save_model(model, path, compress_to_fp16=card.precision == "float16")
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot write the {card.part} graph ({str(error).strip()}); take .onnx") from error


def write_torch(program: torch.export.ExportedProgram, card: Card, path: Path) -> None:
    """A traced graph and its card as one file."""
    with _quiet():
        torch.export.save(program, path, extra_files={CARD_KEY: card.to_json()})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch's exporters about their own code, which no caller can heed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _dims(value: Any) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
