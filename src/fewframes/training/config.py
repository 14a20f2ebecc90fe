"""Settings of a training run, and the TOML files that hold them.

Names and defaults of the settings are part of the files that users have, so they do not change.
"""

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

from fewframes.core.settings import STRICT, Count, Positive, Share, read_toml, settings_from
from fewframes.data.config import DataConfig
from fewframes.errors import ConfigError, nearest
from fewframes.training.augment_config import AugmentConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """The `train` table of a run: what is trained, for how long, how fast, and which weights become the model."""

    head: Literal["trained", "solved"] = "trained"
    """`trained` learns a temporal encoder and a head in steps. `solved` solves a linear read-out of the frame embeddings in closed
    form, in seconds and without torch; nothing else is trained."""
    unfreeze: Annotated[str, Field(pattern=r"^(none|all|last-[1-9]\d*-blocks)$")] = "none"
    """The part of the frame encoder that learns too: `none` (its embeddings are computed once and cached), `last-N-blocks` (and
    what follows them), `all`."""
    epochs: Count = 80
    """Number of passes over the training videos."""
    min_steps: Count = 300
    """Least number of steps, even if `epochs` passes over few videos would be fewer."""
    batch_size: Count = 32
    """Videos in a batch of one process."""
    accumulate: Count = 1
    """Number of batches whose gradients are added up for one step."""
    learning_rate: Positive = 1e-3
    """Highest learning rate of AdamW for the temporal encoder and the head. It falls to zero along half a cosine."""
    encoder_learning_rate: Positive = 1e-4
    """Highest learning rate of the frame encoder, where it learns."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor between the learning rates of a layer of the frame encoder and of the layer after it."""
    warmup_share: Share = 0.1
    """Fraction of the steps in which the learning rate rises to its highest."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of AdamW. It applies to matrices alone."""
    label_smoothing: Share = 0.1
    """Fraction of the target that is given to all classes alike."""
    max_grad_norm: Positive = 1.0
    """Largest norm of the gradient. Longer ones are scaled down to it."""
    ema_decay: Share = 0.0
    """Above 0, the model is the exponential moving average of its weights; each step keeps this fraction of the old ones."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """Guard against rare actions being ignored: weigh the loss by 1 / videos of the action, or draw videos of all actions equally
    often."""
    teacher: str = ""
    """Preset or checkpoint with the same labels, whose scores are learned beside the labels (knowledge distillation)."""
    teacher_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Fraction of the loss that compares with the teacher's scores."""
    teacher_temperature: Positive = 1.0
    """Divisor of the teacher's and the pupil's logits before they are compared."""
    early_exit: bool = False
    """Learn from few frames too, so that the model can stop looking at a video early. The point at which it may stop is fitted on
    held-out videos."""
    keep: Literal["last", "best"] = "last"
    """The weights that become the model: those of the last step, or of the epoch that was best on the held-out `val` videos. If
    the data name no `val`, the epoch is chosen on all held-out videos, and the figure on them is then too kind."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Above 0, training stops after this many epochs without a better one."""
    checkpointing: bool = False
    """Recompute the frame encoder's activations instead of storing them: less memory, a third more time."""
    compile: bool = False
    """Compile the network with torch.compile first: this takes minutes, then steps are faster."""
    shard: bool = False
    """Spread weights and optimiser over the processes (FSDP) instead of a copy in each."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Number of worker processes that decode ahead for each process that trains. 0 decodes in the training process itself, None
    starts one per core."""
    calibration_folds: Annotated[int, Field(ge=0, le=100)] = 3
    """Number of parts of the training videos that are left out in turn, in whole groups, to learn how sure the model may be. The
    network is trained once more for each. Its logits are then divided by the number that suits the left-out videos. 0 leaves the
    scores as they are."""
    boundaries: Literal["auto", "on", "off"] = "auto"
    """Train a detector of where actions begin and end too, which timelines then use. `auto` does so if the data label parts of
    longer videos."""
    spans_complete: bool = True
    """True if the labelled parts of a longer video are all of its actions, so that the rest of it shows what is none."""
    save_every_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between saved states, from which an interrupted run can continue."""
    trackers: tuple[str, ...] = ()
    """Trackers besides TensorBoard and the CSV, by accelerate's names (wandb, mlflow, trackio, ...)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the first weights, the order of videos, their views, dropout and the held-out part."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """The settings of a complete run, as `fewframes train` reads them from `--run FILE.toml` and writes them beside the model."""

    start: str = "lite0-16"
    """A preset or a checkpoint file. It gives the architecture, the view and, unless `init` is set, the frame encoder's weights.
    A solved head may also start from an exported .onnx file, or from a pulled frame encoder (`timm:NAME`, `clip:NAME`)."""
    init: str = ""
    """Weights of the frame encoder: a file with timm's names, one of our models, or a timm name to download. A timm name also gives
    the scale of pixels (`view.mean`, `view.std`), unless it is set."""
    keep_temporal: bool | None = None
    """Keep the temporal encoder of `start` too, so that only the head is new. None keeps it if `start` is the authors' release and
    nothing else is asked for."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig` that differ from those of `start`. Where `encoder` names another frame encoder (`timm:NAME`,
    `clip:NAME`), its weights and its view are its own, unless `init` and `view` say otherwise."""
    view: dict[str, Any] = field(default_factory=dict)
    """Fields of `ViewConfig` that differ from those of `start`."""
    data: DataConfig = DataConfig()
    """The reading of labels, and the held-out videos."""
    train: TrainConfig = TrainConfig()
    """The training itself."""
    augment: AugmentConfig = AugmentConfig()
    """The random changes to training videos."""


