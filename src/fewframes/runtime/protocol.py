"""The protocol of a runtime: what the rest of fewframes asks of a model, whatever computes it. Arrays go in and come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.models.exit_plan import ExitPlan
from fewframes.video.view import ViewConfig

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class WindowEncoding:
    """The output of the temporal half for B windows of frame embeddings, as float32 arrays."""

    logits: Floats
    """The logits (B, K)."""
    embedding: Floats
    """The video embeddings (B, D'): the paper's y (Eq. 12)."""
    frame_attention: Floats | None = None
    """The attention (B, T) to each frame (Fig. 2), rows sum to 1; None if it was not asked for."""

    def each(self) -> list[WindowEncoding]:
        """Return a list with the encoding of each window by itself (B = 1)."""
        attention = self.frame_attention
        return [
            WindowEncoding(
                self.logits[index : index + 1],
                self.embedding[index : index + 1],
                None if attention is None else attention[index : index + 1],
            )
            for index in range(len(self.logits))
        ]


class Runtime(Protocol):
    """A model that is ready to run. Its attributes describe the model; its methods compute the two halves of the network."""

    @property
    def name(self) -> str:
        """Return the name or path of the model, for errors and files."""

    @property
    def kind(self) -> str:
        """Return the name of the library that computes: `torch`, `onnxruntime`, `openvino` or `torch.export`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the K actions."""

    @property
    def view(self) -> ViewConfig:
        """Return the size and normalisation of the frames that the model takes. Frames go in as uint8; it normalises itself."""

    @property
    def num_frames(self) -> int:
        """Return T, the number of frames that the model is built for."""

    @property
    def least_frames(self) -> int:
        """Return the smallest number of frames that it takes."""

    @property
    def any_num_frames(self) -> bool:
        """Return True if it takes other numbers of frames too."""

    @property
    def embeds_frames(self) -> bool:
        """Return True if each frame has an embedding of its own, False if the encoder mixes frames."""

    @property
    def task(self) -> Task:
        """Return the kind of labels: `single` (softmax) or `multilabel` (sigmoids)."""

    @property
    def exits(self) -> ExitPlan | None:
        """Return the plan of an early exit, if one was fitted."""

    @property
    def device(self) -> str:
        """Return the device that computes, such as `cpu` or `cuda:0`."""

    @property
    def precision(self) -> str:
        """Return the precision of the frame encoder: `float32`, `bfloat16`, `float16` or `int8`."""

    def encoder_key(self) -> str:
        """Return a key of the frame encoder's weights and precision, under which its embeddings are cached."""

    def embed_frames(self, frames_TCHW: Frames) -> Floats:
        """Return frame embeddings f_t (Eq. 10), each from its own frame alone: (T, C, H, W) uint8 -> (T, D)."""

    def encode_clips(self, frames_BTCHW: Frames) -> Floats:
        """Return frame embeddings of whole clips, in any layout: (B, T, C, H, W) uint8 -> (B, T, D)."""

    def encode_windows(self, embeddings_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:
        """Return logits, video embeddings and, if asked for, frame attention of windows of frame embeddings (B, T, D)."""


@runtime_checkable
class CachesMotion(Protocol):
    """An ability: parts of motion tokens that no window changes are computed once for each frame of a stream."""

    def motion_cache(self, before_D: Floats, embedding_D: Floats) -> Any:
        """Return the parts of a frame's motion token, from the embeddings (D,) of the frame before and of the frame; or None."""

    def encode_cached(self, embeddings_BTD: Floats, cached: list[Any], *, with_attention: bool) -> WindowEncoding:
        """Return what `encode_windows` does, for less work, from the results of `motion_cache` for each of T frames (B = 1)."""
