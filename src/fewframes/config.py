"""Settings: frozen, typed, checked when made; and `PRESETS`, every network by name.

A run file (TOML) has the keys and tables of `RunConfig`. An unknown key is refused and the nearest one named.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from fewframes.errors import ConfigError, nearest

Layout = Literal["factorised", "joint", "per_block"]
Temporal = Literal["paper", "release", "mean"]
Positions = Literal["learned", "waves"]
Task = Literal["single", "multilabel"]
Fit = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]

STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The architecture of a network; together with its weights, all that `forward` depends on."""

    encoder: str = "vit"
    """Frame encoder: `vit` is the paper's own (model.py); `lite0` EfficientNet-Lite0; `timm:NAME` any timm backbone's
    pooled features."""
    image_size: Count = 224
    """Side of the square frame that goes into the network, in pixels."""
    patch_size: Count = 16
    """P of Eq. 1, in pixels (ViT only)."""
    width: Count = 768
    """D, the width of the spatial encoder (ViT only)."""
    depth: Count = 12
    """L_space, its number of blocks (ViT only)."""
    heads: Count = 12
    """A, its attention heads (ViT only)."""
    cells: Annotated[int, Field(ge=0)] = 0
    """Parts per side of the frame over which features of the encoder's middle are pooled and appended (lite0 only)."""
    mlp_ratio: Positive = 4.0
    """Hidden width of its MLPs as a multiple of D (ViT only)."""
    qkv_bias: bool = True
    """Whether q, k and v have a bias; MIIL's ImageNet-21k-P ViT has none (ViT only)."""
    norm_eps: Positive = 1e-6
    """Epsilon of the LayerNorms; timm's ViTs use 1e-6, the 2021 release 1e-5."""
    layout: Layout = "factorised"
    """Where attention looks: each frame alone, then over frames (the paper's choice); `joint`, all patches of all frames
    (Eq. 5); `per_block`, over time inside every block after the spatial attention (end of section 3)."""
    temporal: Temporal = "paper"
    """Temporal encoder: `paper` (Eqs. 7-9, 11-12), `release` (post-norm, ReLU) or `mean` (Table 2)."""
    temporal_depth: Count = 6
    """L_time, its number of layers."""
    temporal_heads: Count = 8
    """Its attention heads."""
    temporal_width: Count | None = None
    """Width of the temporal encoder; None is the frame embedding's own, a number adds a linear projection to it."""
    temporal_mlp_width: Count | None = None
    """Hidden width of its MLPs; None is four times its width. The release has 2048 whatever the width."""
    motion_width: Annotated[int, Field(ge=0)] = 0
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
    num_frames: Count = 16
    """T, the frames the model is built for; it takes others, with its temporal positions interpolated."""
    num_classes: Count = 400
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
        if self.cells and self.encoder != "lite0":
            raise ValueError(f"cells {self.cells} needs the encoder 'lite0', not {self.encoder!r}")
        if self.temporal_width is not None and self.temporal_width % self.temporal_heads:
            raise ValueError(
                f"temporal_width {self.temporal_width} is no multiple of temporal_heads {self.temporal_heads}"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ViewConfig:
    """How a decoded frame becomes the network's square input."""

    fit: Fit = "crop"
    """`crop`: short side to `resize_px`, then the centre `crop_px` square (the paper); `squash`: the whole frame to
    `crop_px` square, proportions changed; `pad`: the whole frame inside the square, the rest filled with the mean colour."""
    resize_px: Count = 256
    """Short side before cropping, in pixels (`crop` only)."""
    crop_px: Count = 224
    """Side of the square that goes into the network, in pixels."""
    interpolation: Interpolation = "bicubic"
    """Resampling filter, antialiased."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel (R, G, B), on the scale 0-1."""
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    """Each colour channel is divided by this after the mean is subtracted."""

    @model_validator(mode="after")
    def _fits_together(self) -> ViewConfig:
        if self.fit == "crop" and self.resize_px < self.crop_px:
            raise ValueError(f"resize_px {self.resize_px} is below crop_px {self.crop_px}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """How the temporal encoder and the head are trained on frame embeddings."""

    epochs: Count = 80
    """Times that each video is seen."""
    min_steps: Count = 300
    """Steps to make even when `epochs` over few videos would be less."""
    batch_size: Count = 32
    """Videos a step."""
    learning_rate: Positive = 1e-3
    """Of AdamW, at its highest; half a cosine takes it to zero."""
    warmup_share: Share = 0.1
    """Share of the steps in which the learning rate rises to that."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of AdamW, on matrices."""
    label_smoothing: Share = 0.1
    """Share of the target given to all classes alike."""
    max_grad_norm: Positive = 1.0
    """Gradients longer than this are shortened to it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of first weights, order, views, dropout and the held-out part."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """How labels are read, which videos are held out, and how the others are seen."""

    task: Literal["auto", "single", "multilabel"] = "auto"
    """Whether a video shows one action or any number (labels in one cell then parted by semicolons); `auto`: as the data
    are published."""

    holdout: Share = 0.2
    """Share of each action's videos that is held out to measure on, where the data name no split; 0 trains on all."""
    group: str = "group"
    """The CSV's column of groups: what must not stand on both sides of the split (a recording, a person)."""
    videos: str = ""
    """Folder of the videos, when their paths are not relative to the list."""
    official_split: Count = 1
    """Which of the official splits, where the data have several (UCF101, HMDB51)."""
    mirror: bool = True
    """Train on each video mirrored left to right as well; not for actions that differ in left and right."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """A complete run: what `fewframes train` reads from `--run FILE.toml` and writes beside the model."""

    start: str = "lite0-16"
    """A preset or a checkpoint file: its architecture, view and, unless `init` says otherwise, its frame encoder."""
    init: str = ""
    """Weights of the frame encoder: a file with timm's names, one of our models, or a timm name to download."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig` that differ from the start's."""
    view: dict[str, Any] = field(default_factory=dict)
    """Fields of `ViewConfig` that differ from the start's."""
    data: DataConfig = DataConfig()
    """What is held out."""
    train: TrainConfig = TrainConfig()
    """How it learns."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Preset:
    """A network by name, with what it costs and where its weights come from."""

    model: ModelConfig
    """The architecture."""
    view: ViewConfig
    """Its input."""
    num_parameters: int
    """Parameters, classifier included; pinned by a test."""
    gmacs: float
    """Multiply-adds of one video in units of 1e9, without attention's products q k^T and (weights) v, as the paper counts;
    FLOPs are twice that. Pinned by a test."""
    attention_gmacs: float
    """What attention's products add to that."""
    paper: str = ""
    """The row of the paper it stands for, with the paper's own figures."""
    init: str = ""
    """timm weights that start training it."""
    weights: Literal["", "packaged", "released"] = ""
    """Whether complete weights exist: inside this package, or published by the paper's authors."""
    licence: str = ""
    """Licence of these weights (of `init` when there are no complete ones)."""


RELEASE_URL = "https://miil-public-eu.oss-eu-central-1.aliyuncs.com/model-zoo/STAM/v2/stam_{num_frames}.pth"
"""Where the paper's authors publish their weights (their README)."""

PLAIN_PIXELS = ViewConfig(interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""The release and TResNet see pixels in [0, 1] as they are: resize, crop and ToTensor, without Normalize."""
VIT_VIEW = ViewConfig()
RESNET_VIEW = ViewConfig(interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
LITE_VIEW = ViewConfig(resize_px=224)

VIT_B = ModelConfig()
VIT_S = ModelConfig(width=384, heads=6)
VIT_TI = ModelConfig(width=192, heads=3)
RELEASE = ModelConfig(temporal="release", temporal_mlp_width=2048, temporal_dropout=0.1, norm_eps=1e-5)
"""What the authors published. The paper's table says 96 M parameters; this builds 119.2 M."""
RESNET50 = ModelConfig(encoder="timm:resnet50")
TRESNET_M = ModelConfig(encoder="timm:tresnet_m")
TRESNET_L = ModelConfig(encoder="timm:tresnet_l", num_frames=8)
LITE0 = ModelConfig(
    encoder="lite0",
    cells=3,
    temporal_width=128,
    temporal_depth=2,
    temporal_heads=4,
    temporal_mlp_width=256,
    temporal_dropout=0.3,
    token_dropout=0.3,
    motion_width=256,
    temporal_positions="waves",
    moment_head=True,
    num_classes=11,
)
"""Ours: chosen in docs/decisions.md."""

IMAGENET_21K_VIT_B = "vit_base_patch16_224.augreg_in21k"


def _preset(
    model: ModelConfig,
    view: ViewConfig,
    cost: tuple[int, float, float],
    paper: str,
    init: str = "",
    weights: Literal["", "packaged", "released"] = "",
    licence: str = "Apache-2.0",
) -> Preset:
    num_parameters, gmacs, attention_gmacs = cost
    return Preset(
        model=model,
        view=view,
        num_parameters=num_parameters,
        gmacs=gmacs,
        attention_gmacs=attention_gmacs,
        paper=paper,
        init=init,
        weights=weights,
        licence=licence,
    )


PRESETS: dict[str, Preset] = {
    "stam-8": _preset(
        replace(RELEASE, num_frames=8),
        PLAIN_PIXELS,
        (119_199_376, 135.079, 5.723),
        "the authors' release, 8 frames",
        weights="released",
    ),
    "stam-16": _preset(
        replace(RELEASE, num_frames=16),
        PLAIN_PIXELS,
        (119_205_520, 270.126, 11.448),
        "the authors' release, 16 frames",
        weights="released",
    ),
    "stam-32": _preset(
        replace(RELEASE, num_frames=32),
        PLAIN_PIXELS,
        (119_217_808, 540.218, 22.901),
        "the authors' release, 32 frames",
        weights="released",
    ),
    "stam-64": _preset(
        replace(RELEASE, num_frames=64),
        PLAIN_PIXELS,
        (119_242_384, 1080.402, 45.820),
        "the authors' release, 64 frames",
        weights="released",
    ),
    "stam-paper-4": _preset(
        replace(VIT_B, num_frames=4),
        VIT_VIEW,
        (128_639_632, 67.604, 2.862),
        "Table 4: 74.1 %, 67 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-8": _preset(
        replace(VIT_B, num_frames=8),
        VIT_VIEW,
        (128_642_704, 135.164, 5.723),
        "Table 4: 77.1 %, 135 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-16": _preset(
        replace(VIT_B, num_frames=16),
        VIT_VIEW,
        (128_648_848, 270.286, 11.448),
        "Tables 1, 2, 3 and 4: 79.3 %, 270 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-32": _preset(
        replace(VIT_B, num_frames=32),
        VIT_VIEW,
        (128_661_136, 540.529, 22.901),
        "Table 4: 79.9 %, 540 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-64": _preset(
        replace(VIT_B, num_frames=64),
        VIT_VIEW,
        (128_685_712, 1081.016, 45.820),
        "Tables 1 and 4: 80.5 %, 1080 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "vit-b-mean-16": _preset(
        replace(VIT_B, temporal="mean"),
        VIT_VIEW,
        (86_106_256, 269.564, 11.445),
        "Table 2: 75.1 %, 265 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "tresnet-m-16": _preset(
        TRESNET_M,
        PLAIN_PIXELS,
        (332_350_224, 96.887, 0.007),
        "Tables 2 and 3: 75.7 %, 93 G",
        init="tresnet_m.miil_in21k",
    ),
    "tresnet-m-mean-16": _preset(
        replace(TRESNET_M, temporal="mean"),
        PLAIN_PIXELS,
        (30_159_632, 91.753, 0.000),
        "Table 2: 71.9 %, 88 G",
        init="tresnet_m.miil_in21k",
    ),
    "tresnet-l-8": _preset(
        TRESNET_L, PLAIN_PIXELS, (480_601_264, 90.835, 0.002), "Table 3: 75.9 %, 77 G", init="tresnet_l.miil_in1k"
    ),
    "resnet50-16": _preset(
        RESNET50,
        RESNET_VIEW,
        (326_518_224, 70.529, 0.007),
        "Table 3: 72.5 %, 70 G",
        init="resnet50.tv_in1k",
        licence="BSD-3-Clause",
    ),
    "vit-b-joint-16": _preset(
        replace(VIT_B, layout="joint", temporal="mean"),
        VIT_VIEW,
        (86_118_544, 269.564, 183.124),
        "Eq. 5: joint space-time attention",
        init=IMAGENET_21K_VIT_B,
    ),
    "vit-b-per-block-16": _preset(
        replace(VIT_B, layout="per_block", temporal="mean"),
        VIT_VIEW,
        (114_485_392, 358.802, 12.375),
        "section 3: time inside every block",
        init=IMAGENET_21K_VIT_B,
    ),
    "vit-s-16": _preset(
        replace(VIT_S, temporal_depth=4, temporal_heads=6),
        VIT_VIEW,
        (28_925_200, 67.974, 5.724),
        "CPU-sized",
        init="vit_small_patch16_224.augreg_in21k",
    ),
    "vit-ti-16": _preset(
        replace(VIT_TI, temporal_depth=2, temporal_heads=3),
        VIT_VIEW,
        (6_495_184, 17.210, 2.862),
        "CPU-sized",
        init="vit_tiny_patch16_224.augreg_in21k",
    ),
    "lite0-16": _preset(
        LITE0,
        LITE_VIEW,
        (6_167_030, 6.185, 0.000),
        "CPU-sized; the packaged model",
        init="tf_efficientnet_lite0.in1k",
        weights="packaged",
    ),
}
"""Every network by name. The number at the end is the frames per video it is built for."""


def cache_dir() -> Path:
    """Where downloads and cached frame embeddings go: $FEWFRAMES_CACHE, or fewframes in the user's cache folder."""
    if given := os.environ.get("FEWFRAMES_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewframes"


def read_run(path: str | os.PathLike[str]) -> RunConfig:
    """The run of a TOML file; ConfigError names the file, the key and what it takes."""
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path}: not TOML: {error}") from None
    tables: dict[str, Any] = {"data": DataConfig, "train": TrainConfig}
    for name in values.keys() & tables.keys():
        if not isinstance(values[name], dict):
            raise ConfigError(f"{path}: {name} = {values[name]!r}: needs a table, [{name}]")
        settings_from(tables[name], values[name], f"{path}: {name}")  # says which table an unknown key stands in
    return settings_from(RunConfig, values, str(path))


def changed(run: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The run with these fields changed, tables field by field; None leaves a field as it is."""
    values = dataclasses.asdict(run)
    for key, value in changes.items():
        if isinstance(value, Mapping):
            values[key] |= {name: inner for name, inner in value.items() if inner is not None}
        elif value is not None:
            values[key] = value
    return settings_from(RunConfig, values, "options")


def run_to_toml(run: RunConfig) -> str:
    """The run as TOML that `read_run` reads back."""
    values = dataclasses.asdict(run)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if key not in tables]
    for name, table in tables.items():
        if table:
            lines += [
                "",
                f"[{name}]",
                *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
            ]
    return "\n".join(lines) + "\n"


T = TypeVar("T")


def settings_from(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the settings class `cls` from plain values (TOML, JSON): lists become tuples.

    Raises ConfigError naming `where`, the field, its value and what it takes; an unknown key with the nearest known.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise ConfigError(f"{where}: unknown setting {unknown!r}; {nearest(unknown, known)}")
    try:
        return TypeAdapter(cls).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """A pydantic error in one line: each field, its value and what it takes."""
    parts = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{name} = {problem['input']!r}: {message}" if name else message)
    return "; ".join(parts)
