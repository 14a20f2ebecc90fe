"""Exported graphs: one file is one graph with its card (labels, view, frames); run by onnxruntime, OpenVINO or torch.

Of a model there are up to three: the whole (`NAME.onnx`), and its halves, frame encoder (`NAME.frames.onnx`) and temporal part
(`NAME.time.onnx`), whose inputs and outputs are `INPUT` and `OUTPUTS`. Pixels go in as uint8: normalisation is in the graph.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as settings

from fewframes.core.settings import STRICT, Count, NumFrames, settings_from
from fewframes.errors import ConfigError, WeightsError, needed
from fewframes.export.torch_archive import plain_archive
from fewframes.models.formats import SUFFIXES, GraphFormat, format_of
from fewframes.video.view import ViewConfig

Precision = Literal["float32", "float16", "int8"]
GraphPart = Literal["whole", "frames", "time"]

INPUT: dict[GraphPart, str] = {"whole": "frames", "frames": "frames", "time": "frame_embeddings"}
"""`frames` are uint8 RGB that fit the view: (B, T, C, H, W) of the whole, (M, C, H, W) of the frame encoder; `frame_embeddings`
(B, T, D) float32."""
OUTPUTS: dict[GraphPart, tuple[str, ...]] = {
    "whole": ("scores", "frame_attention", "embedding", "frame_embeddings"),
    "frames": ("frame_embeddings",),
    "time": ("scores", "frame_attention", "embedding"),
}
"""Scores (B, K), frame attention (B, T), embedding (B, D'), frame embeddings (B, T, D), of the frame encoder (M, D): float32."""
LEAST_FRAMES = 3
"""Of a video: the graphs are traced for a number of frames that may be any from this on."""
CARD_KEY = "fewframes"
CARD_FORMAT = 1

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
"""What torch raises on damaged graphs."""
OPENVINO_PLACES = ("Exception from", "Check '")
"""What lines of its errors begin with that name places in its own code; the reason comes after them."""

Array = NDArray[Any]
Run = Callable[[Array], list[Array]]


@settings(frozen=True, kw_only=True, config=STRICT)
class Card:
    """What a graph is, as it travels inside its file."""

    part: GraphPart
    name: str
    labels: tuple[str, ...]
    view: ViewConfig
    num_frames: NumFrames
    """T, the frames that the model was built for."""
    any_num_frames: bool
    """Whether it takes other numbers of frames, too."""
    precision: Precision
    """Of the frame encoder; the temporal part is float32 in all."""
    merge: Count | Literal[0] = 0
    """Patches merged away in each block of a ViT."""

    def to_json(self) -> str:
        """As the file keeps it."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, path: str) -> Card:
        """The card in a file; WeightsError where it is none of ours, or of a newer fewframes."""
        try:
            values = json.loads(text or "{}")
        except (ValueError, RecursionError):
            values = {}
        if not isinstance(values, dict) or not isinstance(values.get("format"), int):
            raise WeightsError(f"{path}: not exported by fewframes: it does not say its labels; fewframes export MODEL")
        if values.pop("format") > CARD_FORMAT:
            raise WeightsError(f"{path}: exported by a newer fewframes; install that, or export it again with this one")
        try:
            return settings_from(cls, values, path)
        except ConfigError as error:  # the file is at fault, and none of the caller's settings
            raise WeightsError(f"{error}; export it again") from None


Opened = tuple[Card, Run, tuple[type[Exception], ...]]


@dataclass(frozen=True, eq=False)
class Graph:
    """An exported graph, ready to run; `run` takes its input and gives its outputs in their order."""

    path: str
    card: Card
    run: Run
    errors: tuple[type[Exception], ...] = (RuntimeError,)
    """What its runtime raises where the graph does not fit what it is given."""

    def __call__(self, given: Array) -> dict[str, NDArray[np.float32]]:
        """Return its outputs by name. WeightsError where the graph cannot be run, or gives another thing than its card says."""
        names = OUTPUTS[self.card.part]
        try:
            outputs = self.run(given)
        except self.errors as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise WeightsError(f"{self.path}: cannot be run on {given.shape} ({reason}); export it again") from None
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
                f"{self.path}: gives scores of shape {scores.shape} and names {len(self.card.labels)} labels; export it again"
            )
        if attention is not None and attention.shape != given.shape[:2]:
            raise WeightsError(
                f"{self.path}: gives frame attention of shape {attention.shape} for {given.shape[1]} frames; export it again"
            )
        return found


def open_graph(path: str | os.PathLike[str], *, threads: int = 0) -> Graph:
    """The graph in a file, on the CPU (`threads`: 0 is one a core). Raises WeightsError and MissingDependency."""
    name, kind = os.fspath(path), format_of(path)
    if kind is None:
        raise WeightsError(f"{name}: not an exported file; these end in {', '.join(SUFFIXES)}")
    if not Path(name).is_file():
        raise WeightsError(f"{name}: no such file; fewframes export MODEL --output {name}")
    if kind == "openvino" and not Path(name).with_suffix(".bin").is_file():
        raise WeightsError(f"{name}: the .bin with its weights is not beside it; copy both, or export it again")
    return Graph(name, *OPENERS[kind](name, threads))


def _open_onnx(path: str, threads: int) -> Opened:
    runtime = needed("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Threads that wait spin otherwise, and take the cores from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    errors: tuple[type[Exception], ...] = (
        *_errors_of(runtime.capi.onnxruntime_pybind11_state),
        ValueError,
        RuntimeError,
    )
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get(CARD_KEY, "")
    except errors as error:
        raise _unreadable(path, error) from None
    card = Card.from_json(text, path)
    run = lambda given: session.run(list(OUTPUTS[card.part]), {INPUT[card.part]: given})  # noqa: E731
    return card, run, errors


def _open_openvino(path: str, threads: int) -> Opened:
    openvino = needed("openvino", "openvino")
    core = openvino.Core()
    # Where a CPU has bfloat16 instructions OpenVINO computes in bfloat16 unless told otherwise.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(path)
        text = model.get_rt_info([CARD_KEY]).astype(str) if model.has_rt_info([CARD_KEY]) else ""
        card = Card.from_json(text, path)
        compiled = core.compile_model(model, "CPU", settings)
    except (RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from None
    # Its results are views of memory that the next run writes to.
    run = lambda given: [np.array(compiled(given)[name]) for name in OUTPUTS[card.part]]  # noqa: E731
    return card, run, (RuntimeError, ValueError, LookupError)


def _open_torch(path: str, threads: int) -> Opened:
    torch = importlib.import_module("torch")
    files = {CARD_KEY: ""}
    plain = plain_archive(path)
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    try:
        module = torch.export.load(plain, extra_files=files).module()
    except BAD_GRAPH:  # what they say is about torch's own code
        words = f"not from torch.export, or damaged, or of another torch than {torch.__version__}"
        raise WeightsError(f"{path}: cannot be read ({words}); export it again") from None
    card = Card.from_json(files[CARD_KEY], path)
    if threads:
        torch.set_num_threads(threads)

    def run(given: Array) -> list[Array]:
        with torch.inference_mode():
            return [output.numpy() for output in module(torch.from_numpy(given))]

    return card, run, BAD_GRAPH


OPENERS: dict[GraphFormat, Callable[[str, int], Opened]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "torch": _open_torch,
}


def _errors_of(module: Any) -> tuple[type[Exception], ...]:
    """onnxruntime has no common base for its errors."""
    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


def _unreadable(path: str, error: Exception) -> WeightsError:
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(OPENVINO_PLACES)]
    reason = (lines or [type(error).__name__])[0]
    return WeightsError(f"{path}: cannot be read ({reason[:300]}); export it again")
