"""The image half of an image-text model as a frame encoder: pixels (M, C, H, W) -> embeddings (M, D) of length 1."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.errors import ConfigError, needed
from fewframes.models.backbones import merge_branches

NO_TEXT = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
"""A text half that is as small as can be: only the image half beside it is kept."""
NOT_OF_THE_IMAGE = {"timm_model_pretrained": False, "output_tokens": False}
"""Settings of an image half that are fixed here: its weights come from the file, and it gives one vector a frame."""


class ClipFrameEncoder(nn.Module):
    """A frame encoder whose embeddings are those of an image half of open_clip, divided by their length: (M, C, H, W) -> (M, D)."""

    def __init__(self, visual: nn.Module, width: int) -> None:
        super().__init__()
        self.visual, self.width = visual, width

    def forward(self, frames_MCHW: Tensor) -> Tensor:
        embeddings_MD: Tensor = self.visual(frames_MCHW)
        return F.normalize(embeddings_MD.float(), dim=-1)

    def fold_norms(self) -> None:
        """Merge the branches of blocks that timm can merge for inference (MobileCLIP): the same function, faster."""
        if (trunk := getattr(self.visual, "trunk", None)) is not None:
            merge_branches(trunk)


def open_clip_package() -> Any:
    """Import open_clip. Raises MissingDependency."""
    return needed("open_clip", "words", "an image-text encoder needs open_clip")


def tower_of(model_cfg: dict[str, Any], *, quick_gelu: bool) -> str:
    """Return the settings of the image half, in JSON, from open_clip's settings of a whole model.

    Args:
        model_cfg: the settings of the whole model.
        quick_gelu: True if its weights were trained with the fast form of GELU.
    """
    vision = {**model_cfg["vision_cfg"], **NOT_OF_THE_IMAGE}
    tower = {"embed_dim": model_cfg["embed_dim"], "quick_gelu": quick_gelu, "vision_cfg": vision}
    return json.dumps(tower, sort_keys=True)


def clip_frame_encoder(name: str, tower: str) -> ClipFrameEncoder:
    """Build the frame encoder of these settings, with random weights.

    Args:
        name: the name of the encoder, for errors.
        tower: the settings that `tower_of` returned.

    Raises:
        ConfigError: the settings are none of an image half.
        MissingDependency: open_clip is not installed.
    """
    package = open_clip_package()
    try:
        settings = json.loads(tower)
        vision, width = dict(settings["vision_cfg"]), int(settings["embed_dim"])
        _check_network(vision.get("timm_model_name"))
        model = package.CLIP(
            embed_dim=width,
            vision_cfg={**vision, **NOT_OF_THE_IMAGE},
            text_cfg=NO_TEXT,
            quick_gelu=bool(settings["quick_gelu"]),
        )
    except (KeyError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"{name}: its tower is none that open_clip can build ({type(error).__name__}: {error})"
        ) from None
    return ClipFrameEncoder(model.visual, width)


def _check_network(name: object) -> None:
    """Raise ValueError if an image half is to be built from anything but a network that timm has itself."""
    from timm import is_model  # late, because timm is slow to import

    # timm would take a name such as `hf-hub:...` as an address, and fetch it.
    if name is not None and not (isinstance(name, str) and is_model(name)):
        raise ValueError(f"timm has no network {name!r}")
