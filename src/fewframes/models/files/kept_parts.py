"""The temporal encoder of a trained model, kept in a new model under a head for other actions."""

from __future__ import annotations

from dataclasses import asdict

import torch

from fewframes.errors import ConfigError
from fewframes.models.config import ModelConfig
from fewframes.models.files.networks import load_strictly
from fewframes.models.stam import STAM

TEMPORAL_FIELDS = (
    "layout", "norm_eps", "temporal", "temporal_depth", "temporal_heads", "temporal_width", "temporal_mlp_width",
    "temporal_positions", "motion_width", "width", "cells", "cells_layer", "cell_width", "cell_tokens",
)  # fmt: skip
"""The fields of `ModelConfig` that must stay as they are if the temporal encoder is kept: its own, and those of the
frame embeddings that it was trained on. The number of frames may change."""


def changed_temporal_fields(config: ModelConfig, trained: ModelConfig) -> list[str]:
    """Return the names of the fields for which a temporal encoder of `trained` cannot be part of a model of `config`."""
    new, old = asdict(config), asdict(trained)
    return [name for name in TEMPORAL_FIELDS if new[name] != old[name]]


def check_keepable(config: ModelConfig, trained: ModelConfig, name: str) -> None:
    """Raise ConfigError if a model of `config` is to have another temporal encoder than the trained model of this name."""
    changed = changed_temporal_fields(config, trained)
    if changed:
        asked, own = getattr(config, changed[0]), getattr(trained, changed[0])
        raise ConfigError(
            f"model.{changed[0]} = {asked!r}: the temporal encoder of {name!r} is kept as it is ({own!r}); leave that out, or "
            "train a new one with --no-keep-temporal"
        )


@torch.no_grad()
def keep_temporal(model: STAM, trained: STAM, name: str) -> None:
    """Give a new model the temporal encoder of a trained one: its layers, class token, positions and reduction of motion tokens.

    Positions are interpolated if the new model is built for another number of frames. The head stays new. The reduction of motion
    tokens is marked as kept, so that training does not fit it to its own videos.

    Args:
        model: the new model, changed in place.
        trained: the trained model.
        name: the name of the trained model, for error messages.

    Raises:
        ConfigError: the settings ask for another temporal encoder, or other frame embeddings for it.
        WeightsError: the weights do not fit all the same.
    """
    check_keepable(model.config, trained.config, name)
    state = dict(trained.temporal_encoder.state_dict())
    if "pos_embed" in state:
        state["pos_embed"] = trained.temporal_encoder.positions_for(model.config.num_frames)
    load_strictly(model.temporal_encoder, state, f"{name}: temporal encoder")
    if model.temporal_encoder.motion is not None:
        model.temporal_encoder.motion.kept = True
