"""Linear read-outs of a model in numpy: from its video embedding, and from the moments of the frame embeddings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fewframes.errors import WeightsError
from fewframes.models.files.model_file import ModelFile
from fewframes.models.moments import MOMENT_WEIGHTS, MomentSet, WindowMoments
from fewframes.runtime.protocol import Floats

HEAD, MOMENT_HEAD = "head", "moment_head.linear"
"""The keys of the two read-outs in a model file."""


class Linear(NamedTuple):
    """A linear read-out of rows that are W numbers wide."""

    weights: Floats
    """The weights (K, W)."""
    bias: Floats
    """The bias (K,)."""

    def __call__(self, rows_BW: Floats) -> Floats:
        """Return the logits of rows: (B, W) -> (B, K)."""
        logits_BK: Floats = rows_BW @ self.weights.T + self.bias
        return logits_BK


class ReadOut(NamedTuple):
    """The read-outs of a model, whose logits are summed."""

    head: Linear
    """The read-out of the video embedding."""
    moment_head: Linear | None
    """The read-out of moments, if the model has one."""
    moments: MomentSet
    """The set of these moments."""

    def logits(self, embedding_BD: Floats, moments: WindowMoments) -> Floats:
        """Return the logits (B, K) of windows, from their video embeddings (B, D') and their moments."""
        logits_BK = self.head(embedding_BD)
        if self.moment_head is None:
            return logits_BK
        weights_KP, bias_K = self.moment_head
        return logits_BK + moments.of(self.moments) @ weights_KP.T + bias_K


def read_out_of(file: ModelFile, name: str, frame_width: int, video_width: int) -> ReadOut:
    """Return the read-outs of a model file. Raises WeightsError if it has no sound ones.

    Args:
        file: the model file.
        name: its name or path, for errors.
        frame_width: D, the width of a frame embedding.
        video_width: D', the width of a video embedding.
    """
    config = file.config
    moment_width = len(MOMENT_WEIGHTS[config.moments]) * frame_width
    return ReadOut(
        _linear(file, name, HEAD, video_width),
        _linear(file, name, MOMENT_HEAD, moment_width) if config.moment_head else None,
        config.moments,
    )


def _linear(file: ModelFile, name: str, key: str, width: int) -> Linear:
    """Return the weights (K, width) and the bias (K,) of a read-out. Raises WeightsError if the file has no sound ones."""
    num_classes = len(file.labels)
    found = []
    for part, shape in (("weight", (num_classes, width)), ("bias", (num_classes,))):
        array = file.tensors.get(f"{key}.{part}")
        if array is None or array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            has = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise WeightsError(
                f"{name}: {key}.{part} is {has}; needs finite float32 of shape {shape}: take another copy of the file"
            )
        found.append(array)
    return Linear(*found)
