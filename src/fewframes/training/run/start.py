"""Build the network that a run starts with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from fewframes.core.settings import Task, settings_from
from fewframes.errors import WeightsError
from fewframes.models.config import ModelConfig
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.files.model_file import graph_settings, read_model_file
from fewframes.models.files.names import find_model
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.training.config import RunConfig
from fewframes.video.view import ViewConfig


def start_run(run: RunConfig, *, num_classes: int, task: Task = "single") -> tuple[STAM, ViewConfig, Mapping[str, str]]:
    """Return a new model for a run, its view, and the licences of the weights that it starts from: the frame encoder's are those of
    `run.init`, or else of `run.start`. All other weights are random."""
    if preset := PRESETS.get(run.start):
        model, view = preset.model, preset.view
        init = run.init or (run.start if preset.weights else preset.init)
        licences = {"frame encoder": f"{preset.licence} ({init})"}
    else:
        started = load_checkpoint(run.start)
        model, view, init = started.model.config, started.view, run.init or run.start
        licences = {name: text for name, text in started.licences.items() if name != "data"}
    if run.init:
        licences = {"frame encoder": f"that of {run.init}"}
    values = {**asdict(model), **run.model, "num_classes": num_classes, "task": task}
    config = settings_from(ModelConfig, values, f"{run.start}: model")
    view = settings_from(ViewConfig, {**asdict(view), **run.view}, f"{run.start}: view")
    return start_model(config, view, init), view, licences


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
