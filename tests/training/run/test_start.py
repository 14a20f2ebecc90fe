"""Graphs that a new model takes over from the one that it starts from."""

from __future__ import annotations

from dataclasses import replace

from fewframes.models.files.model_file import read_model_file
from fewframes.models.files.names import packaged_path
from fewframes.models.presets import PRESETS
from fewframes.training.config import RunConfig
from fewframes.training.run.start import kept_graphs


def test_graphs_are_kept_while_the_architecture_is_the_same() -> None:
    preset, packaged = PRESETS["lite0-16"], packaged_path("lite0-16")
    graphs = read_model_file(packaged).graphs
    more_classes = replace(preset.model, num_classes=99)
    assert graphs
    assert kept_graphs(RunConfig(start="lite0-16"), more_classes, preset.view) == graphs
    assert kept_graphs(RunConfig(start=str(packaged)), more_classes, preset.view) == graphs
    assert kept_graphs(RunConfig(start="lite0-16"), replace(more_classes, num_frames=8), preset.view) == {}
    assert kept_graphs(RunConfig(start="vit-s-16", init="no_such.timm"), PRESETS["vit-s-16"].model, preset.view) == {}
