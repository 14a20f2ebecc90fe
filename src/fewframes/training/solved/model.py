"""The model that a solved run starts from, and the model file that it ends with.

This is the only module of this folder that needs torch. `start_solved` and `write` change when a runtime embeds frames and a model
file is written without torch; nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.errors import ConfigError
from fewframes.models.moments import SolvedMoments
from fewframes.training.config import RunConfig
from fewframes.training.solved.borders import taken
from fewframes.video.view import ViewConfig

SOLVED_MODEL: dict[str, Any] = {"temporal": "mean", "temporal_width": None, "motion_width": 0, "moment_head": True}
"""The fields of `ModelConfig` of a solved model. Its video embedding is the mean of the frame embeddings, and the head on that is
zero, so that the moments alone give the logits."""


class SolvedStart:
    """The frame encoder of a model that a run starts from. It embeds frames, and becomes part of the new model.

    Args:
        run: Settings of the run: `start`, `init`, and changes of the model and the view.
        labels: Names of the K actions.
        task: One action a video, or any number of them.
        device: The device that embeds, as `fewframes.load` takes it.
        dtype: The precision of the frame encoder, as `fewframes.load` takes it.

    Raises:
        WeightsError: The model cannot be found or does not fit the settings.
        ConfigError: The model has no embeddings of single frames.
    """

    def __init__(
        self, run: RunConfig, labels: tuple[str, ...], task: Task, device: str = "auto", dtype: Any = "auto"
    ) -> None:
        from fewframes.inference.predictor import Predictor
        from fewframes.models.files.checkpoint import Checkpoint
        from fewframes.training.run.start import start_run

        solved = replace(run, model={**run.model, **SOLVED_MODEL})
        self._model, view, self._licences = start_run(solved, num_classes=len(labels), task=task)
        if self._model.config.layout != "factorised":
            raise ConfigError(
                f"layout {self._model.config.layout!r} has no embeddings of single frames to solve from; use 'factorised', or "
                "head 'trained'"
            )
        self._checkpoint = Checkpoint(self._model, view, labels)
        self._predictor = Predictor(self._checkpoint, device=device, dtype=dtype, name=run.start)
        self.view: ViewConfig = view
        self.num_frames: int = self._model.config.num_frames

    @property
    def precision(self) -> str:
        """Return the precision of the frame encoder, such as `float32`."""
        return str(self._predictor.torch.dtype).removeprefix("torch.")

    def encoder_key(self) -> str:
        """Return a key of the encoder's weights and precision, under which embeddings are cached."""
        from fewframes.inference.frame_features import encoder_key

        return encoder_key(self._predictor)

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embedding of each frame by itself: (T, C, H, W) uint8 -> (T, D)."""
        return np.asarray(self._predictor.runtime.embed_frames(taken(frames_TCHW)), np.float32)

    def write(
        self, path: Path, solved: SolvedMoments, provenance: Mapping[str, Any], metrics: Mapping[str, Any]
    ) -> None:
        """Write the model with the solved read-out to a file.

        Args:
            path: The file.
            solved: The read-out.
            provenance: How it was made.
            metrics: Its figures.
        """
        from fewframes.models.files.checkpoint import save_checkpoint

        model = self._model.eval()
        state = model.state_dict()
        head = {"head.weight": np.zeros_like(state["head.weight"]), "head.bias": np.zeros_like(state["head.bias"])}
        moments = {"moment_head.linear.weight": solved.weight, "moment_head.linear.bias": solved.bias}
        model.load_state_dict(state | {name: taken(values) for name, values in (head | moments).items()})
        save_checkpoint(
            path, replace(self._checkpoint, provenance=provenance, metrics=metrics, licences=self._licences)
        )
