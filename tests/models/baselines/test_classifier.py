"""Systems of the comparison through the front door: the answers of their networks, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fewframes
from fewframes.cli.main import app
from fewframes.errors import ConfigError, WeightsError
from fewframes.inference.predictor import load
from fewframes.models.baselines.catalogue import BASELINES, baseline_of
from fewframes.models.baselines.systems import BaselineNetwork, build
from fewframes.models.files.release import kinetics_labels

pytest.importorskip("pytorchvideo")
HUG = Path(__file__).resolve().parents[3] / "examples" / "hug.mp4"


@pytest.fixture(scope="module")
def network() -> BaselineNetwork:
    torch.manual_seed(0)
    found = build(BASELINES["x3d-m"])
    assert isinstance(found, BaselineNetwork)
    torch.nn.init.normal_(found.network.blocks[-1].proj.weight)  # type: ignore[index,union-attr,arg-type]
    return found


@pytest.fixture(scope="module")
def weights(network: BaselineNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "x3d=m.pyth"
    torch.save({"model_state": network.network.state_dict()}, path)
    return path


def test_answers_are_those_of_the_network(network: BaselineNetwork, weights: Path) -> None:
    predictor = load(f"baseline:x3d-m={weights}", device="cpu")
    clip = predictor.read_clip(HUG)
    assert clip.frames.shape == (16, 3, 256, 256)
    with torch.inference_mode():
        wanted_K = network(torch.from_numpy(np.array(clip.frames))[None].float() / 255)[0]
    found = predictor.predict(HUG)
    assert wanted_K.std() > 0.1  # answers that are all the same would agree by chance
    assert np.abs(found.scores - wanted_K.softmax(-1).numpy()).max() < 1e-5
    assert found.labels == kinetics_labels(400)
    assert predictor.runtime.provenance == {"library": "baseline", "architecture": "x3d-m", "licence": "unknown"}
    assert len(predictor.runtime.model_key()) == 40
    with pytest.raises(ConfigError, match="mixes frames inside its encoder"):
        predictor.predict(HUG, num_frames=8)


def test_the_command_line_names_what_it_ran(weights: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(HUG), "--model", f"baseline:x3d-m={weights}", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "400 actions, baseline on cpu in float32" in done.output
    assert "licence unknown" in done.output


def test_wrong_names_and_files_say_the_way_out(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pyth").write_bytes(b"")
    for name, kind, words in (
        ("baseline:x3d-mm=f", ConfigError, "no system 'x3d-mm'; did you mean 'x3d-m'"),
        ("baseline:x3d-m", ConfigError, "name a file of Kinetics-400 weights .* baseline:x3d-m=FILE"),
        ("baseline:lite0-16=f", ConfigError, "is a model of fewframes"),
        ("baseline:videomae-b=f", ConfigError, "give its folder as hf:FOLDER"),
        ("baseline:x3d-m=/nowhere", WeightsError, "/nowhere: no such file"),
        (f"baseline:x3d-m={tmp_path / 'empty.pyth'}", WeightsError, "neither safetensors nor a file of torch.save"),
        (f"baseline:x3d-l={weights}", WeightsError, "x3d=m.pyth"),
    ):
        with pytest.raises(kind, match=words):
            fewframes.load(name, device="cpu")
    with pytest.raises(ConfigError, match="x3d-m --weights x3d-m=f"):
        baseline_of("baseline:x3d-m=f")
    with pytest.raises(WeightsError, match="a model of another library"):
        fewframes.load_checkpoint("baseline:x3d-m=f")
