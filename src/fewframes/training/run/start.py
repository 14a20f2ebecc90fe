"""Build the network that a run starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fewframes.core.settings import Task, settings_from
from fewframes.core.text import count_of
from fewframes.data.known_videos import lineage, num_known
from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, WeightsError
from fewframes.models.config import CLIP, TIMM, ModelConfig
from fewframes.models.encoders.named import NamedEncoder, named_encoder
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.files.kept_parts import changed_temporal_fields, check_keepable, keep_temporal
from fewframes.models.files.model_file import MODEL_FILE, graph_settings, read_header, read_model_file
from fewframes.models.files.names import find_model
from fewframes.models.files.release import RELEASE_SOURCE
from fewframes.models.files.timm_weights import check_timm_network, is_timm_name, pixel_scale, timm_licence
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.training.config import RunConfig
from fewframes.video.view import ViewConfig


@dataclass(frozen=True, eq=False)
class RunStart:
    """The network that a run starts with, and where it comes from."""

    model: STAM
    """The network. What is not kept of another model is random."""
    view: ViewConfig
    """The view of its frames."""
    licences: Mapping[str, str]
    """The licences of the weights that it starts from."""
    started_from: Mapping[str, Any] = field(default_factory=dict)
    """The record of the trained model that parts were taken from (`lineage`); empty if there was none."""


def check_start(run: RunConfig) -> None:
    """Raise WeightsError if a run names a model to start from, or image weights, that do not exist."""
    if run.start not in PRESETS:
        find_model(run.start)
    if run.init and not _is_at_hand(run.init):
        check_timm_network(run.init)


def start_run(run: RunConfig, *, num_classes: int, task: Task) -> RunStart:
    """Return a new model for a run.

    The frame encoder's weights are those of `run.init`, or else of `run.start`, or its own if the run names an encoder.
    The temporal encoder is that of `run.start` if the run keeps it. All other weights are random. With a frozen frame encoder the
    temporal positions start as slow waves, whatever the preset says, unless the run sets them: a hundred videos do not teach the
    order of frames from positions near zero (docs/decisions).

    Raises:
        WeightsError: weights cannot be found, or do not fit.
        ConfigError: settings do not fit together.
    """
    preset = PRESETS.get(run.start)
    started = load_checkpoint(run.start) if preset is None or preset.weights else None
    if preset is not None:
        model, view = preset.model, preset.view
        init = run.start if preset.weights else preset.init
        licences: Mapping[str, str] = {"frame encoder": f"{preset.licence} ({init})"}
    else:
        assert started is not None
        model, view, init = started.model.config, started.view, run.start
        licences = {name: text for name, text in started.licences.items() if name != "data"}
    run, named = with_named_encoder(run, model)
    init = run.init or (named.weights if named else "") or init
    if run.init and (named is None or _is_timm(init)):
        licences = {"frame encoder": timm_licence(init) if _is_timm(init) else f"that of {init}"}
    elif named is not None:
        licences = {"frame encoder": named.licence + f"; from {init}" * bool(run.init)}
    values = {**asdict(model), **run.model, "num_classes": num_classes, "task": task}
    config = settings_from(ModelConfig, values, f"{run.start}: model")
    scale = pixel_scale(run.init) if run.init and _is_timm(run.init) else {}
    view = settings_from(ViewConfig, {**asdict(view), **scale, **run.view}, f"{run.start}: view")
    keeps = _keeps_temporal(run, config, started)  # refused before a download
    if run.train.unfreeze == "none" and not keeps and "temporal_positions" not in run.model:
        config = replace(config, temporal_positions="waves")
    network = start_model(config, view, init, chosen=run.model)
    if keeps and started is not None:
        keep_temporal(network, started.model, run.start)
    return RunStart(network, view, licences, _started_from(run, init, started, keeps_temporal=keeps))


def warnings_of_known(
    started_from: Mapping[str, Any], training: Sequence[Sample], held_out: Sequence[Sample]
) -> list[str]:
    """Return warnings if the model that a run starts from has learned from videos that the run measures or calibrates with.

    Args:
        started_from: the record of that model; empty if there was none.
        training: the training videos of the run, parts of which are left out to calibrate scores.
        held_out: its held-out videos.
    """
    marks = started_from.get("training_videos", [])
    warnings = []
    if marks and (count := num_known(held_out, marks)):
        warnings.append(
            f"{started_from['model']} has learned from {count} of {count_of(len(held_out), 'held-out video')}, and what it learned "
            "is kept: the figure on them will be too kind"
        )
    if marks and (count := num_known(training, marks)):
        warnings.append(
            f"{started_from['model']} has learned from {count} of {count_of(len(training), 'training video')}, and what it learned "
            "is kept: scores that are calibrated by leaving some out will be too sure"
        )
    return warnings


def with_named_encoder(run: RunConfig, model: ModelConfig) -> tuple[RunConfig, NamedEncoder | None]:
    """Return the run with all that follows from its choice of a frame encoder by name, and that encoder.

    The view, the size of frames and the weights are those of the name. What the run itself sets stays as it is. If the run chooses
    no other encoder than the model has, it is returned as it is, with None.

    Args:
        run: the settings of the run.
        model: the architecture that it starts from.
    """
    encoder = str(run.model.get("encoder", ""))
    is_named = encoder.startswith((TIMM, CLIP)) or (encoder != "" and Path(encoder).is_dir())
    if not is_named or encoder == model.encoder:
        return run, None
    size = run.view.get("crop_px", run.model.get("image_size"))
    if size is not None and not (isinstance(size, int) and size > 0):
        raise ConfigError(f"size of frames {size!r}: needs a number of pixels above 0")
    named = named_encoder(encoder, size)
    view = {**named.view, **run.view}
    values = {**named.fields, "image_size": view["crop_px"], **run.model, "encoder": named.fields["encoder"]}
    return replace(run, model=values, view=view), named


def _is_timm(init: str) -> bool:
    """Return True if the weights are a name of timm, and neither one of our models nor a file."""
    return not _is_at_hand(init) and is_timm_name(init)


def _is_at_hand(init: str) -> bool:
    """Return True if the weights are one of our models or a file."""
    return init in PRESETS or Path(init).is_file() or (Path(init) / MODEL_FILE).is_file()


def _keeps_temporal(run: RunConfig, config: ModelConfig, started: Checkpoint | None) -> bool:
    """Return True if the run keeps the temporal encoder of the model that it starts from. Raises ConfigError if it cannot."""
    if run.keep_temporal is None:
        if started is None or started.provenance.get("source") != RELEASE_SOURCE:
            return False
        own = started.model.config
        return not run.init and config.encoder == own.encoder and not changed_temporal_fields(config, own)
    if not run.keep_temporal:
        return False
    if started is None:
        raise ConfigError(
            f"keep_temporal: {run.start!r} is an architecture without trained weights; name a trained model: --model FOLDER"
        )
    if run.init:
        raise ConfigError(
            f"keep_temporal: a trained temporal encoder needs the frame encoder that it was trained with, not {run.init!r}; leave "
            "init out"
        )
    if config.encoder != started.model.config.encoder:
        raise ConfigError(
            f"keep_temporal: a trained temporal encoder needs the frame encoder that it was trained with, "
            f"{started.model.config.encoder!r}, not {config.encoder!r}; leave the encoder out"
        )
    check_keepable(config, started.model.config, run.start)
    return True


def _started_from(run: RunConfig, init: str, started: Checkpoint | None, *, keeps_temporal: bool) -> dict[str, Any]:
    """Return the record of the trained model that parts were taken from; empty if the run started from image weights alone."""
    if started is not None and init == run.start:
        kept = ["frame encoder", "temporal encoder"] if keeps_temporal else ["frame encoder"]
        return lineage(run.start, started.provenance, kept)
    if not _is_at_hand(init) or (header := read_header(find_model(init))) is None:  # a name, or a file of image weights
        return {}
    if "encoder" in header["provenance"]:  # a pulled encoder, which has learned from no videos
        return {}
    return lineage(init, header["provenance"], ["frame encoder"])


def kept_graphs(run: RunConfig, config: ModelConfig, view: ViewConfig) -> Mapping[str, bytes]:
    """Return the graphs of the model that a run starts from, if they fit the new model; else none.

    Args:
        run: the settings of the run.
        config: the architecture of the new model.
        view: its view.
    """
    for name in (run.start, run.init):
        if name in PRESETS and PRESETS[name].weights != "packaged":
            continue
        try:
            file = read_model_file(find_model(name))
        except WeightsError:  # weights of another kind, such as a name of timm
            continue
        if graph_settings(file.config, file.view) == graph_settings(config, view):
            return file.graphs
    return {}
