"""Reading of the model files that the paper's authors published in 2021: their keys, and the labels of Kinetics-400."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from fewframes.core.settings import settings_from
from fewframes.errors import ConfigError, WeightsError
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model, check_fit, load_strictly, planned_model
from fewframes.models.files.tensor_files import read_tensors
from fewframes.models.presets import PLAIN_PIXELS, RELEASE

RELEASE_SOURCE = "2021 release of the paper's authors (Alibaba-MIIL/STAM)"
"""The source in the record of each model that was read from a file of the authors."""
RELEASE_TEMPORAL = "aggregate."
"""The beginning of the keys of the temporal encoder in these files."""


def load_release(path: str | os.PathLike[str], *, heads: int | None = None) -> Checkpoint:
    """Return the model of a file of the paper's authors (with keys as in `stam_16.pth`), in eval mode.

    The architecture is read from the shapes of the tensors. No shape tells the number of attention heads. It is `heads`, or one for
    each 64 of the width. Raises WeightsError if the file is damaged or of another kind.
    """
    path = Path(path)
    state = {_release_key(key): tensor for key, tensor in read_tensors(path).items()}
    needed = {  # the keys that the architecture is read from, with their number of axes
        "frame_encoder.cls_token": 3,
        "frame_encoder.pos_embed": 3,
        "frame_encoder.patch_embed.proj.weight": 4,
        "temporal_encoder.pos_embed": 3,
        "head.weight": 2,
    }
    absent = [key for key in needed if key not in state]
    if absent:
        raise WeightsError(f"{path}: neither a fewframes model nor a STAM release; it lacks {', '.join(absent)}")
    wrong = next(
        (key for key, num_axes in needed.items() if state[key].ndim != num_axes or not state[key].numel()), None
    )
    if wrong is not None:
        raise WeightsError(f"{path}: not a STAM release; {wrong} has the shape {tuple(state[wrong].shape)}")
    width = state["frame_encoder.cls_token"].shape[-1]
    patch_size = state["frame_encoder.patch_embed.proj.weight"].shape[-1]
    grid = round((state["frame_encoder.pos_embed"].shape[1] - 1) ** 0.5)
    found = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": _num_blocks(state, "frame_encoder"),
        "heads": heads or max(1, width // 64),
        "qkv_bias": "frame_encoder.blocks.0.attn.qkv.bias" in state,
        "temporal_depth": _num_blocks(state, "temporal_encoder"),
        "num_frames": state["temporal_encoder.pos_embed"].shape[1] - 1,
        "num_classes": len(state["head.weight"]),
    }
    try:
        config = settings_from(ModelConfig, {**asdict(RELEASE), **found}, str(path))
    except ConfigError as error:
        raise WeightsError(f"{error} (read from the shapes of its tensors)") from None
    view = replace(PLAIN_PIXELS, crop_px=config.image_size, resize_px=round(config.image_size * 256 / 224))
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    check_fit(planned_model(config, view), shapes, str(path))
    model = build_model(config, view)
    load_strictly(model, state, str(path))
    return Checkpoint(
        model=model.eval(),
        view=view,
        labels=kinetics_labels(config.num_classes),
        provenance={"source": RELEASE_SOURCE, "data": "Kinetics-400"},
        licences={"weights": "Apache-2.0 (Alibaba-MIIL/STAM)"},
    )


def _release_key(key: str) -> str:
    """Return our key of a tensor from the release's key."""
    if key.startswith("head."):
        return key
    if not key.startswith(RELEASE_TEMPORAL):
        return f"frame_encoder.{key}"
    for theirs, ours in (
        (RELEASE_TEMPORAL, "temporal_encoder."),
        ("transformer_enc.layers.", "blocks."),
        ("transformer_enc.norm.", "norm."),
        ("self_attn.in_proj_", "attn.qkv."),
        ("self_attn.out_proj.", "attn.proj."),
        ("linear1.", "mlp.fc1."),
        ("linear2.", "mlp.fc2."),
    ):
        key = key.replace(theirs, ours)
    return key


def _num_blocks(state: Mapping[str, Tensor], part: str) -> int:
    """Return the number of blocks of a part of the network, counted from the keys."""
    prefix = f"{part}.blocks."
    return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})


def kinetics_labels(num_classes: int) -> tuple[str, ...]:
    """Return the names of the classes of Kinetics-400, or `class 0`, `class 1`, ... for any other number of classes.

    They are in the order of Kinetics' sorted class folders, in which the release was trained.
    """
    if num_classes != 400:
        return tuple(f"class {index}" for index in range(num_classes))
    from torchvision.models.video import R3D_18_Weights  # late, because torchvision is slow to import

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])
