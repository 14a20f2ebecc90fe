"""Exported graphs agree with their model, label videos without torch, and are refused if they are damaged or foreign."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fewframes.cli.main import app
from fewframes.errors import ConfigError, ExportError, MissingDependency, WeightsError
from fewframes.export.exporter import Agreement, calibration_frames, checked_format, export, pans
from fewframes.export.graphs import quantised, traced, write_openvino
from fewframes.inference.predictor import Predictor, load
from fewframes.models.config import ModelConfig
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.results import Clip, Prediction
from fewframes.runtime.graphs import OUTPUTS, open_graph
from fewframes.runtime.protocol import scores_of
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY
from helpers.numbered import write_fading

onnx = pytest.importorskip("onnx")
VIEW = ViewConfig(resize_px=36, crop_px=32)
JOINT = replace(TINY, layout="joint", temporal="mean")
CONVOLUTIONAL = replace(TINY, encoder="timm:test_efficientnet")
HEAD_SCALE = 50.0
"""The factor of the head's weights, so that scores of random weights differ."""


def predictor_of(config: ModelConfig, seed: int = 0) -> Predictor:
    torch.manual_seed(seed)
    model = build_model(config, VIEW)
    with torch.no_grad():
        model.head.weight.mul_(HEAD_SCALE)
    return Predictor(Checkpoint(model, VIEW, LABELS[: config.num_classes]), device="cpu", dtype="float32", name="tiny")


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    """Return a model that merges patches, so that the tests also cover merging inside the graph."""
    return predictor_of(replace(TINY, depth=2, merge=2))


