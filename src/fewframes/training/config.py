"""Settings of a training run, and the files (TOML) that hold them."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT, Count, Positive, Share, settings_from
from fewframes.data.dataset import DataConfig
from fewframes.errors import ConfigError, nearest
from fewframes.training.augment import AugmentConfig


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
