"""Building of networks from settings, and strict loading of tensors into them.

The shapes that a file claims are compared with the network before any memory is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.backbones import LITES, EfficientNetLite, TimmFrameEncoder, timm_frame_encoder
from fewframes.models.config import CLIP, TIMM, ModelConfig
from fewframes.models.stam import STAM, SpatialEncoder
from fewframes.models.words.encoder import ClipFrameEncoder, clip_frame_encoder
from fewframes.video.view import ViewConfig


def build_model(config: ModelConfig, view: ViewConfig) -> STAM:
    """Build the network of these settings, with random weights. Raises ConfigError if the settings do not fit together."""
    if config.image_size != view.crop_px:
        raise ConfigError(f"the model takes frames of {config.image_size} px but the view makes {view.crop_px} px")
    if config.encoder == "vit":
        encoder: SpatialEncoder | EfficientNetLite | TimmFrameEncoder | ClipFrameEncoder = SpatialEncoder(config)
    elif config.encoder in LITES:
        multipliers = LITES[config.encoder]
        encoder = EfficientNetLite(
            config.cells, cells_layer=config.cells_layer, cell_width=config.cell_width, multipliers=multipliers
        )
    elif config.encoder.startswith(CLIP):
        assert config.tower is not None  # ModelConfig checks it
        encoder = clip_frame_encoder(config.encoder, config.tower)
    else:
        encoder = timm_frame_encoder(
            config.encoder.removeprefix(TIMM),
            image_size=config.image_size,
            drop_path=config.drop_path,
            cells=config.cells,
            cells_layer=config.cells_layer,
            cell_width=config.cell_width,
        )
    width = encoder.width
    if config.temporal not in ("mean", "recurrent") and (config.temporal_width or width) % config.temporal_heads:
        raise ConfigError(
            f"frame embeddings are {width} wide, which is not a multiple of temporal_heads {config.temporal_heads}"
        )
    return STAM(config, view, encoder, width)


class _Undrawn(TorchFunctionMode):
    """A mode of torch in which no normal numbers are drawn. On the meta device torch would import a compiler to do it (4 s)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def planned_model(config: ModelConfig, view: ViewConfig) -> STAM:
    """Return the network of these settings on the meta device: it has shapes but no numbers, so it takes no memory at any size."""
    with torch.device("meta"), _Undrawn():
        # Waves would be computed with real numbers; the shapes are the same with learned positions.
        return build_model(replace(config, temporal_positions="learned"), view)


def sharing_copy(model: STAM, parts: Mapping[torch.nn.Module, torch.nn.Module] | None = None) -> STAM:
    """Return a copy of the model that shares the memory of its weights.

    Casting, moving, folding or merging the copy gives it weights of its own, where they change, and leaves the model as it is.
    Changing numbers in place, as an optimiser does, changes both.

    Args:
        model: the model.
        parts: the modules of the model in place of which the copy has others, such as a frame encoder that is shared.
    """
    # `deepcopy` takes this as its memo: for the tensors in it, it uses the value instead of making a copy.
    shared: dict[int, object] = {
        id(own): torch.nn.Parameter(own.data, requires_grad=own.requires_grad) for own in model.parameters()
    }
    shared |= {id(own): own for own in model.buffers()}
    shared |= {id(own): other for own, other in (parts or {}).items()}
    return copy.deepcopy(model, shared)


def load_strictly(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load every tensor into the module. Raises WeightsError, which lists tensors that are missing, unknown, misshaped or have NaN.

    Args:
        module: the network, or a part of it.
        state: the tensors by their keys.
        source: the file or name that they come from, for the error message.
    """
    check_fit(module, {key: tuple(tensor.shape) for key, tensor in state.items()}, source)
    own = module.state_dict()
    others = [key for key, tensor in own.items() if tensor.is_floating_point() != state[key].is_floating_point()]
    if others:
        raise WeightsError(f"{source}: {_named(others, 'of another kind of number')}")
    broken = [key for key, tensor in state.items() if tensor.is_floating_point() and not _is_finite(tensor)]
    if broken:
        raise WeightsError(
            f"{source}: {_named(broken, 'with values that are no numbers (NaN or infinity)')}: the file is damaged, or training "
            "diverged; take another copy"
        )
    module.load_state_dict(state)


def check_fit(module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise WeightsError unless the module has tensors of exactly these keys and shapes. It may be on the meta device.

    Args:
        module: the network, or a part of it.
        shapes: the shape of each tensor by its key.
        source: the file or name that they come from, for the error message.
    """
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
    """Return how many tensors have a problem, the problem, and the first six of their keys."""
    return f"{len(keys)} {what}: {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}"


def _is_finite(tensor: Tensor) -> bool:
    """Return True if the tensor has no NaN and no infinity."""
    # A sum is several times as fast as a test of each number. Only if it is not finite, which may be an overflow, each is tested.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
