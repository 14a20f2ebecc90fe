"""The graphs inside a model file: their names, inputs and outputs, and sessions of ONNX Runtime that run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from fewframes.errors import WeightsError, needed
from fewframes.models.config import ModelConfig
from fewframes.models.files.model_file import Array, ModelFile, one_line

FilePart = Literal["frames", "time"]
EXTERNAL_PREFIX = "model."
"""The prefix of a weight's key that makes the name of the weight in a graph."""
WEIGHTS_OF: Mapping[str, str] = {"frames": "frame_encoder.", "time": "temporal_encoder."}
"""The prefix of the keys of a part's weights. Its graph uses all of them."""
GRAPH_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "frames": ("frame_embeddings",),
    "time": ("embedding", "frame_attention"),
}
"""The outputs of each graph: frame embeddings (M, D) of uint8 frames (M, C, H, W), and video embeddings (B, D') and frame attention
(B, T) of frame embeddings (B, T, D)."""


def has_time_graph(config: ModelConfig) -> bool:
    """Return False if the video embedding is the plain mean of the frame embeddings, which needs no graph."""
    return config.temporal != "mean" or bool(config.motion_width)


class FileSession:
    """A session of ONNX Runtime for one graph of a model file, on the CPU in float32."""

    def __init__(self, file: ModelFile, part: FilePart, name: str, threads: int) -> None:
        """Open the graph with the weights of the file.

        Args:
            file: the model file.
            part: the graph to run.
            name: the name or path of the file, for errors.
            threads: the number of threads that compute; 0 is one for each core.

        Raises:
            WeightsError: the file has no such graph, or its weights do not fit it.
            MissingDependency: onnxruntime is not installed.
        """
        runtime = needed("onnxruntime", "train")
        if part not in file.graphs:
            raise WeightsError(f"{name}: has no {part} graph, so it needs torch; pip install 'fewframes[train]'")
        self.name, self.part = name, part
        self._errors = ort_errors(runtime)
        weights = {
            f"{EXTERNAL_PREFIX}{key}": np.ascontiguousarray(array, np.float32)
            for key, array in file.tensors.items()
            if key.startswith(WEIGHTS_OF[part]) and array.dtype.kind == "f"
        }
        if broken := next((key for key, array in weights.items() if not np.isfinite(array).all()), None):
            raise WeightsError(f"{name}: {broken.removeprefix(EXTERNAL_PREFIX)} has values that are no numbers")
        options = session_options(runtime, threads)
        options.add_external_initializers(
            list(weights), [runtime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        )
        try:
            self._session = runtime.InferenceSession(file.graphs[part], options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise WeightsError(
                f"{name}: its {part} graph cannot be opened ({one_line(error)}); take another copy of the file, or open it "
                "with torch: pip install 'fewframes[train]'"
            ) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        names = tuple(output.name for output in outputs)
        if len(inputs) != 1 or names != GRAPH_OUTPUTS[part] or not isinstance(outputs[0].shape[-1], int):
            raise WeightsError(f"{name}: its {part} graph gives {', '.join(names)}; take another copy of the file")
        self._input: str = inputs[0].name
        self.width: int = outputs[0].shape[-1]

    def __call__(self, inputs: Array) -> list[Any]:
        """Return the outputs of the graph, in the order of `GRAPH_OUTPUTS`. Raises WeightsError if it cannot be run."""
        try:
            outputs: list[Any] = self._session.run(list(GRAPH_OUTPUTS[self.part]), {self._input: inputs})
        except self._errors as error:
            raise WeightsError(
                f"{self.name}: its {self.part} graph cannot be run on an input of shape {inputs.shape} ({one_line(error)}); "
                "take another copy of the file"
            ) from None
        return outputs


def session_options(runtime: Any, threads: int) -> Any:
    """Return options of ONNX Runtime for this number of threads; 0 is one for each core."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads
    # By default threads that wait go on spinning, and take the cores from threads that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def ort_errors(runtime: Any) -> tuple[type[Exception], ...]:
    """Return the errors that ONNX Runtime raises. Its own classes have no common base class."""
    names = (
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented", "RuntimeException",
    )  # fmt: skip
    module = runtime.capi.onnxruntime_pybind11_state
    return (*(getattr(module, name) for name in names if hasattr(module, name)), ValueError, RuntimeError)
