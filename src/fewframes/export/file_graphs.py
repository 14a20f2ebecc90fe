"""Graphs for model files: ONNX graphs without weights, which ONNX Runtime runs with the tensors of the file.

They depend on the architecture alone (`graph_settings`), so a model that is trained from another one takes over its graphs. There
are two: the frame encoder, and the temporal encoder without the heads, so that the classes do not matter.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fewframes.errors import ExportError, needed
from fewframes.export.graphs import FramesGraph, onnx_of, traced
from fewframes.export.runtime import GraphPart
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import sharing_copy
from fewframes.models.stam import STAM
from fewframes.models.token_merging import merge_tokens
from fewframes.runtime.file_graphs import EXTERNAL_PREFIX, GRAPH_OUTPUTS, WEIGHTS_OF, has_time_graph

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


def _without_weights(model: STAM, part: GraphPart, module: nn.Module) -> bytes:
    """Return the graph of a part, in which all weights are external.

    Raises ExportError if a weight is not used as it is, because then the graph would hold for this model alone.
    """
    onnx, optimizer = needed("onnx", "export"), needed("onnxscript.optimizer", "export")
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
