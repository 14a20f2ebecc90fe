"""Settings of a network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, NumFrames, Pixels, Share, Task

AttentionLayout = Literal["factorised", "joint", "per_block"]


Temporal = Literal["paper", "release", "mean", "causal"]


Positions = Literal["learned", "waves"]


Depth = Annotated[int, Field(ge=1, le=1000)]


Width = Annotated[int, Field(ge=1, le=2**17)]
MOST_CLASSES = 2**20


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The architecture of a network; together with its weights, all that `forward` depends on."""

    encoder: str = "vit"
    """Frame encoder: `vit` is the paper's own (model.py); `lite0` EfficientNet-Lite0; `timm:NAME` any timm backbone's
    pooled features."""
    image_size: Pixels = 224
    """Side of the square frame that goes into the network, in pixels."""
    patch_size: Pixels = 16
    """P of Eq. 1, in pixels (ViT only)."""
    width: Width = 768
    """D, the width of the spatial encoder (ViT only)."""
    depth: Depth = 12
    """L_space, its number of blocks (ViT only)."""
    heads: Width = 12
    """A, its attention heads (ViT only)."""
    cells: Annotated[int, Field(ge=0, le=64)] = 0
    """Parts per side of the frame over which features of the encoder's middle are pooled and appended (lite0 only)."""
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    """Hidden width of its MLPs as a multiple of D (ViT only)."""
    qkv_bias: bool = True
    """Whether q, k and v have a bias; MIIL's ImageNet-21k-P ViT has none (ViT only)."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Epsilon of the LayerNorms; timm's ViTs use 1e-6, the 2021 release 1e-5."""
    merge: Annotated[int, Field(ge=0)] = 0
    """Patches that look alike, so many of them, that are merged away in each block when it does not train (ViT and timm's plain
    ViTs)."""
    layout: AttentionLayout = "factorised"
    """Where attention looks: each frame alone, then over frames (the paper's choice); `joint`, all patches of all frames
    (Eq. 5); `per_block`, over time inside every block after the spatial attention (end of section 3)."""
    temporal: Temporal = "paper"
    """Temporal encoder: `paper` (Eqs. 7-9, 11-12), `release` (post-norm, ReLU), `mean` (Table 2) or `causal` (each frame looks
    at itself and earlier ones, so that a stream is answered from its first frame on)."""
    temporal_depth: Depth = 6
    """L_time, its number of layers."""
    temporal_heads: Width = 8
    """Its attention heads."""
    temporal_width: Width | None = None
    """Width of the temporal encoder; None is the frame embedding's own, a number adds a linear projection to it."""
    temporal_mlp_width: Width | None = None
    """Hidden width of its MLPs; None is four times its width. The release has 2048 whatever the width."""
    motion_width: Annotated[int, Field(ge=0, le=2**17)] = 0
    """Above 0, frame embeddings reach the temporal encoder joined with their changes from frame to frame, reduced to this
    many numbers by a map fitted to the training data."""
    moment_head: bool = False
    """Add to the logits a linear read-out of the frame embeddings' slow moments over time, solved in closed form."""
    temporal_positions: Positions = "learned"
    """How temporal positions start: `learned` from noise of 0.02, as the release; `waves` as slow waves over the video,
    large enough to be heard (docs/decisions.md)."""
    token_dropout: Share = 0.0
    """Dropout on what enters the temporal encoder, in training."""
    temporal_dropout: Share = 0.0
    """Dropout on the residual branches of the temporal layers, in training."""
    drop_path: Share = 0.0
    """Stochastic depth in training: the last block of the frame encoder leaves out its branches for this share of the frames,
    earlier ones less (ViT and timm)."""
    num_frames: NumFrames = 16
    """T, the frames the model is built for; it takes others, with its temporal positions interpolated."""
    num_classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)] = 400
    """K, the number of actions."""
    task: Task = "single"
    """`single`: a video shows one action (softmax); `multilabel`: any number of them (a sigmoid each)."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        if self.encoder == "vit":
            if self.image_size % self.patch_size:
                raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        elif self.encoder != "lite0" and not self.encoder.startswith("timm:"):
            raise ValueError(f"encoder {self.encoder!r}: needs 'vit', 'lite0' or 'timm:NAME'")
        elif self.layout != "factorised":
            raise ValueError(f"layout {self.layout!r} needs the ViT encoder; {self.encoder!r} takes frames one by one")
        if self.temporal == "causal" and self.layout != "factorised":
            raise ValueError(
                f"temporal 'causal' with layout {self.layout!r}, which looks at later frames; take 'factorised'"
            )
        if self.drop_path and self.encoder == "lite0":
            raise ValueError(f"drop_path {self.drop_path} is for ViT and timm encoders, not for 'lite0'")
        if self.cells and self.encoder != "lite0":
            raise ValueError(f"cells {self.cells} needs the encoder 'lite0', not {self.encoder!r}")
        if self.temporal_width is not None and self.temporal_width % self.temporal_heads:
            raise ValueError(
                f"temporal_width {self.temporal_width} is no multiple of temporal_heads {self.temporal_heads}"
            )
        return self
