"""The graphs inside a model file: their names, inputs and outputs, and sessions of ONNX Runtime that run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from fewframes.errors import WeightsError, needed
from fewframes.models.config import ModelConfig
from fewframes.models.files.model_file import Array, ModelFile, one_line
from fewframes.runtime.onnx_session import OnnxSession, ort_errors, session_options

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

        def open_session() -> Any:
            options = session_options(runtime, threads)
            options.add_external_initializers(
                list(weights), [runtime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
            )
            return runtime.InferenceSession(file.graphs[part], options, providers=["CPUExecutionProvider"])

        try:
            self._session = OnnxSession(open_session)
        except self._errors as error:
            raise WeightsError(
                f"{name}: its {part} graph cannot be opened ({one_line(error)}); take another copy of the file, or open it "
                "with torch: pip install 'fewframes[train]'"
            ) from None
        inputs, outputs = self._session.opened.get_inputs(), self._session.opened.get_outputs()
        names = tuple(output.name for output in outputs)
        if len(inputs) != 1 or names != GRAPH_OUTPUTS[part] or not isinstance(outputs[0].shape[-1], int):
            raise WeightsError(f"{name}: its {part} graph gives {', '.join(names)}; take another copy of the file")
        self._input: str = inputs[0].name
        self.width: int = outputs[0].shape[-1]

    def __call__(self, inputs: Array) -> list[Any]:
        """Return the outputs of the graph, in the order of `GRAPH_OUTPUTS`. Raises WeightsError if it cannot be run."""
        try:
            return self._session.run(GRAPH_OUTPUTS[self.part], {self._input: inputs})
        except self._errors as error:
            raise WeightsError(
                f"{self.name}: its {self.part} graph cannot be run on an input of shape {inputs.shape} ({one_line(error)}); "
                "take another copy of the file"
            ) from None
