"""Frame encoders by name: the settings, the view of frames, the licence and the weights that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fewframes.errors import ConfigError
from fewframes.models.config import CLIP, TIMM
from fewframes.models.files.names import encoder_path, is_encoder_name
from fewframes.models.files.timm_weights import timm_licence, timm_view


@dataclass(frozen=True)
class NamedEncoder:
    """A frame encoder by its name. Nothing was fetched for it."""

    fields: Mapping[str, Any]
    """The fields of `ModelConfig` that follow from the name."""
    view: Mapping[str, Any]
    """The fields of `ViewConfig` that follow from it: frames are seen as they were when its weights were trained."""
    licence: str
    """The licence of its weights, in one line."""
    weights: str
    """The weights, as `start_model` takes them: the file in which `fewframes models pull` stored them, or the name."""


def named_encoder(name: str, size: int | None = None) -> NamedEncoder:
    """Return what follows from the name of a frame encoder. Nothing is fetched.

    Args:
        name: `timm:NAME` or `clip:ARCHITECTURE/TAG`; or a folder of an image-text model, as `open_image_text` takes it.
        size: the side of the frames in pixels; None is the side that the weights were trained with.

    Raises:
        ConfigError: the library has no such name, or the encoder takes no square pictures, or none of this size.
        WeightsError: the folder has no image-text model.
        MissingDependency: open_clip is not installed, for one of its names.
    """
    if name.startswith(TIMM):
        network = name.removeprefix(TIMM)
        view = timm_view(network, size)
        fields = {"encoder": name, "image_size": view["crop_px"]}
        # All poolings have the same weights.
        return NamedEncoder(
            fields, view, timm_licence(network), _stored(name) or _stored(name.partition("@")[0]) or network
        )
    from fewframes.models.words.encoder import tower_of  # late: they load open_clip
    from fewframes.models.words.image_text import encoder_source

    source = encoder_source(name)
    own = source.view
    if size not in (None, own.crop_px):
        raise ConfigError(
            f"{name}: frames of {size} px; this encoder takes {own.crop_px} px alone; leave the size out, or take a timm network"
        )
    return NamedEncoder(
        {
            "encoder": source.name,
            "tower": tower_of(source.settings, quick_gelu=source.quick_gelu),
            "image_size": own.crop_px,
            **{"cells": 0, "cells_layer": None, "cell_width": None, "merge": 0, "drop_path": 0.0},
        },
        asdict(own),
        source.licence.line(source.name),
        (_stored(name) if name.startswith(CLIP) else "") or name,
    )


def _stored(name: str) -> str:
    """Return the file that `fewframes models pull` stored for a name; empty if there is none."""
    return str(encoder_path(name)) if is_encoder_name(name) and encoder_path(name).is_file() else ""