@pytest.fixture(scope="module")
def tiny_onnx(tiny: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    done = export(tiny, path)
    assert done.checked_on == "pans over two photographs"
    assert {Path(name).name for name in done.files} == {"tiny.onnx", "tiny.frames.onnx", "tiny.time.onnx"}
    assert done.agreement.top1 == 1
    assert open_graph(path).card.merge == 2
    return path


@pytest.fixture(scope="module")
def some_clips(tiny: Predictor) -> list[Clip]:
    return pans(tiny)


def test_the_three_files_say_what_the_model_says_for_any_number_of_videos_and_frames(
    tiny: Predictor, tiny_onnx: Path
) -> None:
    whole, frames, time = (open_graph(tiny_onnx.with_suffix(end)) for end in (".onnx", ".frames.onnx", ".time.onnx"))
    generator = np.random.default_rng(1)
    for num_videos, num_frames in ((1, 4), (2, 3), (3, 9)):
        videos = generator.integers(0, 256, (num_videos, num_frames, 3, 32, 32), dtype=np.uint8)
        embeddings_BTD = tiny.runtime.encode_clips(videos)
        live = tiny.runtime.encode_windows(embeddings_BTD, with_attention=True)
        outputs = whole(videos)
        assert tuple(outputs) == OUTPUTS["whole"]
        halves = time(frames(videos.reshape(-1, 3, 32, 32))["frame_embeddings"].reshape(num_videos, num_frames, -1))
        for answer in (outputs, halves):
            assert live.frame_attention is not None
            np.testing.assert_allclose(answer["scores"], scores_of(live.logits, "single"), atol=1e-4)
            np.testing.assert_allclose(answer["embedding"], live.embedding, atol=1e-4)
            np.testing.assert_allclose(answer["frame_attention"], live.frame_attention, atol=1e-5)
        np.testing.assert_allclose(outputs["frame_embeddings"], embeddings_BTD, atol=1e-4)


def test_predict_needs_no_torch_and_agrees_with_the_model(tiny: Predictor, tiny_onnx: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_fading(tmp_path / f"{number}.mp4", 20, turned=bool(number))
    without_torch = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'timm'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from fewframes.cli.main import main\n"
        "main()"
    )
    command = [sys.executable, "-c", without_torch, "predict", str(tmp_path), "--model", str(tiny_onnx), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row, live in zip(rows, tiny.predict_many([row["source"] for row in rows]), strict=True):
        assert isinstance(live, Prediction)
        assert row["times_s"] == [round(time_s, 6) for time_s in live.times_s.tolist()]
        assert [one["label"] for one in row["top"]] == [one.label for one in live.top()]
        # Some pixels differ by one level of 255.
        np.testing.assert_allclose([one["score"] for one in row["top"]], [one.score for one in live.top()], atol=0.02)
        np.testing.assert_allclose(row["frame_attention"], live.frame_attention, atol=0.02)


def test_float16_frame_encoders_are_half_as_large_and_near(tmp_path: Path) -> None:
    wide = predictor_of(replace(TINY, width=192))
    done = export(wide, tmp_path / "wide.onnx", precision="float16")
    num_bytes = done.files[str(tmp_path / "wide.frames.onnx")]
    assert num_bytes < 2.5 * sum(weights.numel() for weights in wide.torch.model.frame_encoder.parameters())
    assert 1e-5 < done.agreement.frame_embeddings < 0.03


def test_int8_convolutions_are_calibrated_and_near_and_openvino_labels_videos(
    some_clips: list[Clip], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    predictor = predictor_of(CONVOLUTIONAL)
    done = export(predictor, tmp_path / "small.xml", precision="int8", calibrate=some_clips)
    assert {Path(name).name for name in done.files} == {
        f"small{part}{ending}" for part in (".frames", ".time", "") for ending in (".xml", ".bin")
    }
    num_bytes = done.files[str(tmp_path / "small.frames.bin")]
    assert num_bytes < 1.3 * sum(weights.numel() for weights in predictor.torch.model.frame_encoder.parameters())
    assert done.checked_on == "the videos it was calibrated with"
    assert 1e-5 < done.agreement.frame_embeddings < 0.3
    assert done.agreement.top1 == 1

    some_frames_D = predictor.runtime.encode_clips(some_clips[0].frames[None])[0, 0]
    time = open_graph(tmp_path / "small.time.xml", threads=1)  # the temporal part stays float32
    for num_videos, num_frames in ((1, 4), (2, 7)):
        embeddings_BTD = np.random.default_rng(0).standard_normal(
            (num_videos, num_frames, len(some_frames_D)), np.float32
        )
        live = predictor.runtime.encode_windows(embeddings_BTD)
        np.testing.assert_allclose(time(embeddings_BTD)["embedding"], live.embedding, atol=1e-4)

    exported = load(tmp_path / "small.xml")
    write_fading(tmp_path / "clip.mp4", 20, turned=False)
    prediction = exported.predict(tmp_path / "clip.mp4")
    scores = prediction.scores.copy()
    assert len(exported.predict(tmp_path / "clip.mp4", num_frames=7).times_s) == 7
    assert prediction.scores.tolist() == scores.tolist()  # the next run does not overwrite it


def test_int8_vits_need_no_videos_to_calibrate(tiny: Predictor, tiny_onnx: Path, tmp_path: Path) -> None:
    assert checked_format(tiny, tmp_path / "tiny.onnx", "int8", calibrated=False) == "onnx"
    model = quantised(onnx.load(tiny_onnx.with_suffix(".frames.onnx")), tmp_path, [])
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}


def test_an_export_that_differs_is_not_kept_and_what_was_there_stays(
    some_clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = predictor_of(JOINT, seed=1).torch.model
    monkeypatch.setattr("fewframes.export.exporter.traced", lambda _, part: traced(other, part))
    earlier = tmp_path / "tiny.pt2"
    earlier.write_bytes(b"an earlier export")
    with pytest.raises(
        ExportError, match=r"tiny.pt2: scores differ by .*; the limit for float32 is 1e-04; no file was written"
    ):
        export(predictor_of(JOINT), earlier, check=some_clips)
    assert list(tmp_path.iterdir()) == [earlier]
    assert earlier.read_bytes() == b"an earlier export"


def test_what_cannot_be_traced_or_written_is_said(
    tiny: Predictor, some_clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"file.pt2: cannot be written \(File exists"):
        export(tiny, tmp_path / "file" / "file.pt2", check=some_clips)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("data-dependent\n\nand more")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(ExportError, match="the whole graph cannot be traced: data-dependent and more"):
        export(tiny, tmp_path / "tiny.pt2", check=some_clips)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_package_is_named_with_its_extra(tiny: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for ending, extra in ((".onnx", "export"), (".xml", "openvino")):
        with pytest.raises(
            MissingDependency, match=rf"onnxscript is not installed .*pip install 'fewframes\[{extra}\]'"
        ):
            checked_format(tiny, Path(f"tiny{ending}"), "float32", calibrated=False)
    assert checked_format(tiny, Path("tiny.pt2"), "float32", calibrated=False) == "torch"


def test_what_counts_as_the_same() -> None:
    near = Agreement(num_videos=10, scores=1e-5, embedding=2e-3, frame_embeddings=0.2, top1=0.9)
    assert near.failure("int8") == ""
    assert near.failure("float16") == "embeddings differ by 2.0e-01; the limit for float16 is 3e-02"
    assert replace(near, frame_embeddings=0.02).failure("float16") == ""
    assert "names the same action for only 80% of the videos" in replace(near, top1=0.8).failure("int8")
    assert replace(near, scores=0.011, frame_embeddings=0.0).failure("float16").startswith("scores differ by 1.1e-02")
    assert replace(near, scores=float("inf")).failure("float32")


def test_calibration_takes_frames_from_all_over_all_videos() -> None:
    clips = [np.arange(10)[:, None] + 100 * number for number in range(64)]
    frames = calibration_frames(clips)
    assert len(frames) == 64
    assert [frame.ravel().tolist() for frame in frames[:2]] == [[0, 9], [100, 109]]
    assert sum(map(len, calibration_frames([np.zeros((4, 1))] * 500))) <= 128


def test_what_cannot_be_exported(tiny: Predictor, some_clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.h5: its ending decides the format; take one of .onnx, .xml, .pt2"):
        export(tiny, tmp_path / "model.h5")
    with pytest.raises(ConfigError, match=r"model.XML: its ending .*, in small letters"):
        export(tiny, tmp_path / "model.XML")
    with pytest.raises(ConfigError, match="name some videos like those to be labelled with --calibrate"):
        export(predictor_of(CONVOLUTIONAL), tmp_path / "model.onnx", precision="int8")
    with pytest.raises(ConfigError, match="int8 is for .onnx and .xml"):
        export(tiny, tmp_path / "model.pt2", precision="int8", calibrate=some_clips)
    assert list(tmp_path.iterdir()) == []


def test_one_name_is_not_several(tiny_onnx: Path) -> None:
    with pytest.raises(TypeError, match="sources = 'clip.mp4': needs several; use predict for one"):
        next(load(tiny_onnx).predict_many("clip.mp4"))


def test_fewer_frames_than_a_graph_takes(tiny_onnx: Path) -> None:
    with pytest.raises(ConfigError, match="2 frames: exported graphs take 3 or more"):
        load(tiny_onnx).predict("clip.mp4", num_frames=2)
    with pytest.raises(WeightsError, match="tiny.onnx: an exported graph, which cannot be trained or exported again"):
        load_checkpoint(tiny_onnx)


def test_reasons_of_openvino_are_its_own_last_words(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "cut.xml"
    path.write_text('<?xml version="1.0"?><net name="a" version="11"><layers')
    with pytest.raises(WeightsError, match="cut.xml: the .bin with its weights is not beside it"):
        open_graph(path)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"cut.xml: cannot be read \(Error parsing"):
        open_graph(path)


def test_files_that_are_no_exports(tiny_onnx: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match=r"tiny.time.onnx: a half of a model \(time\)"):
        load(tiny_onnx.with_suffix(".time.onnx"))
    with pytest.raises(WeightsError, match="no such file"):
        open_graph(tmp_path / "absent.onnx")
    for ending in (".onnx", ".xml", ".pt2"):
        (tmp_path / f"junk{ending}").write_bytes(b"no graph at all")
        (tmp_path / "junk.bin").write_bytes(b"")
        with pytest.raises(WeightsError, match=f"junk{ending}: cannot be read"):
            open_graph(tmp_path / f"junk{ending}")
    with pytest.raises(WeightsError, match=r"junk.pt2: cannot be read \(cut short, or not a .pt2 file at all\)"):
        open_graph(tmp_path / "junk.pt2")
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(WeightsError, match="other.pt2: refused, it is not a plain graph"):
        open_graph(tmp_path / "other.pt2")
    assert not caplog.text
    foreign = onnx.load(tiny_onnx)
    for card in ("", "no card", "[1]", '{"labels": []}'):
        onnx.helper.set_model_props(foreign, {"fewframes": card})
        onnx.save(foreign, tmp_path / "foreign.onnx")
        with pytest.raises(WeightsError, match="foreign.onnx: not exported by fewframes"):
            open_graph(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(foreign, {"fewframes": '{"format": 99}'})
    onnx.save(foreign, tmp_path / "newer.onnx")
    with pytest.raises(WeightsError, match="newer.onnx: exported by a newer fewframes"):
        open_graph(tmp_path / "newer.onnx")


def test_the_command_exports_a_layout_that_mixes_frames_as_one_graph(videos: Path, tmp_path: Path) -> None:
    model, output = tmp_path / "joint.safetensors", tmp_path / "new" / "joint.pt2"
    save_checkpoint(model, Checkpoint(predictor_of(JOINT).torch.model, VIEW, LABELS))
    command = ["export", str(model), "-o", str(output), "--dtype", "float16", "--check", str(videos)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "compared on the videos given, 3 videos: largest difference of scores" in done.stdout
    assert "same action for 3" in done.stdout
    assert list(output.parent.iterdir()) == [output]
    exported = load(output)
    assert exported.labels == LABELS
    assert exported.predict(videos / "a.mp4").labels == LABELS
    with pytest.raises(ConfigError, match="8 frames: .*joint.pt2 mixes frames inside its encoder and takes 4"):
        exported.predict("clip.mp4", num_frames=8)


def test_wrong_use_of_the_commands(tiny_model: Path, videos: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["export", str(tiny_model), "-o", str(tmp_path / "tiny.pt2"), "--format", "onnx"])
    assert done.exit_code == 2
    assert "files of onnx end in .onnx" in " ".join(re.findall(r"[^│\s]+", done.output))
    done = run(app, ["predict", str(videos), "--model", str(tiny_onnx), "--merge", "1", "--dtype", "float16"])
    assert done.exit_code == 2
    assert "dtype='float16', merge=1 cannot be set" in done.output
    done = run(app, ["predict", str(videos), str(tmp_path / "none.mp4"), "--model", str(tiny_onnx), "--csv"])
    assert done.exit_code == 3
    assert len(done.stdout.splitlines()) == 5


def test_graphs_that_read_other_files_are_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    """A graph may name a file with its weights. With a path it could read any file of the machine."""
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(10**6))
    for location in ("../secret.bin", str(tmp_path / "secret.bin"), "/etc/passwd", "/dev/zero"):
        graph = onnx.load(tiny_onnx)
        weight = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
        length = len(weight.raw_data)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            weight.external_data.add(key=key, value=value)
        (folder / "evil.onnx").write_bytes(graph.SerializeToString())
        with pytest.raises(WeightsError, match=r"evil\.onnx: cannot be read"):
            open_graph(folder / "evil.onnx")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["hug"]}, r"gives scores of shape \(1, 3\), but names 1 labels"),
        ({"labels": [1, 2, 3]}, "labels"),
        ({"labels": None}, "labels"),
        ({"part": "most"}, "part"),
        ({"part": "time"}, r"a half of a model \(time\)"),
        ({"num_frames": 10**9}, "num_frames"),
        ({"num_frames": 0}, "num_frames"),
        ({"merge": -1}, "merge"),
        ({"view": {"mean": [float("nan")] * 3}}, "mean"),
        ({"view": {"crop_px": 10**8, "resize_px": 10**8}}, "crop_px"),
        ({"view": {"crop_px": 24, "resize_px": 24}}, "cannot be run on"),
        ({"colour": 1}, "unknown setting 'colour'"),
    ],
    ids=str,
)
def test_cards_that_are_not_of_the_graph(
    tiny_onnx: Path, tmp_path: Path, videos: Path, change: dict[str, object], words: str
) -> None:
    graph = onnx.load(tiny_onnx)
    card = json.loads(next(one.value for one in graph.metadata_props if one.key == "fewframes"))
    onnx.helper.set_model_props(graph, {"fewframes": json.dumps({**card, **change})})
    onnx.save(graph, tmp_path / "x.onnx")
    with pytest.raises((WeightsError, ConfigError), match=words) as caught:
        load(tmp_path / "x.onnx").predict(videos / "a.mp4")
    assert "x.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("embedding", "gives embedding with 3 axes, not 2"),
        ("frame_attention", "gives frame_attention with 3 axes, not 2"),
    ],
)
def test_outputs_that_are_exchanged(tiny_onnx: Path, tmp_path: Path, videos: Path, output: str, words: str) -> None:
    graph = onnx.load(tiny_onnx)
    names = {output: "frame_embeddings", "frame_embeddings": output}
    for one in graph.graph.output:
        one.name = names.get(one.name, one.name)
    for node in graph.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.save(graph, tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match=words):
        load(tmp_path / "x.onnx").predict(videos / "a.mp4")


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".bin"])
def test_damaged_graphs(tiny: Predictor, tiny_onnx: Path, tmp_path: Path, ending: str) -> None:
    """A file that is cut or has flipped bits is refused in one line, or gives other numbers. There is no other error."""
    path, draw = tmp_path / "x.onnx", random.Random(0)
    path.write_bytes(tiny_onnx.read_bytes())
    if ending != ".onnx":
        pytest.importorskip("openvino")
        write_openvino(path, open_graph(path).card, path.with_suffix(".xml"))
        path = path.with_suffix(".xml")
    target = path.with_suffix(ending)
    whole = target.read_bytes()
    mutants = [whole[:cut] for cut in (0, 1, 10, len(whole) // 2, len(whole) - 1)]
    for _ in range(25):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole) if ending == ".xml" else min(len(whole), 4000))] ^= 1 << draw.randrange(8)
        mutants.append(bytes(flipped))
    frames = np.zeros((1, 4, 3, 32, 32), dtype=np.uint8)
    for mutant in mutants:
        target.write_bytes(mutant)
        try:
            open_graph(path, threads=1)(frames)
        except WeightsError as error:
            words = str(error)
        else:
            words = ""
        assert "\n" not in words
