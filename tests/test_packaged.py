"""The model inside the package, and that what is written about it is what is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewframes.inference.predictor import Predictor, load
from fewframes.models.files.names import packaged_path
from fewframes.models.presets import PRESETS
from fewframes.runtime.open import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def packaged() -> Predictor:
    return load(device="cpu", dtype="float32", runtime="torch")


@pytest.mark.parametrize("action", ["hug", "kick"])
def test_the_examples_are_named_right(packaged: Predictor, action: str) -> None:
    prediction = packaged.predict(ROOT / "examples" / f"{action}.mp4")
    assert prediction.top(1)[0].label == action
    assert prediction.top(1)[0].score > 0.5


def test_it_is_its_preset_and_fits_the_wheel(packaged: Predictor) -> None:
    preset = PRESETS[DEFAULT_MODEL]
    assert (packaged.torch.config, packaged.runtime.view) == (preset.model, preset.view)
    assert packaged_path(DEFAULT_MODEL).stat().st_size < 25e6
    assert {"code", "frame encoder", "data"} <= packaged.torch.checkpoint.licences.keys()
    assert packaged.torch.checkpoint.provenance["num_videos"] == {
        "training": 335,
        "held_out": 0,
        "chosen_by": 0,
        "unread": 0,
    }


def test_readme_says_what_was_measured(packaged: Predictor) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cell = r"\| \**([a-z ]+?)\** \| \**(\d+)\** \| \**([\d.]+) % \(([\d.]+)-([\d.]+)\)\**(?= \|)"
    rows = re.findall(cell, readme)
    stated = {label: tuple(map(float, figures)) for label, *figures in rows}
    metrics = packaged.torch.checkpoint.metrics
    per_class = metrics["per_class_percent"]
    assert set(per_class) == set(packaged.labels)
    measured = {label: tuple(row[key] for key in ("videos", "mean", "min", "max")) for label, row in per_class.items()}
    measured["all"] = (metrics["num_videos"], *(metrics["top1_percent"][key] for key in ("mean", "min", "max")))
    assert stated == measured


def test_what_ci_runs_is_what_readme_says() -> None:
    commands = re.findall(r"^```\n(.*)\n```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert commands[0] == "pip install . && fewframes predict examples/hug.mp4"
    assert commands[-1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
