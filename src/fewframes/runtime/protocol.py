"""The protocol of a runtime: what the rest of fewframes asks of a model, whatever computes it. Arrays go in and come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fewframes.core.settings import Task
from fewframes.models.boundaries.boundaries import Boundaries
from fewframes.models.config import ExitPlan, MapChoice, MapMethod, ModelConfig
from fewframes.models.rejection.judge import Judge
from fewframes.video.view import ViewConfig

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
"""The precisions of the frame encoder that `fewframes.load` takes."""

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
    def causal(self) -> bool:
        """Return True if the beginning of a window has an answer too, because no frame attends to later ones."""

    @property
    def frame_width(self) -> int:
        """Return D, the width of a frame embedding."""

    @property
    def video_width(self) -> int:
        """Return D', the width of a video embedding."""

    @property
    def merge(self) -> int:
        """Return the number of patches that each block of the frame encoder merges away; 0 merges none."""

    @property
    def task(self) -> Task:
        """Return the kind of labels: `single` (softmax) or `multilabel` (sigmoids)."""

    @property
    def exits(self) -> ExitPlan | None:
        """Return the plan of an early exit, if one was fitted."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return the score from which each label of a multi-label model counts as present; empty if none were fitted."""

    @property
    def rejection(self) -> Judge | None:
        """Return the judge of videos that show none of the actions, if one was fitted."""

    @property
    def boundaries(self) -> Boundaries | None:
        """Return the detector of spans in long videos, if one was trained."""

    @property
    def config(self) -> ModelConfig | None:
        """Return the architecture, or None for exported files, which do not tell it."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return how the model was made, as far as its file tells it."""

    @property
    def device(self) -> str:
        """Return the device that computes, such as `cpu` or `cuda:0`."""

    @property
    def precision(self) -> str:
        """Return the precision of the frame encoder: `float32`, `bfloat16`, `float16` or `int8`."""

    def encoder_key(self) -> str:
        """Return a key of the frame encoder's weights and precision, under which its embeddings are cached.

        Weights are those of the model file, so that every runtime finds what another one cached in the same precision.
        """

    def model_key(self) -> str:
        """Return a key of all weights of the model, which is the same in every precision."""

    def embed_frames(self, frames_TCHW: Frames) -> Floats:
        """Return frame embeddings f_t (Eq. 10), each from its own frame alone: (T, C, H, W) uint8 -> (T, D)."""

    def encode_clips(self, frames_BTCHW: Frames) -> Floats:
        """Return frame embeddings of whole clips, in any layout: (B, T, C, H, W) uint8 -> (B, T, D)."""

    def encode_windows(self, embeddings_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:
        """Return logits, video embeddings and, if asked for, frame attention of windows of frame embeddings (B, T, D)."""


@runtime_checkable
class LabelsClips(Protocol):
    """An ability: whole clips are labelled in one step, without halves of the model."""

    def label_clips(self, frames_BTCHW: Frames) -> tuple[Floats, WindowEncoding]:
        """Return the frame embeddings (B, T, D) of clips (B, T, C, H, W) uint8, and their encoding with attention."""


@runtime_checkable
class DrawsMaps(Protocol):
    """An ability: maps say where in each frame the answer comes from (models/attention_maps.py)."""

    def map_method(self, asked: MapChoice) -> MapMethod | None:
        """Return the method for maps; None for `none`. Raises ConfigError if the model does not have the method asked for."""

    def frame_maps(self, frames_TCHW: Frames, method: MapMethod, label: int) -> Floats:
        """Return the maps (T, h, w) of the frames of one video (T, C, H, W) uint8 for the action of this index."""


@runtime_checkable
class CachesMotion(Protocol):
    """An ability: the parts of motion tokens that no window changes are computed once for each frame of a stream."""

    def motion_cache(self, before_D: Floats, embedding_D: Floats) -> Floats | None:
        """Return two parts (2, W) of a frame's motion token, or None if the model has no motion tokens.

        Takes the embeddings (D,) of the frame before and of the frame.
        """

    def encode_cached(self, embeddings_BTD: Floats, cached_BT2W: Floats) -> WindowEncoding:
        """Return what `encode_windows` does, for less work, given the `motion_cache` of each frame."""


@runtime_checkable
class KeepsState(Protocol):
    """An ability: the answer about a stream comes from a state of fixed size and one more frame (`ModelConfig.temporal`)."""

    def step(self, embedding_D: Floats, state: Any) -> tuple[WindowEncoding, Any]:
        """Return the encoding of all frames of a stream so far (B = 1), given one more (D,), and the new state.

        The state is None at the beginning. Raises ValueError unless the model is of temporal 'recurrent'.
        """


def scores_of(logits: Floats, task: Task) -> Floats:
    """Return scores in 0-1 from logits (..., K): a softmax, or a sigmoid for each class of a multi-label model."""
    if task == "multilabel":
        return 0.5 * (1 + np.tanh(0.5 * logits))  # this form of the sigmoid does not overflow
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def clip_length_s(provenance: Mapping[str, Any]) -> float | None:
    """Return the median length in seconds of the clips that a model learned from, or None if its file does not say."""
    found = provenance.get("clip_length_s")
    return float(found) if isinstance(found, int | float) and found > 0 else None
