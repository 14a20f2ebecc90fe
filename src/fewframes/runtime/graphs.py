"""Running of exported graphs with onnxruntime, OpenVINO or torch. A file is one graph with its card (labels, view, frames).

A model has up to three graphs: the whole (`NAME.onnx`), and its halves, the frame encoder (`NAME.frames.onnx`) and the temporal
part (`NAME.time.onnx`). `INPUT` and `OUTPUTS` name their inputs and outputs. Frames go in as uint8, because normalisation is in the
graph.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from fewframes.core.guards import end_without_destructors, in_every_fork, keep_in_forks, take_one_thread
from fewframes.core.settings import STRICT, Count, NumFrames, Task, settings_from
from fewframes.errors import ConfigError, WeightsError, needed
from fewframes.models.config import ExitPlan
from fewframes.models.files.formats import SUFFIXES, GraphFormat, format_of
from fewframes.runtime.onnx_session import OnnxSession, ort_errors, session_options
from fewframes.runtime.torch_archive import plain_archive
from fewframes.video.view import ViewConfig

Precision = Literal["float32", "float16", "int8"]
GraphPart = Literal["whole", "frames", "time"]

INPUT: dict[GraphPart, str] = {"whole": "frames", "frames": "frames", "time": "frame_embeddings"}
"""The input of each part. `frames` are uint8 RGB in the size of the view: (B, T, C, H, W) for the whole, (M, C, H, W) for the frame
encoder. `frame_embeddings` are (B, T, D) float32."""
OUTPUTS: dict[GraphPart, tuple[str, ...]] = {
    "whole": ("scores", "frame_attention", "embedding", "frame_embeddings"),
    "frames": ("frame_embeddings",),
    "time": ("scores", "frame_attention", "embedding"),
}
"""The outputs of each part, all float32: scores (B, K), frame attention (B, T), embedding (B, D'), and frame embeddings (B, T, D),
which are (M, D) for the frame encoder."""
LEAST_FRAMES = 3
"""The smallest number of frames of a video. The graphs are traced for any number from this on."""
CARD_KEY = "fewframes"
"""The key of the card in the metadata of a file."""
CARD_FORMAT = 2
"""The version of the card. A file with another version was written by an older or newer fewframes."""
TEXTS = ("rejection", "boundaries")
"""The fields of a card that are left out where they are empty, so that older versions can read the file."""

BAD_GRAPH = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    SyntaxError,
    OverflowError,
    OSError,
)
"""The errors that torch raises on damaged graphs."""
OPENVINO_SOURCE_LINES = ("Exception from", "Check '")
"""The beginnings of lines in OpenVINO's error messages that only name its source code. The reason comes after them."""

Array = NDArray[Any]
Run = Callable[[Array], list[Array]]
"""A function that runs a graph on its input and returns its outputs, in the order of `OUTPUTS`."""


@settings(frozen=True, kw_only=True, config=STRICT)
class Card:
    """The description of a graph that is stored inside its file."""

    part: GraphPart
    """The part of the model that the graph computes."""
    name: str
    """The name of the model."""
    labels: tuple[str, ...]
    """The names of the K actions."""
    view: ViewConfig
    """The view of the frames that the model takes."""
    num_frames: NumFrames
    """T, the number of frames that the model was built for."""
    any_num_frames: bool
    """True if the graph takes other numbers of frames too."""
    precision: Precision
    """The precision of the frame encoder. The temporal part is always float32."""
    task: Task
    """The kind of labels: `single` (softmax) or `multilabel` (sigmoids)."""
    causal: bool
    """True if the beginning of a window has an answer too, because no frame attends to later ones."""
    frame_width: Count
    """D, the width of a frame embedding."""
    video_width: Count
    """D', the width of a video embedding."""
    merge: Count | Literal[0] = 0
    """The number of patches that each block of a ViT merges away."""
    exits: ExitPlan | None = None
    """The plan of an early exit, if one was fitted."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """The score from which each label of a multi-label model counts as present; empty if none were fitted."""
    rejection: str = ""
    """The judge of videos that show none of the actions (`text_of`), of whole models alone; empty if none was fitted."""
    boundaries: str = ""
    """The detector of spans (`Boundaries.to_text`), of whole models alone; empty if none was trained."""

    def to_json(self) -> str:
        """Return the card as the JSON that is stored in a file."""
        values = {name: value for name, value in asdict(self).items() if name not in TEXTS or value}
        return json.dumps({"format": CARD_FORMAT, **values}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, path: str) -> Card:
        """Return the card from the JSON in a file. Raises WeightsError if it is not ours, or was written by a newer fewframes."""
        try:
            values = json.loads(text or "{}")
        except (ValueError, RecursionError):
            values = {}
        if not isinstance(values, dict) or not isinstance(values.get("format"), int):
            raise WeightsError(
                f"{path}: not exported by fewframes, so its labels are unknown; export a model: fewframes export MODEL"
            )
        if (version := values.pop("format")) != CARD_FORMAT:
            age = "newer" if version > CARD_FORMAT else "older"
            raise WeightsError(
                f"{path}: exported by {'a' if age == 'newer' else 'an'} {age} fewframes; install that version, or export it again "
                "with this one"
            )
        try:
            return settings_from(cls, values, path)
        except ConfigError as error:  # the file is at fault here, not a setting of the caller
            raise WeightsError(f"{error}; export it again") from None


RunnableGraph = tuple[Card, Run, tuple[type[Exception], ...]]
"""The card of a graph, the function that runs it, and the errors that this function may raise."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An exported graph, ready to run on the CPU."""

    path: str
    """The file of the graph."""
    card: Card
    """The description of the graph."""
    run: Run
    """The function that runs the graph on its input and returns its outputs, in the order of `OUTPUTS`."""
    errors: tuple[type[Exception], ...] = (RuntimeError,)
    """The errors that the runtime raises if the input does not fit the graph."""

    def __call__(self, inputs: Array) -> dict[str, NDArray[np.float32]]:
        """Return the outputs by their names. Raises WeightsError if the graph cannot be run or its outputs contradict its card."""
        names = OUTPUTS[self.card.part]
        try:
            outputs = self.run(inputs)
        except self.errors as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise WeightsError(
                f"{self.path}: cannot be run on an input of shape {inputs.shape} ({reason}); export it again"
            ) from None
        if len(outputs) != len(names):
            raise WeightsError(f"{self.path}: gives {len(outputs)} outputs, not {', '.join(names)}; export it again")
        found = dict(zip(names, outputs, strict=True))
        num_axes = {name: np.ndim(found[name]) for name in names}
        wanted = {name: 3 if name == "frame_embeddings" and self.card.part == "whole" else 2 for name in names}
        wrong = next((name for name in names if num_axes[name] != wanted[name]), None)
        if wrong is not None:
            raise WeightsError(
                f"{self.path}: gives {wrong} with {num_axes[wrong]} axes, not {wanted[wrong]}; export it again"
            )
        scores, attention = found.get("scores"), found.get("frame_attention")
        if scores is not None and scores.shape[1:] != (len(self.card.labels),):
            raise WeightsError(
                f"{self.path}: gives scores of shape {scores.shape}, but names {len(self.card.labels)} labels; export it again"
            )
        if attention is not None and attention.shape != inputs.shape[:2]:
            raise WeightsError(
                f"{self.path}: gives frame attention of shape {attention.shape} for {inputs.shape[1]} frames; export it again"
            )
        return found


def open_graph(path: str | os.PathLike[str], *, threads: int = 0) -> Graph:
    """Open the graph in a file, to run on the CPU.

    Args:
        path: the file. Its ending tells the format.
        threads: the number of threads that compute; 0 is one for each core.

    Raises:
        WeightsError: the file is missing, damaged, or not exported by fewframes.
        MissingDependency: the runtime for the format is not installed.
    """
    name, kind = os.fspath(path), format_of(path)
    if kind is None:
        raise WeightsError(f"{name}: not an exported file; these end in {', '.join(SUFFIXES)}")
    if not Path(name).is_file():
        raise WeightsError(f"{name}: no such file; export a model to it: fewframes export MODEL --output {name}")
    if kind == "openvino" and not Path(name).with_suffix(".bin").is_file():
        raise WeightsError(f"{name}: the .bin with its weights is not beside it; copy both, or export it again")
    return Graph(name, *OPENERS[kind](name, threads))


def _open_onnx(path: str, threads: int) -> RunnableGraph:
    """Open a graph with onnxruntime."""
    runtime = needed("onnxruntime", "train")
    options, errors = session_options(runtime, threads), ort_errors(runtime)
    try:
        session = OnnxSession(lambda: runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
        text = session.opened.get_modelmeta().custom_metadata_map.get(CARD_KEY, "")
    except errors as error:
        raise _unreadable(path, error) from None
    card = Card.from_json(text, path)
    run = lambda inputs: session.run(OUTPUTS[card.part], {INPUT[card.part]: inputs})  # noqa: E731
    return card, run, errors


def _open_openvino(path: str, threads: int) -> RunnableGraph:
    """Open a graph with OpenVINO."""
    openvino = needed("openvino", "openvino")
    _check_openvino(path)
    core = openvino.Core()
    # On a CPU with bfloat16 instructions OpenVINO would compute in bfloat16 by default.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(path)
        text = model.get_rt_info([CARD_KEY]).astype(str) if model.has_rt_info([CARD_KEY]) else ""
        card = Card.from_json(text, path)
        compiled = _Compiled(core.compile_model(model, "CPU", settings), (core, model))
    except (RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from None
    in_every_fork(end_without_destructors)

    def run(inputs: Array) -> list[Array]:
        _check_openvino(path)
        # OpenVINO's results are views of memory that the next run overwrites, so they are copied.
        return [np.array(compiled.model(inputs)[name]) for name in OUTPUTS[card.part]]

    return card, run, (RuntimeError, ValueError, LookupError)


class _Compiled:
    """A compiled model of OpenVINO and what it is made of, which no forked process ever frees."""

    def __init__(self, model: Any, parts: tuple[Any, ...]) -> None:
        self.model, self._parts = model, parts
        keep_in_forks(self)


@cache
def _openvino_process() -> int:
    """Return the id of the process that used OpenVINO first. A process forked from it has the same answer."""
    return os.getpid()


def _check_openvino(path: str) -> None:
    """Raise WeightsError in a process forked from one that used OpenVINO, where new models end the process too (docs/decisions)."""
    if _openvino_process() != os.getpid():
        raise WeightsError(
            f"{path}: OpenVINO was used before a fork, and its threads are not in this process; start processes with "
            'multiprocessing.get_context("spawn"), or export to .onnx'
        )


def _open_torch(path: str, threads: int) -> RunnableGraph:
    """Open a graph with torch, from a copy in memory in which there is no code to run."""
    torch = importlib.import_module("torch")
    in_every_fork(take_one_thread)
    files = {CARD_KEY: ""}
    plain = plain_archive(path)
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    try:
        module = torch.export.load(plain, extra_files=files).module()
    except BAD_GRAPH:  # torch's messages are about its own code, so they would not help
        reason = f"not from torch.export, or damaged, or written by another torch than {torch.__version__}"
        raise WeightsError(f"{path}: cannot be read ({reason}); export it again") from None
    card = Card.from_json(files[CARD_KEY], path)
    if threads:
        torch.set_num_threads(threads)

    def run(inputs: Array) -> list[Array]:
        with torch.inference_mode():
            return [output.numpy() for output in module(torch.from_numpy(inputs))]

    return card, run, BAD_GRAPH


OPENERS: dict[GraphFormat, Callable[[str, int], RunnableGraph]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "torch": _open_torch,
}


def _unreadable(path: str, error: Exception) -> WeightsError:
    """Return an error of one line for a file that a runtime cannot read."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(OPENVINO_SOURCE_LINES)]
    reason = (lines or [type(error).__name__])[0]
    return WeightsError(f"{path}: cannot be read ({reason[:300]}); export it again")
