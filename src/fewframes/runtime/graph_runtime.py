"""The runtime for exported files. `fewframes export` writes the whole model as one graph, and its two halves beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.models.files.formats import format_of
from fewframes.models.rejection.judge import Judge, judge_in
from fewframes.runtime.graphs import LEAST_FRAMES, Card, Graph, GraphPart, open_graph
from fewframes.runtime.protocol import Floats, Frames, WindowEncoding

KINDS = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch.export"}
"""The library that runs each format."""
FRAMES_AT_ONCE = 4
"""The frames that go through the graph of the frame encoder together. With more, activations fall out of the processor's cache."""
TINIEST = np.float32(np.finfo(np.float32).tiny)
"""The smallest score that a logarithm is taken of."""


class GraphRuntime:
    """An exported model that is ready to run on the CPU. It implements `Runtime`.

    The file of the whole model labels clips. Its halves, the files `NAME.frames.onnx` and `NAME.time.onnx` beside `NAME.onnx`, are
    opened when frames or windows are asked for by themselves, as streams and timelines do.
    """

    device = "cpu"
    config = None
    least_frames = LEAST_FRAMES

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 0) -> None:
        """Open the file of a whole model.

        Args:
            path: the file.
            threads: the number of threads that compute; 0 is one for each core.

        Raises:
            WeightsError: the file is missing, damaged, or not exported by fewframes.
            ConfigError: the file holds a half of a model.
            MissingDependency: the package that runs this format is not installed.
        """
        self._whole, self._threads = open_graph(path, threads=threads), threads
        card = self._whole.card
        if card.part != "whole":
            raise ConfigError(
                f"{self._whole.path}: a half of a model ({card.part}) names no actions; take the whole one"
            )
        kind = format_of(path)
        assert kind is not None  # `open_graph` took it
        self.name, self.kind, self.card = self._whole.path, KINDS[kind], card
        self.labels, self.view, self.exits = card.labels, card.view, card.exits
        self.num_frames, self.any_num_frames, self.embeds_frames = (
            card.num_frames,
            card.any_num_frames,
            card.any_num_frames,
        )
        self.task, self.causal, self.precision, self.merge = card.task, card.causal, card.precision, card.merge
        self.thresholds = card.thresholds
        self.provenance: Mapping[str, Any] = {}
        self.rejection = rejection_of(card, self.name)
        self.boundaries = boundaries_of(card, self.name)
        self.frame_width, self.video_width = card.frame_width, card.video_width

    @cached_property
    def _frames(self) -> Graph:
        """Return the graph of the frame encoder."""
        return self._half("frames")

    @cached_property
    def _time(self) -> Graph:
        """Return the graph of the temporal part."""
        return self._half("time")

    def _half(self, part: GraphPart) -> Graph:
        """Open a half of the model. Raises ConfigError for a model without halves, and WeightsError if its file is missing."""
        if not self.embeds_frames:
            raise ConfigError(
                f"{self.name}: this model mixes frames inside its encoder, so it has no {part} part of its own"
            )
        path = Path(self.name)
        half = path.with_suffix(f".{part}{path.suffix}")
        if not half.is_file():
            raise WeightsError(
                f"{half}: not found; streams, timelines and search need this half beside {path.name}: copy it too, or export again"
            )
        graph = open_graph(half, threads=self._threads)
        if (graph.card.part, graph.card.labels, graph.card.view) != (part, self.labels, self.view):
            raise WeightsError(f"{half}: belongs to another model than {path.name}; export that model again")
        return graph

    def encoder_key(self) -> str:
        """Return a key of the file of the frame encoder."""
        return _file_key(self._frames.path)

    def model_key(self) -> str:
        """Return a key of the file of the whole model."""
        return _file_key(self.name)

    def embed_frames(self, frames_TCHW: Frames) -> Floats:
        """Return frame embeddings f_t (Eq. 10): (T, C, H, W) uint8 -> (T, D)."""
        starts = range(0, len(frames_TCHW), FRAMES_AT_ONCE)
        parts = (np.ascontiguousarray(frames_TCHW[start : start + FRAMES_AT_ONCE]) for start in starts)
        return np.concatenate([self._frames(part_TCHW)["frame_embeddings"] for part_TCHW in parts])

    def encode_clips(self, frames_BTCHW: Frames) -> Floats:
        """Return frame embeddings of whole clips: (B, T, C, H, W) uint8 -> (B, T, D)."""
        return self._whole(np.ascontiguousarray(frames_BTCHW))["frame_embeddings"]

    def encode_windows(self, embeddings_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:  # noqa: ARG002
        """Return logits, video embeddings and frame attention of windows of frame embeddings (B, T, D)."""
        return self._encoding(self._time(np.ascontiguousarray(embeddings_BTD, dtype=np.float32)))

    def label_clips(self, frames_BTCHW: Frames) -> tuple[Floats, WindowEncoding]:
        """Return the frame embeddings (B, T, D) of whole clips, and their encoding, by the graph of the whole model alone."""
        outputs = self._whole(np.ascontiguousarray(frames_BTCHW))
        return outputs["frame_embeddings"], self._encoding(outputs)

    def _encoding(self, outputs: dict[str, Floats]) -> WindowEncoding:
        """Return the outputs of a graph. Its scores become logits: up to a constant, which changes no answer, their logarithms."""
        scores = outputs["scores"]
        logits = np.log(np.maximum(scores, TINIEST))
        if self.task == "multilabel":
            logits = logits - np.log(np.maximum(1 - scores, TINIEST))
        return WindowEncoding(logits, outputs["embedding"], outputs["frame_attention"])


def rejection_of(card: Card, path: str) -> Judge | None:
    """Return the rejection in a card, or None if there is none. Raises WeightsError if it is damaged."""
    if not card.rejection:
        return None
    try:
        return judge_in(card.rejection, len(card.labels), card.frame_width)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}; export it again") from None


def boundaries_of(card: Card, path: str) -> Boundaries | None:
    """Return the detector in a card, or None if there is none. Raises WeightsError if it is damaged."""
    if not card.boundaries:
        return None
    try:
        return Boundaries.from_text(card.boundaries, len(card.labels), card.frame_width)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}; export it again") from None


def _file_key(path: str) -> str:
    """Return a hash of the content of a file, and of the file with its weights if it is one of OpenVINO."""
    digest = hashlib.blake2b(digest_size=20)
    weights = Path(path).with_suffix(".bin")
    for name in (path, *([str(weights)] if path.endswith(".xml") and weights.is_file() else [])):
        with open(name, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
