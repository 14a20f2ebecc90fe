"""The model that a solved run starts from, and the model that it ends with. Torch is needed for exported models alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.data.known_videos import lineage
from fewframes.errors import ConfigError, needed
from fewframes.inference.frame_features import encoder_key
from fewframes.inference.predictor import Predictor
from fewframes.models.files.formats import format_of
from fewframes.models.files.model_file import MODEL_FILE, ModelFile, read_model_file, write_model_file
from fewframes.models.files.names import GRAPH_FILE, exported_in, find_model
from fewframes.models.moments import MOMENT_WEIGHTS, SOLVED_MOMENTS
from fewframes.models.read_out.solve import SolvedMoments
from fewframes.models.rejection.judge import Judge
from fewframes.runtime.graph_runtime import GraphRuntime
from fewframes.runtime.open import open_runtime
from fewframes.runtime.protocol import DtypeName
from fewframes.training.config import RunConfig
from fewframes.training.solved.features import FrameEmbedder
from fewframes.video.view import ViewConfig

SOLVED_MODEL: dict[str, Any] = {
    "temporal": "mean",
    "temporal_width": None,
    "cell_tokens": False,
    "motion_width": 0,
    "moment_head": True,
    "moments": SOLVED_MOMENTS,
}
"""The fields of `ModelConfig` of a solved model. Its video embedding is the mean of the frame embeddings, and the head on that is
zero, so that the moments alone give the logits."""
ENCODER = "frame_encoder."
"""The prefix of the keys of the weights that the new model keeps."""


class Start(FrameEmbedder, Protocol):
    """The frame encoder of a model that a run starts from. It embeds frames, and becomes part of the new model."""

    @property
    def precision(self) -> str:
        """Return the precision of the frame encoder, such as `float32`."""

    @property
    def predictor(self) -> Predictor:
        """Return a predictor with this frame encoder, which reads long videos."""

    def write(
        self,
        folder: Path,
        solved: SolvedMoments,
        provenance: Mapping[str, Any],
        metrics: Mapping[str, Any],
        thresholds: tuple[float, ...] = (),
        rejection: Judge | None = None,
    ) -> None:
        """Write the model with the solved read-out into a folder.

        Args:
            folder: The folder.
            solved: The read-out.
            provenance: How it was made.
            metrics: Its figures.
            thresholds: The score from which each label of a multi-label model counts as present.
            rejection: The judge of videos that show none of the actions; None if there is none.
        """


def start_of(
    run: RunConfig, labels: tuple[str, ...], task: Task, device: str = "auto", dtype: DtypeName = "auto"
) -> Start:
    """Return the frame encoder of the model that a run names: of a model file, or of an exported file.

    The arguments and errors are those of `SolvedStart` and of `ExportedStart`.
    """
    path = exported_in(run.start)
    if format_of(path) is None:
        return SolvedStart(run, labels, task, device, dtype)
    return ExportedStart(replace(run, start=path), labels, task, device, dtype)


class SolvedStart:
    """The frame encoder of a model file that a run starts from. It embeds frames, and becomes part of the new model.

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
        _check_unchanged(run, asdict(own), asdict(self._file.view))
        self._config = replace(own, **SOLVED_MODEL, num_classes=len(labels), task=task)
        self._labels, self._name = labels, run.start
        self._runtime = open_runtime(run.start, device=device, dtype=dtype)
        self.view: ViewConfig = self._file.view
        self.num_frames: int = own.num_frames

    @property
    def file(self) -> ModelFile:
        """Return the content of the model file that the run starts from."""
        return self._file

    @property
    def precision(self) -> str:
        """Return the precision of the frame encoder, such as `float32`."""
        return self._runtime.precision

    @property
    def predictor(self) -> Predictor:
        """Return a predictor with this frame encoder, which reads long videos."""
        return Predictor(self._runtime)

    def encoder_key(self) -> str:
        """Return a key of the encoder's weights and precision, under which embeddings are cached."""
        return encoder_key(Predictor(self._runtime))

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embedding of each frame by itself: (T, C, H, W) uint8 -> (T, D)."""
        return self._runtime.embed_frames(frames_TCHW)

    def write(
        self,
        folder: Path,
        solved: SolvedMoments,
        provenance: Mapping[str, Any],
        metrics: Mapping[str, Any],
        thresholds: tuple[float, ...] = (),
        rejection: Judge | None = None,
    ) -> None:
        """Write the model file with the solved read-out. It keeps the graph of the frame encoder, so it runs without torch.

        The arguments are those of `Start`.
        """
        provenance = {
            **provenance,
            "started_from": lineage(self._name, self._file.provenance, ["frame encoder"]),
        }
        found = solved_file(self._file, self._labels, self._config.task, solved, provenance)
        write_model_file(
            folder / MODEL_FILE, replace(found, metrics=metrics, thresholds=thresholds, rejection=rejection)
        )

    def facts(self) -> dict[str, Any]:
        """Return the settings of the new model as plain values."""
        return asdict(self._config)


def solved_file(
    start: ModelFile, labels: tuple[str, ...], task: Task, solved: SolvedMoments, provenance: Mapping[str, Any]
) -> ModelFile:
    """Return the content of a model file with the frame encoder of another one, its graph, and a solved read-out.

    Args:
        start: The model whose frame encoder is kept.
        labels: Names of the K actions.
        task: One action a video, or any number of them.
        solved: The read-out.
        provenance: How it was made.
    """
    width = solved.weight.shape[1] // len(MOMENT_WEIGHTS[SOLVED_MOMENTS])
    tensors = {key: array for key, array in start.tensors.items() if key.startswith(ENCODER)}
    tensors |= {
        "head.weight": np.zeros((len(labels), width), np.float32),
        "head.bias": np.zeros(len(labels), np.float32),
        "moment_head.linear.weight": np.asarray(solved.weight, np.float32),
        "moment_head.linear.bias": np.asarray(solved.bias, np.float32),
    }
    return ModelFile(
        config=replace(start.config, **SOLVED_MODEL, num_classes=len(labels), task=task),
        view=start.view,
        labels=labels,
        tensors=tensors,
        provenance=provenance,
        licences=start.licences,
        graphs={part: graph for part, graph in start.graphs.items() if part == "frames"},
    )


class ExportedStart:
    """The frame encoder of an exported ONNX file that a run starts from, in the precision of the file.

    The new model is exported files again, with the same graph of the frame encoder. So the read-out is solved on the embeddings
    that it will be given, with the errors that int8 has. The graph of the read-out is made with torch.

    Args:
        run: Settings of the run: `start` is the file.
        labels: Names of the K actions.
        task: One action a video, or any number of them.
        device: The device that embeds; an exported file takes `auto` and `cpu`.
        dtype: `auto` or `float32`: the file has its own precision.

    Raises:
        WeightsError: The file, or its half `.frames.onnx`, cannot be found or read.
        ConfigError: The file is not ONNX, has no embeddings of single frames, or the run changes its frame encoder.
        MissingDependency: A package that makes the graph is not installed.
    """

    def __init__(
        self, run: RunConfig, labels: tuple[str, ...], task: Task, device: str = "auto", dtype: DtypeName = "auto"
    ) -> None:
        if format_of(run.start) != "onnx":
            raise ConfigError(f"{run.start}: a head is solved for .onnx files alone; export the model as .onnx")
        if run.data.alarms_per_day is not None:
            raise ConfigError(
                f"{run.start}: exported files have no place for a promise of alarms; make one when streaming: fewframes stream "
                "SOURCE --background FOOTAGE --alarms-per-day N"
            )
        for package in ("torch", "onnx", "onnxscript"):  # before minutes of work
            needed(package, "train")
        runtime = open_runtime(run.start, device=device, dtype=dtype)
        assert isinstance(runtime, GraphRuntime)
        self._runtime, self._labels, self._task = runtime, labels, task
        self.view: ViewConfig = runtime.view
        self.num_frames, self.precision = runtime.num_frames, str(runtime.precision)
        _check_unchanged(run, {"num_frames": self.num_frames, "image_size": self.view.crop_px}, asdict(self.view))
        self.encoder_key()  # opens the half that embeds frames, or says why there is none

    @property
    def predictor(self) -> Predictor:
        """Return a predictor with this frame encoder, which reads long videos."""
        return Predictor(self._runtime)

    def encoder_key(self) -> str:
        """Return a key of the encoder's file, under which embeddings are cached."""
        return self._runtime.encoder_key()

    def embed_frames(self, frames_TCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embedding of each frame by itself: (T, C, H, W) uint8 -> (T, D)."""
        return self._runtime.embed_frames(frames_TCHW)

    def write(
        self,
        folder: Path,
        solved: SolvedMoments,
        provenance: Mapping[str, Any],  # noqa: ARG002  exported files have no place for these
        metrics: Mapping[str, Any],  # noqa: ARG002
        thresholds: tuple[float, ...] = (),
        rejection: Judge | None = None,
    ) -> None:
        """Write the exported files with the solved read-out. The arguments are those of `Start`.

        Raises:
            ExportError: The new files do not say what the encoder and the read-out say.
        """
        from fewframes.export.head import write_with_head  # late: it loads torch

        write_with_head(
            self._runtime,
            folder / GRAPH_FILE,
            solved.weight,
            solved.bias,
            self._labels,
            self._task,
            thresholds,
            rejection,
        )


def _check_unchanged(run: RunConfig, model: Mapping[str, Any], view: Mapping[str, Any]) -> None:
    """Raise ConfigError if a run asks for another frame encoder or view than the model that it starts from has.

    Args:
        run: Settings of the run.
        model: The settings of that model.
        view: The settings of its view.
    """
    if run.init:
        raise ConfigError(f"init {run.init!r}: a solved head keeps the frame encoder of {run.start!r}; leave init out")
    for name, own, asked in (("model", model, run.model), ("view", view, run.view)):
        changed = [key for key, value in asked.items() if own.get(key) != value and key not in SOLVED_MODEL]
        if changed:
            raise ConfigError(
                f"{name}.{changed[0]} = {asked[changed[0]]!r}: a solved head keeps the frame encoder of {run.start!r} as it is "
                f"({own.get(changed[0])!r}); leave that out, or take head 'trained'"
            )
