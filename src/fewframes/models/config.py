"""The settings of a network, and the plan of an early exit, which says in which order frames are encoded and when to stop.

They are stored in model files, so their names must not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, NumFrames, Pixels, Positive, Share, Task, settings_from
from fewframes.errors import ConfigError
from fewframes.models.moments import MomentSet

AttentionLayout = Literal["factorised", "joint", "per_block"]
Temporal = Literal["paper", "release", "mean", "causal", "recurrent"]
Positions = Literal["learned", "waves"]
MapMethod = Literal["rollout", "attention", "grad-cam"]
MapChoice = Literal["auto", "rollout", "attention", "grad-cam", "none"]

# The upper limits are far above any real network. They keep a damaged file from claiming one that fills the memory.
Depth = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=2**17)]
MOST_CLASSES = 2**20
CLIP, TIMM = "clip:", "timm:"
"""The prefixes of the names of frame encoders: the image halves of image-text models of open_clip, and networks of timm."""
LITE_ENCODERS, NUM_LITE_STAGES = ("lite0", "lite1", "lite2"), 7


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The architecture of a network. Together with the weights it decides all that `forward` returns."""

    encoder: str = "vit"
    """The frame encoder. `vit` is the paper's own (stam.py), `lite0` to `lite2` are EfficientNet-Lite0 to Lite2, `timm:NAME` is
    the pooled features of any timm backbone, and `clip:NAME` the image half of an image-text model of open_clip (`tower`). After
    @ stands what of a timm ViT's tokens is taken, if not what its own head takes: `timm:NAME@class`, `@mean` or `@class+mean`."""
    tower: str | None = None
    """The settings of the image half of an image-text model, in JSON, as open_clip names them (`clip:NAME` only). They are in the
    file, so that it does not depend on a list of names."""
    image_size: Pixels = 224
    """The side of the square frames that the network takes, in pixels."""
    patch_size: Pixels = 16
    """P of Eq. 1, the side of a patch in pixels (ViT only)."""
    width: Width = 768
    """D, the width of the spatial encoder (ViT only)."""
    depth: Depth = 12
    """L_space, the number of blocks of the spatial encoder (ViT only)."""
    heads: Width = 12
    """A, the number of attention heads of the spatial encoder (ViT only)."""
    cells: Annotated[int, Field(ge=0, le=64)] = 0
    """The number of cells along each side of the frame. Features of the encoder's middle are pooled over each cell and appended
    to the frame embedding; 0 appends none."""
    cell_width: Width | None = None
    """The numbers of each cell: a fixed random projection reduces the features to so many. None keeps all channels of the layer.
    Without cells it says nothing."""
    cells_layer: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The layer whose features are pooled over cells, counted from 1: a block of a ViT, a stage of EfficientNet-Lite (1-7), or one
    of the maps that timm's `forward_intermediates` gives. None is the block at two thirds of a ViT's depth, and the last layer at
    a sixteenth of the size in other networks."""
    cell_tokens: bool = False
    """True if each cell is a token of its own in the temporal encoder, beside one for the pooled features or the class token:
    cells**2 + 1 tokens a frame. False joins all of a frame to one token. The frame embeddings, and what is cached, are the same."""
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    """The hidden width of the spatial encoder's MLPs, as a multiple of D (ViT only)."""
    qkv_bias: bool = True
    """True if q, k and v have a bias. MIIL's ImageNet-21k-P ViT has none (ViT only)."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """The epsilon of the LayerNorms. timm's ViTs use 1e-6, the 2021 release 1e-5."""
    merge: Annotated[int, Field(ge=0)] = 0
    """The number of patches that each block merges into patches that look alike. In training none are merged (ViT and plain ViTs
    of timm)."""
    layout: AttentionLayout = "factorised"
    """The span of attention. `factorised`: each frame by itself, then over frames (the paper's choice). `joint`: all patches of
    all frames (Eq. 5). `per_block`: over time inside every block, after the spatial attention (end of section 3)."""
    temporal: Temporal = "paper"
    """The temporal encoder: `paper` (Eqs. 7-9, 11-12), `release` (post-norm, ReLU), `mean` (Table 2), `causal` (each frame
    attends to itself and earlier ones, so that a stream is answered from its first frame on) or `recurrent` (a gated recurrence
    instead of attention, which is causal too and can be computed frame by frame)."""
    temporal_depth: Depth = 6
    """L_time, the number of layers of the temporal encoder."""
    temporal_heads: Width = 8
    """The number of attention heads of the temporal encoder."""
    temporal_width: Width | None = None
    """The width of the temporal encoder. None is the width of the frame embeddings; a number adds a linear projection to it."""
    temporal_mlp_width: Width | None = None
    """The hidden width of the temporal encoder's MLPs. None is four times its width. The release has 2048 at any width."""
    motion_width: Annotated[int, Field(ge=0, le=2**17)] = 0
    """The width of motion tokens; 0 has none. Each frame embedding is joined with its changes from frame to frame, and a linear map
    that is fitted to the training data reduces both to this many numbers."""
    moment_head: bool = False
    """True if a linear read-out of moments over time of the frame embeddings is added to the logits. It is solved in closed form."""
    moments: MomentSet = "slow"
    """The set of moments that the read-out takes (models/moments.py): `slow`, as in older files, or `motion`, which trusts changes
    more than content and does better in other places."""
    temporal_positions: Positions = "learned"
    """The start of the temporal positions. `learned`: noise of 0.02, as in the release. `waves`: slow waves over the video, large
    enough to have an effect (docs/decisions). Training with a frozen frame encoder takes `waves` unless told otherwise."""
    token_dropout: Share = 0.0
    """The dropout on the input of the temporal encoder, in training."""
    temporal_dropout: Share = 0.0
    """The dropout on the residual branches of the temporal layers, in training."""
    drop_path: Share = 0.0
    """The stochastic depth in training: the fraction of frames for which the last block of the frame encoder leaves out its
    branches. It is smaller for earlier blocks (ViT and timm)."""
    num_frames: NumFrames = 16
    """T, the number of frames that the model is built for. It takes other numbers too, by interpolating its temporal positions."""
    num_classes: Annotated[int, Field(ge=1, le=MOST_CLASSES)] = 400
    """K, the number of actions."""
    task: Task = "single"
    """The kind of labels. `single`: a video shows one action (softmax). `multilabel`: it shows any number of them (sigmoids)."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        """Raise ValueError if two settings contradict each other."""
        if self.encoder == "vit":
            if self.image_size % self.patch_size:
                raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
            if self.width % self.heads:
                raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        elif self.encoder not in LITE_ENCODERS and not self.encoder.startswith((TIMM, CLIP)):
            raise ValueError(
                f"encoder {self.encoder!r}: needs 'vit', 'lite0', 'lite1', 'lite2', 'timm:NAME' or 'clip:NAME'"
            )
        elif self.layout != "factorised":
            raise ValueError(f"layout {self.layout!r} needs the ViT encoder; {self.encoder!r} takes frames one by one")
        if self.is_causal and self.layout != "factorised":
            raise ValueError(
                f"temporal {self.temporal!r} cannot have layout {self.layout!r}, which attends to later frames; take 'factorised'"
            )
        if self.temporal == "recurrent" and self.moment_head:
            raise ValueError(
                "temporal 'recurrent' cannot have a moment_head, which reads all frames of a window at once; set moment_head = "
                "false, or temporal to 'causal'"
            )
        if self.drop_path and self.encoder in LITE_ENCODERS:
            raise ValueError(f"drop_path {self.drop_path} is for ViT and timm encoders, not for {self.encoder!r}")
        self._check_tower()
        self._check_cells()
        if self.temporal_width is not None and self.temporal_width % self.temporal_heads:
            raise ValueError(
                f"temporal_width {self.temporal_width} is not a multiple of temporal_heads {self.temporal_heads}"
            )
        return self

    @property
    def is_causal(self) -> bool:
        """Return True if the temporal encoder uses a frame and those before it alone."""
        return self.temporal in ("causal", "recurrent")

    def _check_tower(self) -> None:
        """Raise ValueError if an image half of an image-text model has no settings, or has settings that are not its own."""
        is_clip = self.encoder.startswith(CLIP)
        if is_clip != (self.tower is not None):
            raise ValueError(
                f"encoder {self.encoder!r} {'needs' if is_clip else 'has no'} tower: 'clip:NAME' goes with the settings of its image "
                "half; make such a model from words: fewframes words"
            )
        wrong = [name for name in ("cells", "merge", "drop_path") if is_clip and getattr(self, name)]
        if wrong:
            raise ValueError(f"{wrong[0]} {getattr(self, wrong[0])} is not for {self.encoder!r}; leave it out")

    def _check_cells(self) -> None:
        """Raise ValueError if the layer of the cells does not exist, or if the patches that they need are merged."""
        if self.cells and self.merge:
            raise ValueError(
                f"merge {self.merge} moves patches, and cells {self.cells} needs them in their places; set one of them to 0"
            )
        if self.cell_tokens:
            self._check_cell_tokens()
        if self.cells_layer is None:
            return
        if not self.cells:
            raise ValueError(f"cells_layer {self.cells_layer} needs cells above 0")
        num_layers = {"vit": self.depth, **dict.fromkeys(LITE_ENCODERS, NUM_LITE_STAGES)}.get(self.encoder)
        if num_layers is not None and self.cells_layer > num_layers:
            raise ValueError(f"cells_layer {self.cells_layer}: {self.encoder!r} has layers 1 to {num_layers}")

    def _check_cell_tokens(self) -> None:
        """Raise ValueError if the cells cannot be tokens of the temporal encoder."""
        if self.temporal == "mean":
            raise ValueError(
                "cell_tokens = true needs a temporal encoder with layers: the mean over frames is the same for joined cells; set "
                "cell_tokens = false, or temporal to 'paper', 'causal' or 'recurrent'"
            )
        missing = [name for name in ("cells", "cell_width", "temporal_width") if not getattr(self, name)]
        if missing:
            raise ValueError(
                f"cell_tokens = true needs {', '.join(missing)}: cells above 0, the numbers of each (cell_width), and the width that "
                "all tokens are brought to (temporal_width), such as 3, 64 and 128"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExitPlan:
    """The stages in which a video is labelled, and the confidence that ends it early. `to_dict` gives plain values for a file."""

    stages: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...]
    """The positions, among the model's uniformly sampled frames, of all frames encoded by the end of each stage. They ascend. Each
    stage contains the one before, and the last one contains every position."""
    temperatures: tuple[Positive, ...]
    """The number that the logits of each stage are divided by before their confidence is computed."""
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The confidence (0-1) that is enough for an answer before the last stage. Above 1, no answer is given early."""

    @model_validator(mode="after")
    def _fits_together(self) -> ExitPlan:
        """Raise ValueError unless the stages grow to all frames and each has its temperature."""
        if not self.stages or len(self.temperatures) != len(self.stages):
            raise ValueError(
                f"{len(self.stages)} stages with {len(self.temperatures)} temperatures: needs one for each"
            )
        seen: set[int] = set()
        for positions in self.stages:
            if list(positions) != sorted(set(positions)) or not seen < set(positions):
                raise ValueError(
                    f"stage {positions}: needs ascending positions, all those of the stage before and at least one more"
                )
            seen = set(positions)
        # The positions are different and not below 0, so their number tells whether any is missing.
        if len(seen) != self.num_frames:
            raise ValueError(
                f"the last stage has {len(seen)} of {self.num_frames} positions: needs all of them, counted from 0"
            )
        return self

    @property
    def num_frames(self) -> int:
        """Return T, the number of frames of the last stage."""
        return self.stages[-1][-1] + 1 if self.stages and self.stages[-1] else 0

    def new_positions(self, stage: int) -> tuple[int, ...]:
        """Return the positions of the frames that are encoded for the first time in this stage, ascending."""
        before = self.stages[stage - 1] if stage else ()
        return tuple(position for position in self.stages[stage] if position not in before)

    def check(self, config: ModelConfig) -> None:
        """Raise ConfigError if a model of these settings cannot stop early, or is built for another number of frames."""
        check_can_exit(embeds_frames=config.layout == "factorised", task=config.task)
        self.check_frames(config.num_frames)

    def check_frames(self, num_frames: int) -> None:
        """Raise ConfigError if the plan is not for a model that is built for this number of frames."""
        if num_frames != self.num_frames:
            raise ConfigError(
                f"this exit plan is for {self.num_frames} frames and the model is built for {num_frames}; "
                "fit a plan for this model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "exit plan") -> ExitPlan:
        """Return the plan that `to_dict` wrote. Raises ConfigError, which begins with `where`, if the values are not valid."""
        return settings_from(cls, values, where)


def check_can_exit(*, embeds_frames: bool, task: Task) -> None:
    """Raise ConfigError if encoding fewer frames saves nothing, or if the model has no single answer to be confident of.

    Args:
        embeds_frames: True if each frame has an embedding of its own.
        task: the kind of labels.
    """
    if not embeds_frames:
        raise ConfigError(
            "this model mixes frames inside its encoder, so no frame can be added later; take all frames, or a model of the "
            "'factorised' layout"
        )
    if task == "multilabel":
        raise ConfigError(
            "early exit needs a single answer, and a multi-label model gives one for each label; take all frames"
        )
