"""Frame encoders by name in every command: `models --encoders`, `models pull`, and what takes or refuses a name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.models.encoders.listed import ENCODERS
from fewframes.models.files.model_file import read_header
from fewframes.training.config import RunConfig, with_encoder_placed
from fewframes.training.run.start import start_run

NAME = "timm:test_vit.r160_in1k"


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", True
    )  # nothing is fetched, with or without a network
    return tmp_path


@pytest.fixture
def weights(folder: Path) -> Path:
    """A file of weights as timm publishes them, of its smallest ViT."""
    torch.manual_seed(0)
    network = timm.create_model(NAME.removeprefix("timm:"), pretrained=False)
    path = folder / "weights.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_list_has_every_encoder_with_its_speed_and_licence(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, text, err = run("models", "--encoders")
    assert code == 0, err
    for name, encoder in ENCODERS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        assert f" {encoder.ms_per_frame:.0f} " in row
        assert encoder.licence.split()[0][:5] in row  # the rest may be on the next line
    assert "random weights" in err
    assert "--measure" in err
    code, _, err = run("models", "--measure")
    assert code == 2
    assert "add --encoders" in err


def test_a_pulled_encoder_embeds_indexes_searches_and_teaches(folder: Path, weights: Path, clips: Path) -> None:
    code, _, err = run("embed", clips / "redden" / "0.mp4", "-o", folder / "x.safetensors", "--model", NAME)
    assert code == 1
    assert f"fetch it: fewframes models pull {NAME}" in err
    code, _, err = run("models", "pull", NAME, "--file", weights)
    assert code == 0, err
    assert "licence: apache-2.0 (timm: test_vit.r160_in1k)" in err
    reddening = clips / "redden" / "0.mp4"
    code, _, err = run("embed", reddening, "-o", folder / "x.safetensors", "--model", NAME, "--device", "cpu")
    assert code == 0, err
    code, _, err = run(
        "index", clips / "turn blue", reddening, "--index", folder / "i", "--model", NAME, "--device", "cpu"
    )
    assert code == 0, err
    code, text, err = run("search", reddening, "--index", folder / "i", "--json", "--device", "cpu")
    assert code == 0, err
    first = json.loads(text.splitlines()[0])
    assert Path(first["source"]).name == "0.mp4"  # itself, or the clip of the same frames in another order
    code, _, err = run(
        "teach", folder / "taught", "--model", NAME, "--device", "cpu",
        "--label", "red", "--yes", *(clips / "redden" / f"{number}.mp4" for number in range(3)),
        "--label", "blue", "--yes", *(clips / "turn blue" / f"{number}.mp4" for number in range(3)),
    )  # fmt: skip
    assert code == 0, err
    header = read_header(folder / "taught" / "model.safetensors")
    assert header is not None
    assert header["model"]["encoder"] == NAME
    assert header["licences"]["frame encoder"] == "apache-2.0 (timm: test_vit.r160_in1k)"


def test_train_takes_the_name_as_a_model_and_as_an_encoder(folder: Path, weights: Path, clips: Path) -> None:
    steps = ("--epochs", 1, "--frames", 4, "--device", "cpu")
    code, _, err = run("train", clips, "-o", folder / "a", "--encoder", NAME, "--weights", weights, *steps)
    assert code in (0, 3), err
    header = read_header(folder / "a" / "model.safetensors")
    assert header is not None
    assert header["licences"]["frame encoder"].endswith(f"(timm: test_vit.r160_in1k); from {weights}")
    assert (header["model"]["encoder"], header["model"]["temporal"]) == (NAME, "paper")
    assert run("models", "pull", NAME, "--file", weights)[0] == 0
    code, _, err = run("train", clips, "-o", folder / "b", "--head", "solved", "--encoder", NAME, "--device", "cpu")
    assert code in (0, 3), err
    placed = with_encoder_placed(RunConfig(start=NAME))  # `--model NAME` of training in steps
    assert (placed.start, placed.model) == ("lite0-16", {"encoder": NAME})
    started = start_run(placed, num_classes=2, task="single")  # the pulled weights, no download
    assert (started.model.config.encoder, started.started_from) == (NAME, {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "CLIPS", "-o", "out", "--encoder", NAME), "timm could not fetch its weights"),
        (
            ("train", "CLIPS", "-o", "out", "--encoder", "timm:test_vit"),
            "without a network, fetch them on another machine",
        ),
        (("train", "CLIPS", "-o", "out", "--encoder", "timm:tset_vit"), "did you mean 'test_vit"),
        (("train", "CLIPS", "-o", "out", "--head", "solved", "--encoder", NAME), f"fewframes models pull {NAME}"),
        (
            ("train", "CLIPS", "-o", "out", "--head", "solved", "--encoder", NAME, "--weights", "w.pth"),
            f"fewframes models pull {NAME} --file w.pth",
        ),
        (("predict", "CLIPS", "--model", NAME), "a frame encoder alone names no actions; train from it"),
        (("timeline", "CLIPS", "--model", "clip:ViT-B-16/openai"), "name them in words: --labels"),
        (("predict", "CLIPS", "--labels", "a; b", "--encoder", NAME), "cannot be compared with words"),
        (("models", "pull", NAME), "timm could not fetch its weights"),
        (("models", "pull", "timm:.."), "not the name of a frame encoder"),
        (("models", "pull", NAME, "--file", "none.safetensors"), "none.safetensors: no such file"),
        (("index", "CLIPS", "--index", "i", "--model", "clip:ViT-B-16/openai"), "models pull clip:ViT-B-16/openai"),
    ],
)
def test_what_cannot_be_done_says_why_and_what_can(
    arguments: tuple[str, ...], words: str, clips: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run(*(str(clips) if word == "CLIPS" else word for word in arguments))
    assert code in (1, 2)
    assert words in " ".join(err.split())
    assert not (folder / "cache" / "encoders").exists()


def test_an_image_half_of_open_clip_is_pulled_trained_and_asked_in_words(
    folder: Path, clips: Path, image_text: Path
) -> None:
    open_clip = pytest.importorskip("open_clip")
    settings = json.loads((image_text / "open_clip_config.json").read_text())["model_cfg"]
    (folder / "configs").mkdir()
    (folder / "configs" / "drawn-shapes.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder / "configs" / "drawn-shapes.json")
    name = "clip:drawn-shapes"
    code, _, err = run("models", "pull", name, "--file", image_text)
    assert code == 0, err
    code, _, err = run("index", clips / "redden", "--index", folder / "i", "--model", name, "--device", "cpu")
    assert code in (0, 3), err
    code, text, err = run("search", "--text", "a red circle", "--index", folder / "i", "--json")
    assert code == 0, err
    assert np.isfinite(json.loads(text.splitlines()[0])["similarity"])
    started = start_run(RunConfig(model={"encoder": name}), num_classes=2, task="single")
    assert (started.model.config.encoder, started.model.config.cells, started.model.config.temporal) == (
        name,
        0,
        "paper",
    )
    by_folder = start_run(RunConfig(model={"encoder": str(image_text)}), num_classes=2, task="single")
    weights, same = (model.model.frame_encoder.state_dict() for model in (started, by_folder))
    assert all(torch.equal(tensor, same[key]) for key, tensor in weights.items())
    frames_MCHW = torch.rand(2, 3, 32, 32)
    assert started.model.encode_frames(frames_MCHW).norm(dim=1).tolist() == pytest.approx([1, 1])
