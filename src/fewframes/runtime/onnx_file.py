"""A runtime for model files without torch: ONNX Runtime runs their graphs, and numpy the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fewframes.core.settings import Task
from fewframes.errors import WeightsError
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.models.config import ExitPlan, ModelConfig
from fewframes.models.files.model_file import ModelFile, read_metadata, read_model_file
from fewframes.models.files.names import find_model
from fewframes.models.moments import WindowMoments
from fewframes.models.rejection.judge import Judge
from fewframes.runtime.file_graphs import WEIGHTS_OF, FileSession, has_time_graph
from fewframes.runtime.heads.read_out import read_out_of
from fewframes.runtime.keys import encoder_key, model_key
from fewframes.runtime.protocol import Floats, Frames, WindowEncoding
from fewframes.video.view import ViewConfig

FRAMES_AT_ONCE = 4
"""The number of frames that are embedded at once. With more, the activations of Lite0 outgrow the caches (docs/decisions)."""
WINDOWS_AT_ONCE = 256
"""The number of windows that are encoded at once."""


class OnnxFileRuntime:
    """A model file that ONNX Runtime runs on the CPU in float32, a `Runtime`."""

    kind = "onnxruntime"
    device = "cpu"
    precision = "float32"
    embeds_frames = True
    any_num_frames = True
    least_frames = 1

    def __init__(
        self, file: ModelFile, *, name: str = "", threads: int = 0, encoder: OnnxFileRuntime | None = None
    ) -> None:
        """Open the graphs of a model file.

        Args:
            file: the model file.
            name: its name or path, for errors.
            threads: the number of threads that compute; 0 is one for each core.
            encoder: a runtime with the same frame encoder, whose session this one uses too.

        Raises:
            WeightsError: the file has no graphs, or its weights do not fit them.
            MissingDependency: onnxruntime is not installed.
        """
        self.name, self.file = name, file
        if file.config.layout != "factorised":
            raise WeightsError(
                f"{name}: layout {file.config.layout!r} mixes frames inside the encoder and runs with torch alone: "
                "pip install 'fewframes[train]'"
            )
        self._frames: FileSession = FileSession(file, "frames", name, threads) if encoder is None else encoder._frames
        self._time = FileSession(file, "time", name, threads) if has_time_graph(file.config) else None
        frame_width = self._frames.width
        self.frame_width, self.video_width = frame_width, frame_width if self._time is None else self._time.width
        self._read_out = read_out_of(file, name, frame_width, self.video_width)

    def __repr__(self) -> str:
        return f"OnnxFileRuntime({self.name!r}, {len(self.labels)} labels)"

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the K actions."""
        return self.file.labels

    @property
    def view(self) -> ViewConfig:
        """Return the size and normalisation of the frames that the model takes."""
        return self.file.view

    @property
    def num_frames(self) -> int:
        """Return T, the number of frames that the model is built for."""
        return self.file.config.num_frames

    @property
    def task(self) -> Task:
        """Return the kind of labels."""
        return self.file.config.task

    @property
    def config(self) -> ModelConfig:
        """Return the architecture."""
        return self.file.config

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return how the model was made."""
        return self.file.provenance

    @property
    def causal(self) -> bool:
        """Return True if the beginning of a window has an answer too, because no frame attends to later ones."""
        return self.file.config.is_causal

    @property
    def merge(self) -> int:
        """Return the number of patches that each block of the frame encoder merges away."""
        return self.file.config.merge

    @property
    def exits(self) -> ExitPlan | None:
        """Return the plan of an early exit, if one was fitted."""
        return self.file.exits

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the score from which each label of a multi-label model counts as present; empty if none were fitted."""
        return self.file.thresholds

    @property
    def rejection(self) -> Judge | None:
        """Return the judge of videos that show none of the actions, if one was fitted."""
        return self.file.rejection

    @property
    def boundaries(self) -> Boundaries | None:
        """Return the detector of spans in long videos, if one was trained."""
        return self.file.boundaries

    def encoder_key(self) -> str:
        """Return a key of the frame encoder's weights and precision: that of torch in float32."""
        return self._encoder_key

    @cached_property
    def _encoder_key(self) -> str:
        """Return the key, for which all weights are hashed once."""
        prefix = WEIGHTS_OF["frames"]
        weights = {
            key.removeprefix(prefix): array for key, array in self.file.tensors.items() if key.startswith(prefix)
        }
        return encoder_key(weights, self.file.config, precision=self.precision, merge=self.merge)

    def model_key(self) -> str:
        """Return a key of all weights of the model."""
        return self._model_key

    @cached_property
    def _model_key(self) -> str:
        """Return the key, for which all weights are hashed once."""
        return model_key(self.file.tensors)

    def embed_frames(self, frames_TCHW: Frames) -> Floats:
        """Return frame embeddings f_t (Eq. 10), each from its own frame alone: (T, C, H, W) uint8 -> (T, D).

        Raises ValueError if the frames have another size than the model's.
        """
        size = self.view.crop_px
        if frames_TCHW.shape[1:] != (3, size, size):
            raise ValueError(f"frames of shape {frames_TCHW.shape}: this model takes (T, 3, {size}, {size})")
        if not len(frames_TCHW):
            return np.zeros((0, self._frames.width), np.float32)
        parts = (frames_TCHW[start : start + FRAMES_AT_ONCE] for start in range(0, len(frames_TCHW), FRAMES_AT_ONCE))
        return np.concatenate([self._frames(np.ascontiguousarray(part))[0] for part in parts])

    def encode_clips(self, frames_BTCHW: Frames) -> Floats:
        """Return frame embeddings of whole clips: (B, T, C, H, W) uint8 -> (B, T, D)."""
        num_videos, num_frames = frames_BTCHW.shape[:2]
        embeddings_MD = self.embed_frames(frames_BTCHW.reshape(-1, *frames_BTCHW.shape[2:]))
        return embeddings_MD.reshape(num_videos, num_frames, -1)

    def encode_windows(self, embeddings_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:
        """Return logits, video embeddings and, if asked for, frame attention of windows of frame embeddings (B, T, D)."""
        windows_BTD = np.ascontiguousarray(embeddings_BTD, np.float32)
        starts = range(0, len(windows_BTD), WINDOWS_AT_ONCE)
        encoded = [self._encode(windows_BTD[start : start + WINDOWS_AT_ONCE]) for start in starts]
        logits, embedding, attention = (np.concatenate(parts) for parts in zip(*encoded, strict=True))
        return WindowEncoding(logits, embedding, attention if with_attention else None)

    def _encode(self, windows_BTD: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the logits (B, K), video embeddings (B, D') and frame attention (B, T) of some windows."""
        if self._time is None:
            embedding_BD = windows_BTD.mean(axis=1)
            attention_BT = np.full(windows_BTD.shape[:2], 1 / windows_BTD.shape[1], np.float32)
        else:
            embedding_BD, attention_BT = self._time(windows_BTD)
        return self._read_out.logits(embedding_BD, WindowMoments(windows_BTD)), embedding_BD, attention_BT


def load_onnx_file(name_or_path: str | os.PathLike[str], *, threads: int = 0) -> OnnxFileRuntime:
    """Return the runtime of a model, from the name of a preset, a model file, or the output folder of training.

    Args:
        name_or_path: the model.
        threads: the number of threads that compute; 0 is one for each core.

    Raises:
        WeightsError: there is no such model, or it needs torch, or its file is damaged.
        MissingDependency: onnxruntime is not installed.
    """
    name = os.fspath(name_or_path)
    path = find_model(name)
    if read_metadata(path) is None:
        raise WeightsError(f"{path}: not safetensors; only torch reads other files: pip install 'fewframes[train]'")
    return OnnxFileRuntime(read_model_file(path), name=name, threads=threads)
