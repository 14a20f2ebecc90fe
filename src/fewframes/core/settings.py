"""Settings: frozen, typed, checked when made.

A run file (TOML) has the keys and tables of `RunConfig`. An unknown key is refused and the nearest one named.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from fewframes.errors import ConfigError, nearest

Layout = Literal["factorised", "joint", "per_block"]
Temporal = Literal["paper", "release", "mean", "causal"]
Positions = Literal["learned", "waves"]
Task = Literal["single", "multilabel"]
Fit = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]

Pixels = Annotated[int, Field(ge=1, le=8192)]
"""A side of a picture; more is a damaged file or a slip, and would fill the memory."""
Depth = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=2**17)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
MOST_FRAMES = 4096
"""Frames of one video that a network takes at once: 600 MB of pixels at 224 px."""
NumFrames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]
MOST_CLASSES = 2**20
MOST_SHOWN = 200
"""Characters of a wrong value that an error shows."""

STRICT = ConfigDict(extra="forbid", strict=True)


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
    layout: Layout = "factorised"
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ViewConfig:
    """How a decoded frame becomes the network's square input."""

    fit: Fit = "crop"
    """`crop`: short side to `resize_px`, then the centre `crop_px` square (the paper); `squash`: the whole frame to
    `crop_px` square, proportions changed; `pad`: the whole frame inside the square, the rest filled with the mean colour."""
    resize_px: Pixels = 256
    """Short side before cropping, in pixels (`crop` only)."""
    crop_px: Pixels = 224
    """Side of the square that goes into the network, in pixels."""
    interpolation: Interpolation = "bicubic"
    """Resampling filter, antialiased."""
    mean: tuple[Finite, Finite, Finite] = (0.5, 0.5, 0.5)
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
    """What is trained, how, and what comes of it."""

    unfreeze: Annotated[str, Field(pattern=r"^(none|all|last-[1-9]\d*-blocks)$")] = "none"
    """Which part of the frame encoder learns too: `none` (its embeddings are computed once and kept), `last-N-blocks` (and
    what follows them), `all`."""
    epochs: Count = 80
    """Times that each video is seen."""
    min_steps: Count = 300
    """Steps to make even when `epochs` over few videos would be less."""
    batch_size: Count = 32
    """Videos that a process takes at a time."""
    accumulate: Count = 1
    """Batches whose gradients are added up to one step."""
    learning_rate: Positive = 1e-3
    """Of AdamW for the temporal encoder and the head, at its highest; half a cosine takes it to zero."""
    encoder_learning_rate: Positive = 1e-4
    """The same for the frame encoder, where it learns."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer of the frame encoder learns by this much slower than the one after it."""
    warmup_share: Share = 0.1
    """Share of the steps in which the learning rate rises to its highest."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of AdamW, on matrices."""
    label_smoothing: Share = 0.1
    """Share of the target given to all classes alike."""
    max_grad_norm: Positive = 1.0
    """Gradients longer than this are shortened to it."""
    ema_decay: Share = 0.0
    """Above 0 the model is the moving average of its weights, each step keeping this much of the old ones."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """Against rare actions being ignored: weigh the loss by 1 / videos of the action, or draw its videos as often."""
    teacher: str = ""
    """A preset or checkpoint with the same labels whose scores are learned beside the labels (knowledge distillation)."""
    teacher_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the loss that is the teacher's."""
    teacher_temperature: Positive = 1.0
    """What teacher's and pupil's logits are divided by before they are compared."""
    early_exit: bool = False
    """Learn from few frames too, so that the model can stop looking at a video early; when it may is fitted on held-out videos."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model: those of the last step, or of the epoch that was best on the held-out `val` videos
    (where the data name no `val`, on all held-out ones, and then its figure is too kind)."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Above 0 training ends after as many epochs without a better one."""
    checkpointing: bool = False
    """Recompute the frame encoder's activations instead of keeping them: less memory, a third more time."""
    compile: bool = False
    """Translate the network with torch.compile first: minutes, then faster steps."""
    shard: bool = False
    """Spread weights and optimiser over the processes (FSDP) instead of a copy in each."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode ahead, for each that trains; 0 decodes in its own, None takes one a core."""
    save_every_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between the states from which an interrupted run goes on."""
    trackers: tuple[str, ...] = ()
    """Trackers besides TensorBoard and the CSV, by accelerate's names (wandb, mlflow, trackio, ...)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of first weights, order, views, dropout and the held-out part."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentConfig:
    """How training videos are changed, each draw for all frames of a video alike."""

    views: Annotated[int, Field(ge=0)] = 6
    """With a frozen frame encoder: draws of each video that are embedded and kept, beside the video as it is and mirrored
    (`data.mirror`). An encoder that learns draws anew each time."""
    scale: Annotated[float, Field(ge=1)] = 1.4
    """Short side before the random crop: between the view's `resize_px` and this many times it (the paper: 256 to 320)."""
    jitter: bool = True
    """A random moment in each part of the video instead of its centre."""
    colour: Share = 0.2
    """By how much brightness, contrast and saturation may change."""
    auto: Literal["none", "imagenet", "randaugment"] = "none"
    """AutoAugment's policy for ImageNet, as in the paper, or RandAugment."""
    cutout: Share = 0.0
    """Side of a square that is painted over, as a share of the frame's; the paper has 0.5."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixing pairs of videos and their labels; 0 does not."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of pasting a box of one video into another, labels by area; 0 does not. With both, each has every other batch.
    It takes pictures: with a frozen frame encoder it is refused."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StreamConfig:
    """How a stream is looked at, and what is said of it."""

    window_s: Positive = 3.2
    """Seconds that each answer is about: the model's number of frames lie in them, evenly."""
    every_s: Positive | None = None
    """Seconds between answers, taken to the nearest number of frames; None answers after each one."""
    smooth_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Time constant of the smoothed scores: of what an answer said, 1/e is left after as many seconds; 0 smooths nothing."""
    enter: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smoothed score from which the likeliest action becomes the label."""
    leave: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Smoothed score below which the label is given up."""
    max_latency_s: Positive | None = None
    """Answers that would be older than this have their frames dropped, so that the newest get theirs in time."""
    drop: Literal["auto", "newest", "never"] = "auto"
    """When frames come faster than they are looked at: keep the `newest`, or `never` drop any and let the source wait; `auto`
    keeps the newest of cameras, networks and `live` files."""
    live: bool = False
    """Play a file at its own speed, as if a camera gave it."""
    stall_s: Positive = 5.0
    """Seconds without a picture after which a source counts as stalled."""
    reconnects: Annotated[int, Field(ge=0)] = 10
    """Tries in a row to open a camera or network stream again."""
    open_s: Positive | None = None
    """Seconds that opening the source may take, a pipe that says nothing for example; None waits for ever."""

    @model_validator(mode="after")
    def _fits_together(self) -> StreamConfig:
        if self.leave > self.enter:
            raise ValueError(f"leave {self.leave:g} is above enter {self.enter:g}: a label would be given up at once")
        if self.drop == "never" and self.max_latency_s is not None:
            raise ValueError(
                "drop never, and a greatest latency, which is kept to by dropping; leave one of the two out"
            )
        return self


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
    augment: AugmentConfig = AugmentConfig()
    """How training videos are changed."""


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
    return _run_from(values, str(path))


def changed(run: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The run with these fields changed, tables field by field; None leaves a field as it is."""
    values = dataclasses.asdict(run)
    for key, value in changes.items():
        if isinstance(value, Mapping) and key in values:
            values[key] |= {name: inner for name, inner in value.items() if inner is not None}
        elif value is not None:
            values[key] = value
    return _run_from(values, "options")


