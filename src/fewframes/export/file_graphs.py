"""Graphs for model files: ONNX graphs without weights, which ONNX Runtime runs with the tensors of the file.

They depend on the architecture alone (`graph_settings`), so a model that is trained from another one takes over its graphs. There
are two: the frame encoder, and the temporal encoder without the heads, so that the classes do not matter.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewframes.errors import ExportError, needed
from fewframes.export.exporter import relative_difference
from fewframes.export.graphs import FramesGraph, onnx_of, traced
from fewframes.models.files.checkpoint import Checkpoint, checkpoint_of
from fewframes.models.files.model_file import read_model_file, stored_kinds, write_model_file
from fewframes.models.files.networks import sharing_copy
from fewframes.models.layers import pixels_of
from fewframes.models.stam import STAM
from fewframes.models.token_merging import merge_tokens
from fewframes.runtime.file_graphs import EXTERNAL_PREFIX, GRAPH_OUTPUTS, WEIGHTS_OF, has_time_graph
from fewframes.runtime.graphs import GraphPart
from fewframes.runtime.onnx_file import OnnxFileRuntime

MOST_DISAGREEMENT = 1e-4
"""The largest difference of a graph's outputs from those of torch, as a fraction of the largest value."""
EXTERNAL_LOCATION = "weights"
"""The name of the file in which ONNX would look for weights. There is no such file: each weight is handed over in memory."""


class EmbeddingGraph(nn.Module):
    """The temporal encoder as a graph: frame embeddings (B, T, D) -> video embedding (B, D') and frame attention (B, T)."""

    def __init__(self, model: STAM) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings_BTD: Tensor) -> tuple[Tensor, Tensor]:
        embedding_BD, attention_BT = self.model.temporal_encoder(embeddings_BTD, with_attention=True)
        assert attention_BT is not None
        return embedding_BD, attention_BT


def graphs_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return the graphs of a model. There are none if the layout mixes frames inside the encoder.

    Raises ExportError if a graph cannot be made, and MissingDependency.
    """
    config = checkpoint.model.config
    if config.layout != "factorised":
        return {}
    model = sharing_copy(checkpoint.model).float().eval()
    merge_tokens(model.frame_encoder, config.merge)
    graphs = {"frames": _without_weights(model, "frames", FramesGraph(model))}
    if has_time_graph(config):
        graphs["time"] = _without_weights(model, "time", EmbeddingGraph(model))
    return graphs


def add_graphs(path: Path) -> None:
    """Write the graphs of a model into its file, once they agree with the network of torch. Its weights stay as they are.

    Raises ExportError if the graphs cannot be made or disagree, WeightsError, MissingDependency, and OSError if the file cannot be
    written.
    """
    file = read_model_file(path)
    checkpoint = checkpoint_of(file, path)
    graphs = graphs_of(checkpoint)
    if not graphs:
        raise ExportError(
            f"{path}: layout {file.config.layout!r} mixes frames inside the encoder, so there are no graphs for its file; export "
            "the whole model: fewframes export MODEL"
        )
    with_graphs = replace(file, graphs=graphs)
    largest = disagreement(OnnxFileRuntime(with_graphs, name=str(path)), checkpoint.model)
    if not largest <= MOST_DISAGREEMENT:
        raise ExportError(
            f"{path}: its graphs differ from the network by {largest:.1e}; the limit is {MOST_DISAGREEMENT:.0e}, so the file "
            "stays as it is"
        )
    write_model_file(path, with_graphs, stored_as=stored_kinds(path))


def disagreement(runtime: OnnxFileRuntime, model: STAM) -> float:
    """Return the largest difference of a runtime from the network, on random frames, as a fraction of the largest value.

    All outputs are compared, for several numbers of frames. The network merges patches as its settings say.
    """
    model = sharing_copy(model)
    merge_tokens(model.frame_encoder, model.config.merge)
    draw, size, own = np.random.default_rng(0), runtime.view.crop_px, runtime.num_frames
    frames_TCHW = draw.integers(0, 256, (5, 3, size, size), dtype=np.uint8)
    with torch.inference_mode():
        live_TD = model.encode_frames(pixels_of(torch.from_numpy(frames_TCHW))).numpy()
        differences = [relative_difference(runtime.embed_frames(frames_TCHW), live_TD)]
        for num_frames in (1, 2, own, own + 3):
            windows_BTD = live_TD[draw.integers(0, len(live_TD), (2, num_frames))]
            live = model.encode_video(torch.from_numpy(windows_BTD), with_attention=True)
            assert live.frame_attention is not None
            found = runtime.encode_windows(windows_BTD, with_attention=True)
            assert found.frame_attention is not None
            differences += [
                relative_difference(found.logits, live.logits.numpy()),
                relative_difference(found.embedding, live.embedding.numpy()),
                relative_difference(found.frame_attention, live.frame_attention.numpy()),
            ]
    return max(differences)


def _without_weights(model: STAM, part: GraphPart, module: nn.Module) -> bytes:
    """Return the graph of a part, in which all weights are external.

    Raises ExportError if a weight is not used as it is, because then the graph would hold for this model alone.
    """
    onnx, optimizer = needed("onnx", "train"), needed("onnxscript.optimizer", "train")
    proto = onnx_of(traced(model, part, module), part, GRAPH_OUTPUTS[part], optimise=False)
    weights = {
        f"{EXTERNAL_PREFIX}{key}"
        for key, tensor in model.state_dict().items()
        if key.startswith(WEIGHTS_OF[part]) and tensor.is_floating_point()
    }
    shapes = {weight.name: list(weight.dims) for weight in proto.graph.initializer if weight.name in weights}
    if unused := weights - shapes.keys():
        raise ExportError(f"the {part} graph does not use these weights as they are: {', '.join(sorted(unused)[:6])}")
    # While the weights are inputs, only what does not depend on them is computed in advance.
    _keep(proto.graph.initializer, lambda tensor: tensor.name not in weights)
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    proto = optimizer.optimize(proto)
    _keep(proto.graph.input, lambda value: value.name not in weights)
    proto.graph.initializer.extend(_external(onnx, name, shape) for name, shape in shapes.items())
    del proto.graph.value_info[:], proto.graph.metadata_props[:], proto.metadata_props[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return bytes(proto.SerializeToString(deterministic=True))


def _keep(values: Any, wanted: Any) -> None:
    """Remove the values of a protobuf list that are not wanted."""
    kept = [value for value in values if wanted(value)]
    del values[:]
    values.extend(kept)


def _external(onnx: Any, name: str, shape: list[int]) -> Any:
    """Return an initializer without numbers, which stand outside of the graph."""
    tensor = onnx.TensorProto(name=name, dims=shape, data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    num_bytes = 4
    for size in shape:
        num_bytes *= size
    for key, value in (("location", EXTERNAL_LOCATION), ("offset", "0"), ("length", str(num_bytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor
