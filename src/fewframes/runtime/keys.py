"""Keys of weights, under which embeddings are cached: equal for all runtimes that compute the same embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from fewframes.core.cache import arrays_key, key_of
from fewframes.models.config import ModelConfig
from fewframes.models.files.model_file import Array

WITHOUT_EFFECT = frozenset(
    """temporal temporal_depth temporal_heads temporal_width temporal_mlp_width motion_width moment_head moments temporal_positions
    token_dropout temporal_dropout drop_path num_frames num_classes task merge cell_tokens""".split()
)
"""Settings of a model that cannot change the embedding of a frame: they belong to the temporal part, the heads or training. The
number of merged patches is in the key by itself, because a predictor may be asked for another one."""
ADDED_LATER = frozenset({("cells_layer", None), ("cell_width", None), ("tower", None)})
"""Settings that came after the first caches, with the value that stands for what was before, so that those caches stay valid."""


def encoder_key(weights: Mapping[str, Array], config: ModelConfig, *, precision: str, merge: int) -> str:
    """Return a key of everything in a model that decides the embedding of a frame.

    The weights are those of the file. A runtime may fold them further, or cast them to its precision.

    Args:
        weights: the weights of the frame encoder by their keys inside it, as float32. Whole numbers are counters of training, and
            do not count.
        config: the architecture. Heads, cells and the epsilon of norms have no weight of their own.
        precision: the precision in which the encoder computes.
        merge: the number of patches that each block merges away.
    """
    floats = {key: np.asarray(array, np.float32) for key, array in weights.items() if array.dtype.kind == "f"}
    settings = {
        name: value
        for name, value in asdict(config).items()
        if name not in WITHOUT_EFFECT and (name, value) not in ADDED_LATER
    }
    return key_of(arrays_key(floats), settings, precision, str(merge))


def model_key(weights: Mapping[str, Array]) -> str:
    """Return a key of all weights of a model, as float32, by their keys in it."""
    return arrays_key({key: np.asarray(array, np.float32) for key, array in weights.items() if array.dtype.kind == "f"})
