"""Image weights of timm: the view that they were trained with, their licence, their download, and files of them.

Names may have a pooling after @ (backbones.py), which is left out here.
"""

from __future__ import annotations

import difflib
import math
import sys
import urllib.error
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fewframes.errors import ConfigError, WeightsError, nearest
from fewframes.models.backbones import TimmFrameEncoder, parted_timm_name, timm_frame_encoder
from fewframes.models.files.model_file import one_line
from fewframes.models.sharing.reach import hub_or_cache

FITS = {"center": "crop", "squash": "squash", "border": "pad"}
"""timm's ways to a square, as `ViewConfig.fit` names them."""
TERMS = {
    "apple-amlr": "forbids any use but research",
    "apple-ascl": "Apple's own terms; read them where the weights are published",
    "cc-by-nc-4.0": "forbids commercial use",
    "dinov3-license": "Meta's own terms; read them before you use or pass on a model",
    "fair-noncommercial-research-license": "forbids any use but non-commercial research",
    "fastvit-license": "Apple's own terms; read them where the weights are published",
}
"""The words that are added to the names of licences, as timm has them, that are not known to everybody."""
BY_FILE = "name the file: train --weights FILE, or models pull --file FILE"
HEADS = ("head.", "head_dist.", "fc.", "classifier.", "pre_logits.")
"""The beginnings of the keys of classifiers, which differ between timm's networks."""


def is_timm_name(name: str) -> bool:
    """Return True if timm has weights of this name, with or without its tag."""
    return _pretrained(name) is not None


def timm_view(name: str, size: int | None = None) -> dict[str, Any]:
    """Return the fields of `ViewConfig` by which the weights of a timm name see frames, from timm's own configuration of them.

    Args:
        name: the name in timm, such as `vit_base_patch16_siglip_224.v2_webli`. Without a tag it stands for timm's first one.
        size: the side of the frames in pixels; None is the side that the weights were trained with.

    Raises:
        ConfigError: timm has no weights of that name, or they are not for square colour pictures.
    """
    weights = _pretrained(name)
    if weights is None:
        raise ConfigError(_unknown(name))
    channels, height, width = weights.input_size
    if channels != 3 or height != width:
        raise ConfigError(
            f"timm:{name}: takes {channels} x {height} x {width}, not square colour pictures; take another"
        )
    crop_px = size or height
    return {
        "fit": FITS.get(weights.crop_mode, "crop"),
        "resize_px": max(crop_px, math.floor(crop_px / weights.crop_pct)),  # as timm rounds
        "crop_px": crop_px,
        "interpolation": weights.interpolation,
        **pixel_scale(name),
    }


def pixel_scale(name: str) -> dict[str, tuple[float, ...]]:
    """Return the mean and the deviation of pixels that the weights of a timm name were trained with, as fields of `ViewConfig`."""
    weights = _pretrained(name)
    return {} if weights is None else {"mean": tuple(map(float, weights.mean)), "std": tuple(map(float, weights.std))}


def timm_licence(name: str) -> str:
    """Return the licence of the weights of a timm name, as timm states it."""
    weights = _pretrained(name)
    licence = weights.license if weights and weights.license else "none stated"
    return f"{licence} (timm: {parted_timm_name(name)[0]})" + (f"; {TERMS[licence]}" if licence in TERMS else "")


def check_timm_network(name: str) -> None:
    """Raise WeightsError, as for a file that does not exist, if timm has no network of this name."""
    from timm import is_model, list_models  # late, because timm is slow to import

    name, _ = parted_timm_name(name)
    if not is_model(name.split(".", maxsplit=1)[0]):
        close = difflib.get_close_matches(name, list_models(), n=1)
        raise WeightsError(
            f"{name}: no such file, and timm has no network of that name"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )


def download_timm(name: str, image_size: int) -> dict[str, Tensor]:
    """Download the weights of a timm name and return them, without the classifier, with timm's keys.

    Raises WeightsError if timm has no network of that name, or cannot fetch its weights.
    """
    check_timm_network(name)
    weights = _pretrained(name)
    if weights is None or not (weights.hf_hub_id or weights.url or weights.file):
        raise WeightsError(f"{name}: {_unknown(name)}; name some, or {BY_FILE}")
    reason = ""
    try:
        with hub_or_cache() as reason:
            encoder = timm_frame_encoder(name, image_size=image_size, pretrained=True)
    except (OSError, RuntimeError, ValueError, urllib.error.URLError) as error:
        where = f"hf download {weights.hf_hub_id} model.safetensors" if weights.hf_hub_id else str(weights.url)
        raise WeightsError(
            f"{name}: timm could not fetch its weights ({reason or one_line(error)}); without a network, fetch them on another "
            f"machine ({where}), bring the file here, and {BY_FILE}"
        ) from None
    return {key.removeprefix("backbone."): tensor for key, tensor in encoder.state_dict().items()}


def timm_state(encoder: TimmFrameEncoder, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors of a file of weights with the keys of a frame encoder, and without the classifier.

    timm itself renames the tensors of files whose keys are not its own, where it knows them: files of the publishers of CLIP,
    SigLIP, PE, DINO, EVA, ConvNeXt and FastViT, and image halves of open_clip.

    Args:
        encoder: the frame encoder that the tensors are for.
        tensors: the tensors of the file.
        source: the file, for the error message.

    Raises:
        WeightsError: timm cannot rename them, because they are of another network.
    """
    own = encoder.backbone.state_dict()
    renamed = getattr(sys.modules[type(encoder.backbone).__module__], "checkpoint_filter_fn", None)
    if renamed is not None:
        try:
            tensors = renamed(dict(tensors), encoder.backbone)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError, AssertionError) as error:
            raise WeightsError(
                f"{source}: its weights do not fit this network ({type(error).__name__}: {one_line(error)}); take the file of the "
                "network that you named"
            ) from None
    kept = {key: tensor for key, tensor in tensors.items() if key in own or not key.startswith(HEADS)}
    return {f"backbone.{key}": tensor for key, tensor in kept.items()}


def _pretrained(name: str) -> Any:
    """Return timm's configuration of the weights of a name; None if it has none."""
    from timm import get_pretrained_cfg, is_model  # late, because timm is slow to import

    name, _ = parted_timm_name(name)
    if not is_model(name.split(".", maxsplit=1)[0]):
        return None
    try:
        return get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        return None


def _unknown(name: str) -> str:
    from timm import is_model, list_models, list_pretrained  # late, because timm is slow to import

    name, _ = parted_timm_name(name)
    network = name.split(".", maxsplit=1)[0]
    if not is_model(network):
        return f"timm has no network {name!r}; {nearest(name, list_models())}"
    tagged = list_pretrained(f"{network}.*")
    return f"timm has no weights {name!r}; it has {', '.join(tagged) or 'none of this network'}"
