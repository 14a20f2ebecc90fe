"""The model that a solved run starts from, and the model file that it ends with. No torch is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.errors import ConfigError
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.predictor import Predictor
from fewframes.models.files.model_file import ModelFile, read_model_file, write_model_file
from fewframes.models.files.names import find_model
from fewframes.models.moments import SolvedMoments
from fewframes.runtime.open import open_runtime
from fewframes.runtime.protocol import DtypeName
from fewframes.training.config import RunConfig
from fewframes.video.view import ViewConfig

SOLVED_MODEL: dict[str, Any] = {"temporal": "mean", "temporal_width": None, "motion_width": 0, "moment_head": True}
"""The fields of `ModelConfig` of a solved model. Its video embedding is the mean of the frame embeddings, and the head on that is
zero, so that the moments alone give the logits."""
ENCODER = "frame_encoder."
"""The prefix of the keys of the weights that the new model keeps."""


class SolvedStart:
    """The frame encoder of a model that a run starts from. It embeds frames, and becomes part of the new model.

    Args:
        run: Settings of the run: `start` names the model, and `view` changes how it sees frames.
        labels: Names of the K actions.
        task: One action a video, or any number of them.
        device: The device that embeds, as `fewframes.load` takes it.
        dtype: The precision of the frame encoder, as `fewframes.load` takes it.

    Raises:
        WeightsError: The model cannot be found or read.
        ConfigError: The model has no embeddings of single frames, or the run changes its frame encoder.
    """

    def __init__(
        self, run: RunConfig, labels: tuple[str, ...], task: Task, device: str = "auto", dtype: DtypeName = "auto"
    ) -> None:
        self._file = read_model_file(find_model(run.start))
        own = self._file.config
        if own.layout != "factorised":
            raise ConfigError(
                f"layout {own.layout!r} has no embeddings of single frames to solve from; use 'factorised', or head 'trained'"
            )
        _check_unchanged(run, self._file)
        self._config = replace(own, **SOLVED_MODEL, num_classes=len(labels), task=task)
        self._labels = labels
        self._runtime = open_runtime(run.start, device=device, dtype=dtype)
        self.view: ViewConfig = self._file.view
        self.num_frames: int = own.num_frames

    @property
    def precision(self) -> str:
        """Return the precision of the frame encoder, such as `float32`."""
        return self._runtime.precision

    def encoder_key(self) -> str:
        """Return a key of the encoder's weights and precision, under which embeddings are cached."""
        return encoder_key(Predictor(self._runtime))

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embedding of each frame by itself: (T, C, H, W) uint8 -> (T, D)."""
        return self._runtime.embed_frames(frames_TCHW)

    def write(
        self, path: Path, solved: SolvedMoments, provenance: Mapping[str, Any], metrics: Mapping[str, Any]
    ) -> None:
        """Write the model with the solved read-out to a file. It keeps the graph of the frame encoder, so it runs without torch.

        Args:
            path: The file.
            solved: The read-out.
            provenance: How it was made.
            metrics: Its figures.
        """
        width, num_classes = self._runtime.frame_width, len(self._labels)
        tensors = {key: array for key, array in self._file.tensors.items() if key.startswith(ENCODER)}
        tensors |= {
            "head.weight": np.zeros((num_classes, width), np.float32),
            "head.bias": np.zeros(num_classes, np.float32),
            "moment_head.linear.weight": np.asarray(solved.weight, np.float32),
            "moment_head.linear.bias": np.asarray(solved.bias, np.float32),
        }
        graphs = {part: graph for part, graph in self._file.graphs.items() if part == "frames"}
        written = ModelFile(
            self._config, self.view, self._labels, tensors, provenance, metrics, self._file.licences, graphs=graphs
        )
        write_model_file(path, written)

    def facts(self) -> dict[str, Any]:
        """Return the settings of the new model as plain values."""
        return asdict(self._config)


def _check_unchanged(run: RunConfig, file: ModelFile) -> None:
    """Raise ConfigError if the run asks for another frame encoder or view than the model that it starts from has."""
    if run.init:
        raise ConfigError(f"init {run.init!r}: a solved head keeps the frame encoder of {run.start!r}; leave init out")
    for name, own, asked in (("model", asdict(file.config), run.model), ("view", asdict(file.view), run.view)):
        changed = [key for key, value in asked.items() if own.get(key) != value and key not in SOLVED_MODEL]
        if changed:
            raise ConfigError(
                f"{name}.{changed[0]} = {asked[changed[0]]!r}: a solved head keeps the frame encoder of {run.start!r} as it is "
                f"({own.get(changed[0])!r}); leave that out, or take head 'trained'"
            )