def _run_from(values: Mapping[str, Any], where: str) -> RunConfig:
    tables: dict[str, Any] = {"data": DataConfig, "train": TrainConfig, "augment": AugmentConfig}
    for name in values.keys() & tables.keys():
        if not isinstance(values[name], dict):
            raise ConfigError(f"{where}: {name} = {values[name]!r}: needs a table, [{name}]")
        settings_from(tables[name], values[name], f"{where}: {name}")  # says which table an unknown key stands in
    return settings_from(RunConfig, values, where)


def changed_by_words(run: RunConfig, words: Iterable[str]) -> RunConfig:
    """The run after settings such as `train.epochs=5` or `init=FILE`; values are TOML, or words without quotes."""
    tables = [name for name, value in dataclasses.asdict(run).items() if isinstance(value, dict)]
    for word in words:
        name, _, text = word.partition("=")
        table, _, key = name.strip().rpartition(".")
        if not text or not key:
            raise ConfigError(f"{word!r}: needs TABLE.SETTING=VALUE, for example train.epochs=5")
        if table and table not in tables:
            raise ConfigError(f"{word!r}: no table {table!r}; {nearest(table, tables)}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        run = changed(run, {table: {key: value}} if table else {key: value})
    return run


def run_to_toml(run: RunConfig) -> str:
    """The run as TOML that `read_run` reads back; TOML has no word for nothing, so what is None is left out."""
    values = dataclasses.asdict(run)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = _toml_lines({key: value for key, value in values.items() if key not in tables})
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]", *_toml_lines(table)]
    return "\n".join(lines) + "\n"


def _toml_lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value is not None]


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
        given = repr(problem["input"])
        given = given if len(given) <= MOST_SHOWN else f"{given[:MOST_SHOWN]}..."
        parts.append(f"{name} = {given}: {message}" if name else message)
    return "; ".join(parts)