DEFAULT_RUN = RunConfig()


def read_run(path: str | os.PathLike[str]) -> RunConfig:
    """Read a run from a TOML file. Raises ConfigError, which names the file, the key and the values that it takes."""
    return _run_from(read_toml(path), str(path))


def changed(run: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return the run with some fields changed; tables are changed field by field. A value of None leaves a field as it is."""
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
        settings_from(
            tables[name], values[name], f"{where}: {name}"
        )  # so that the error names the table of an unknown key
    return settings_from(RunConfig, values, where)


def changed_by_words(run: RunConfig, words: Iterable[str]) -> RunConfig:
    """Return the run with settings changed by words such as `train.epochs=5` or `init=FILE`.

    Values are TOML, or text without quotes. Raises ConfigError for a word that is no setting.
    """
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


def with_encoder_placed(run: RunConfig) -> RunConfig:
    """Return the run with the name of a frame encoder where its head takes it.

    Training in steps takes it as `model.encoder`, with the architecture of the default model around it. A solved head takes it as
    `start`: the encoder as it was pulled. So `--model NAME` and `--encoder NAME` both work with both heads.

    Raises ConfigError if a solved head is to have two starts, or other weights than were pulled.
    """
    from fewframes.models.files.names import is_encoder_name  # late, because --help must be fast

    encoder = str(run.model.get("encoder", ""))
    if run.train.head != "solved":
        if not is_encoder_name(run.start):
            return run
        return dataclasses.replace(run, start=DEFAULT_RUN.start, model={"encoder": run.start, **run.model})
    if not is_encoder_name(encoder):
        return run
    if run.start not in (DEFAULT_RUN.start, encoder):
        raise ConfigError(f"--head solved: it starts from {run.start!r} or from {encoder}; name one of them")
    if run.init:
        raise ConfigError(
            f"--weights {run.init}: a solved head takes {encoder} as it was pulled; pull it from that file, and leave --weights "
            f"out: fewframes models pull {encoder} --file {run.init}"
        )
    others = {name: value for name, value in run.model.items() if name != "encoder"}
    return dataclasses.replace(run, start=encoder, model=others)


def run_to_toml(run: RunConfig) -> str:
    """Return the run as TOML that `read_run` reads back. TOML has no null, so fields that are None are left out."""
    values = dataclasses.asdict(run)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = _toml_lines({key: value for key, value in values.items() if key not in tables})
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]", *_toml_lines(table)]
    return "\n".join(lines) + "\n"


def _toml_lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value is not None]
