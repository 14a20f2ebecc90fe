"""Networks from settings, and tensors into networks: what a file claims is compared before it is believed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.backbones import EfficientNetLite0, timm_frame_encoder
from fewframes.models.config import ModelConfig
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.video.view import ViewConfig


def build_model(config: ModelConfig, view: ViewConfig) -> STAM:
    """The network of these settings with random weights."""
    if config.image_size != view.crop_px:
        raise ConfigError(f"the model takes frames of {config.image_size} px but the view makes {view.crop_px} px")
    if config.encoder == "vit":
        encoder: torch.nn.Module = SpatialEncoder(config)
        width = config.width
    elif config.encoder == "lite0":
        lite = EfficientNetLite0(config.cells)
        encoder, width = lite, lite.width
    else:
        name = config.encoder.removeprefix("timm:")
        backbone = timm_frame_encoder(name, image_size=config.image_size, drop_path=config.drop_path)
        encoder, width = backbone, backbone.width
    if config.temporal != "mean" and (config.temporal_width or width) % config.temporal_heads:
        raise ConfigError(f"frame embeddings are {width} wide, no multiple of temporal_heads {config.temporal_heads}")
    return STAM(config, view, encoder, width)


class _Undrawn(TorchFunctionMode):
    """Leaves out drawing normal numbers, for which torch imports a compiler where they are on the meta device: four seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def planned_model(config: ModelConfig, view: ViewConfig) -> STAM:
    """Return the network of these settings on the meta device: shapes without numbers, however large.

    What a file claims is compared with it before any memory is taken.
    """
    with torch.device("meta"), _Undrawn():
        return build_model(replace(config, temporal_positions="learned"), view)  # waves would be computed


def sharing_copy(model: STAM) -> STAM:
    """Return a copy whose weights are the model's own memory, until one of the two is given others.

    Casting, moving, folding and merging the copy leave the model as it is, and what needs no change is there once. Changing
    numbers in place, as an optimiser does, reaches both.
    """
    shared: dict[int, object] = {
        id(own): torch.nn.Parameter(own.data, requires_grad=own.requires_grad) for own in model.parameters()
    }
    shared |= {id(own): own for own in model.buffers()}
    return copy.deepcopy(model, shared)


def load_strictly(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load every tensor into the module; WeightsError lists the missing, the unknown, the misshaped and those with NaN."""
    check_fit(module, {key: tuple(tensor.shape) for key, tensor in state.items()}, source)
    own = module.state_dict()
    others = [key for key, tensor in own.items() if tensor.is_floating_point() != state[key].is_floating_point()]
    if others:
        raise WeightsError(f"{source}: {_named(others, 'of another kind of number')}")
    broken = [key for key, tensor in state.items() if tensor.is_floating_point() and not _is_finite(tensor)]
    if broken:
        raise WeightsError(
            f"{source}: {_named(broken, 'with values that are no numbers (NaN or infinity)')}: damaged, or from training that "
            "went astray; take another copy"
        )
    module.load_state_dict(state)


def check_fit(module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise WeightsError where tensors of these shapes are not those of the module, whose own may be on the meta device."""
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    missing = sorted(own.keys() - shapes.keys())
    unknown = sorted(shapes.keys() - own.keys())
    misshaped = [
        f"{key} is {shapes[key]}, not {own[key]}" for key in sorted(own.keys() & shapes) if shapes[key] != own[key]
    ]
    problems = [
        _named(keys, what)
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshaped))
        if keys
    ]
    if problems:
        raise WeightsError(f"{source}: its weights do not fit this network: {'; '.join(problems)}")


def _named(keys: Sequence[str], what: str) -> str:
    return f"{len(keys)} {what}: {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}"


def _is_finite(tensor: Tensor) -> bool:
    # A sum is several times as fast as a look at each; only where it says no (it can overflow) each is looked at.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
