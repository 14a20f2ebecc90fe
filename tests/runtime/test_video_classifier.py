"""Video classifiers of transformers through the front door: the answers of their own library, and clear refusals."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from starlette.testclient import TestClient
from typer.testing import CliRunner

import fewframes
from fewframes.cli.main import app
from fewframes.errors import ConfigError, MissingDependency, WeightsError
from fewframes.inference.predictor import load
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.video_classifiers.view import pixels_by
from fewframes.serve.app import create_app
from fewframes.serve.config import ServeConfig
from helpers.classifiers import FAMILIES, LABELS, classifier_in
from helpers.mirror import Mirror, Repository, mirror
from helpers.served import send, told

transformers = pytest.importorskip("transformers")
HUG = Path(__file__).resolve().parents[2] / "examples" / "hug.mp4"
NAME = "some-one/waves"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("classifiers")
    return {family: classifier_in(root / family, family) for family in FAMILIES}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with mirror() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_models_own_library(folders: dict[str, Path], family: str) -> None:
    folder = folders[family]
    predictor = load(f"hf:{folder}", device="cpu")
    clip = predictor.read_clip(HUG)
    processor = transformers.AutoVideoProcessor.from_pretrained(folder)
    network = transformers.AutoModelForVideoClassification.from_pretrained(folder).eval()
    # Frames that have the size of the view already: the processor resizes nothing more, or crops what it made larger.
    side = processor.size["shortest_edge"] or predictor.runtime.view.crop_px
    assert clip.frames.shape == (4, 3, predictor.runtime.view.crop_px, predictor.runtime.view.crop_px)
    margin = (side - clip.frames.shape[-1]) // 2
    framed_TCHW = np.pad(clip.frames, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    pixels_TCHW = pixels_by(processor, [frame.transpose(1, 2, 0) for frame in framed_TCHW])
    with torch.inference_mode():
        wanted_K = network(torch.from_numpy(pixels_TCHW)[None]).logits.reshape(-1)
    runtime = predictor.runtime
    encoded = runtime.encode_windows(runtime.encode_clips(clip.frames[None]), with_attention=True)
    assert np.abs(encoded.logits[0] - wanted_K.numpy()).max() < 1e-5
    assert wanted_K.std() > 0.1  # answers that are all the same would agree by chance
    found = predictor.predict(HUG)
    assert found.labels == LABELS
    assert np.abs(found.scores - wanted_K.softmax(-1).numpy()).max() < 1e-5
    assert found.familiarity is None
    assert found.frame_attention.tolist() == [0.25] * 4


@pytest.mark.parametrize("family", ["videomae", "vjepa2", "videoprism"])
def test_whole_frames_are_seen_as_the_processor_sees_them(folders: dict[str, Path], family: str) -> None:
    predictor = load(f"hf:{folders[family]}", device="cpu")
    with closing(fewframes.open_video(HUG)) as video:
        whole = video.frames_at(predictor.read_clip(HUG).times_s).frames
    assert whole.shape[-1] != whole.shape[-2]
    processor = transformers.AutoVideoProcessor.from_pretrained(folders[family])
    theirs = pixels_by(processor, [frame.transpose(1, 2, 0) for frame in np.asarray(whole)])
    view = predictor.runtime.view
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (view.mean, view.std))
    levels = np.abs((theirs * std + mean) * 255 - predictor.read_clip(HUG).frames)
    assert levels.max() < 3  # Pillow resizes here, torch there


def test_the_offset_of_vivit_is_in_the_view(folders: dict[str, Path]) -> None:
    view = load(f"hf:{folders['vivit']}", device="cpu").runtime.view
    processor = transformers.AutoVideoProcessor.from_pretrained(folders["vivit"])
    grey = pixels_by(processor, [np.full((32, 32, 3), 51, np.uint8)]).mean()
    assert (0.2 - view.mean[0]) / view.std[0] == pytest.approx(grey, abs=1e-5)
    assert (view.fit, view.resize_px, view.crop_px, view.interpolation) == ("crop", 36, 32, "bilinear")


def test_many_videos_evaluate_and_bench_take_it(folders: dict[str, Path], tmp_path: Path) -> None:
    name = f"hf:{folders['videomae']}"
    predictor = load(name, device="cpu")
    alone = predictor.predict(HUG)
    many = list(predictor.predict_many([HUG, "nowhere.mp4", HUG]))
    assert [type(result).__name__ for result in many] == ["Prediction", "Failure", "Prediction"]
    assert isinstance(many[2], fewframes.Prediction)
    assert np.abs(many[2].scores - alone.scores).max() < 1e-6
    for label in LABELS[:2]:
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            shutil.copy(HUG, tmp_path / "data" / label / f"{number}.mp4")
    report = tmp_path / "report"
    done = CliRunner().invoke(
        app,
        ["evaluate", str(tmp_path / "data"), "--model", name, "-o", str(report), "--device", "cpu", "--views", "2x3"],
    )
    assert done.exit_code == 0, done.output
    assert "licence cc-by-nc-4.0" in done.output
    assert json.loads((report / "metrics.json").read_text())["report"]["top1"] in (0.0, 0.5)  # one answer for one video
    done = CliRunner().invoke(
        app, ["bench", name, "lite0-16", "--device", "cpu", "--rounds", "1", "--seconds", "0.05", "--json",
              "--data", str(tmp_path / "data")]
    )  # fmt: skip
    rows = json.loads(done.stdout[done.stdout.index("{") :])["rows"]
    assert name in [row["name"] for row in rows], done.output


def test_verbs_that_need_frames_by_themselves_say_so(folders: dict[str, Path], tmp_path: Path) -> None:
    name = f"hf:{folders['vivit']}"
    predictor = load(name, device="cpu")
    for refused in (
        lambda: predictor.stream(str(HUG)),
        lambda: predictor.runtime.embed_frames(predictor.read_clip(HUG).frames),
        lambda: predictor.predict(HUG, num_frames=8),
        lambda: predictor.predict(HUG, early_exit=0.9),
    ):
        with pytest.raises(ConfigError, match="mixes frames inside its encoder"):
            refused()
    with pytest.raises(ConfigError, match="merge=2 cannot be set"):
        load(name, merge=2)
    with pytest.raises(ConfigError, match="runtime='onnxruntime' cannot be set"):
        load(name, runtime="onnxruntime")
    with pytest.raises(
        WeightsError, match="a model of another library, which predict, evaluate, embed, serve, mcp and bench run"
    ):
        load_checkpoint(name)


def test_embeddings_and_the_server_have_its_answers(folders: dict[str, Path], tmp_path: Path) -> None:
    name = f"hf:{folders['vjepa2']}"
    predictor = load(name, device="cpu")
    file = tmp_path / "videos.safetensors"
    done = CliRunner().invoke(app, ["embed", str(HUG), "--model", name, "-o", str(file), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert np.abs(load_file(file)["embedding"][0] - predictor.predict(HUG).embedding).max() < 1e-5
    with TestClient(create_app(predictor, ServeConfig()), base_url="http://127.0.0.1") as client:
        answer = send(client, "/v1/predict", HUG)
        assert answer.json()["label"] == predictor.predict(HUG).label
        status, words = told(send(client, "/v1/timeline", HUG))
    assert status == 422
    assert "mixes frames inside its encoder" in words


def test_a_name_of_the_hub_is_fetched_once_without_pickles(hub: Mirror, folders: dict[str, Path]) -> None:
    files = {path.name: path.read_bytes() for path in folders["videomae"].iterdir()}
    hub.repositories[NAME] = Repository()
    hub.repositories[NAME].commit({**files, "pytorch_model.bin": b"a pickle", "modeling.py": b"raise SystemExit"})
    predictor = load(f"hf:{NAME}", device="cpu")
    assert predictor.runtime.provenance["licence"] == "cc-by-nc-4.0"
    fetched = " ".join(hub.requests)
    assert "model.safetensors" in fetched
    assert "pytorch_model.bin" not in fetched
    assert "modeling.py" not in fetched
    num_requests = len(hub.requests)
    assert load(f"hf:{NAME}", device="cpu").predict(HUG).scores.tolist() == predictor.predict(HUG).scores.tolist()
    assert len(hub.requests) == num_requests


def test_a_name_without_a_network_has_a_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=f"hf:{NAME}: the hub cannot be reached.*copy config.json.*give hf:FOLDER"):
        load(f"hf:{NAME}")
    with pytest.raises(WeightsError, match="no folder '/nowhere/at/all'"):
        load("hf:/nowhere/at/all")


def _changed(folder: Path, file: str, **values: object) -> None:
    facts = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**facts, **values}))


def test_folders_that_cannot_be_run_say_why(folders: dict[str, Path], tmp_path: Path) -> None:
    def broken(number: int, family: str = "videomae") -> Path:
        return shutil.copytree(folders[family], tmp_path / str(number))

    pickled = broken(0)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    blind = broken(1)
    (blind / "preprocessor_config.json").unlink()
    damaged = broken(2)
    (damaged / "model.safetensors").write_bytes(b"not a file of weights")
    own_code = broken(3)
    _changed(own_code, "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    other = broken(4)
    transformers.BertConfig().save_pretrained(other)
    headless = broken(5)
    network = transformers.VideoMAEModel.from_pretrained(headless)
    network.save_pretrained(headless)
    _changed(headless, "config.json", **json.loads((folders["videomae"] / "config.json").read_text()))
    large = broken(6)
    _changed(large, "preprocessor_config.json", crop_size={"height": 30, "width": 30})
    wide = broken(7)
    _changed(wide, "preprocessor_config.json", crop_size={"height": 32, "width": 20})
    twins = broken(8)
    _changed(twins, "config.json", id2label={"0": "wave", "1": "wave", "2": "hug"})
    empty = tmp_path / "9"
    empty.mkdir()
    for folder, words in (
        (pickled, "has no model.safetensors but pytorch_model.bin; .* a pickle can run code"),
        (blind, "has no preprocessor_config.json"),
        (damaged, "its weights cannot be loaded"),
        (own_code, "cannot read its config.json"),
        (other, "bert is no video classifier .* videomae"),
        (headless, "its weights lack 4 of the network's, such as classifier.bias"),
        (large, "makes frames of 30 px, and its network takes 32"),
        (wide, "makes no square of fixed size"),
        (twins, "names 2 actions, and its last layer has 3"),
        (empty, "has no config.json"),
    ):
        with pytest.raises(WeightsError, match=words):
            load(f"hf:{folder}", device="cpu")


def test_several_actions_at_once_follow_from_the_config(tmp_path: Path) -> None:
    folder = classifier_in(tmp_path / "many", "videomae", problem_type="multi_label_classification")
    found = load(f"hf:{folder}", device="cpu").predict(HUG)
    assert found.thresholds == (0.5,) * 3
    assert abs(found.scores.sum() - 1) > 1e-3


def test_a_missing_library_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"pip install 'fewframes\[baselines\]'"):
        load(f"hf:{folders['videomae']}")
