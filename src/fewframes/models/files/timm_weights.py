"""Image weights of timm: the view that they were trained with, their licence, and their download."""

from __future__ import annotations

import difflib
import math
import urllib.error
from typing import Any

from torch import Tensor

from fewframes.errors import ConfigError, WeightsError, nearest
from fewframes.models.backbones import timm_frame_encoder
from fewframes.models.sharing.reach import hub_or_cache

FITS = {"center": "crop", "squash": "squash", "border": "pad"}
"""timm's ways to a square, as `ViewConfig.fit` names them."""


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
    return f"{weights.license if weights and weights.license else 'none stated'} (timm: {name})"


def check_timm_network(name: str) -> None:
    """Raise WeightsError, as for a file that does not exist, if timm has no network of this name."""
    from timm import is_model, list_models  # late, because timm is slow to import

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
    reason = ""
    try:
        with hub_or_cache() as reason:
            encoder = timm_frame_encoder(name, image_size=image_size, pretrained=True)
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        raise WeightsError(
            f"{name}: timm could not fetch its weights ({reason or str(error).splitlines()[0]}); {_way_out(name)}"
        ) from None
    return {key.removeprefix("backbone."): tensor for key, tensor in encoder.state_dict().items()}


def _way_out(name: str) -> str:
    """Return the end of an error message: how to bring the weights of a name to a machine without a network."""
    repository = getattr(_pretrained(name), "hf_hub_id", None)
    if not repository:
        return "without a network, give a file with timm's keys: --init FILE"
    return (
        f"without a network, fetch model.safetensors of {repository} on another machine (hf download {repository} "
        "model.safetensors), and give the file: --init FILE"
    )


def _pretrained(name: str) -> Any:
    """Return timm's configuration of the weights of a name; None if it has none."""
    from timm import get_pretrained_cfg, is_model  # late, because timm is slow to import

    if not is_model(name.split(".", maxsplit=1)[0]):
        return None
    try:
        return get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        return None


def _unknown(name: str) -> str:
    from timm import is_model, list_models, list_pretrained  # late, because timm is slow to import

    network = name.split(".", maxsplit=1)[0]
    if not is_model(network):
        return f"timm has no network {name!r}; {nearest(name, list_models())}"
    tagged = list_pretrained(f"{network}.*")
    return f"timm has no weights {name!r}; it has {', '.join(tagged) or 'none of this network'}"
