"""Several models in one pass: their answers are those of each alone, and the encoder is there, and works, once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

import fewframes
from fewframes.core.cache import EmbeddingCache
from fewframes.errors import ConfigError, WeightsError
from fewframes.inference.heads import Heads, load_heads
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import Timeline, TimelineConfig, sweep
from fewframes.models.files.model_file import write_model_file
from fewframes.results import Failure, Prediction
from fewframes.runtime.onnx_file import OnnxFileRuntime
from fewframes.runtime.protocol import Floats, Frames
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.video.live_settings import StreamConfig
from helpers.heads import packaged, solved_head, with_clips_of, with_detector, write_heads
from helpers.numbered import drifting

NEAR = 1e-5
"""The most that scores may differ from those of a model alone: the products of all models are one, which rounds otherwise."""
RUNTIMES = ("onnxruntime", "torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def names(folder: Path) -> list[str]:
    return write_heads(folder)


@pytest.fixture(scope="module", params=RUNTIMES)
def both(request: pytest.FixtureRequest, folder: Path, names: list[str]) -> tuple[Heads, list[Predictor]]:
    options = {"runtime": request.param, "dtype": "float32", "device": "cpu"}
    return load_heads(folder, **options), [load(name, **options) for name in names]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 s in which a picture drifts."""
    return drifting(tmp_path_factory.mktemp("film") / "film.mp4", "libx264", 300, gop=50, options={})


def same(found: Prediction, alone: Prediction, name: str) -> None:
    assert (found.model, alone.model) == (name, "")
    for own, other in ((found.scores, alone.scores), (found.embedding, alone.embedding)):
        assert_allclose(own, other, rtol=0, atol=NEAR)
    assert_allclose(found.frame_attention, alone.frame_attention, rtol=0, atol=NEAR)
    assert found.times_s.tolist() == alone.times_s.tolist()
    assert (found.labels, found.label, found.thresholds) == (alone.labels, alone.label, alone.thresholds)
    assert (found.unfamiliar, found.reason) == (alone.unfamiliar, alone.reason)
    assert (found.known is None) == (alone.known is None)
    if found.known is not None and alone.known is not None:
        assert abs(found.known - alone.known) < NEAR


def test_predict_answers_as_each_model_alone(
    both: tuple[Heads, list[Predictor]], names: list[str], film: Path, videos: Path
) -> None:
    heads, alone = both
    assert heads.names == tuple(names)
    for options in ({}, {"num_frames": 5, "start_s": 2.0}):
        found = heads.predict(film, **options)  # type: ignore[arg-type]
        for own, predictor, name in zip(found, alone, names, strict=True):
            same(own, predictor.predict(film, **options), name)  # type: ignore[arg-type]
    sources = [videos / "a.mp4", videos / "no.mp4", videos / "b.mp4"]
    many = list(heads.predict_many(sources))
    assert isinstance(many[1], Failure)
    assert many[1].missing
    for result, source in ((many[0], sources[0]), (many[2], sources[2])):
        assert isinstance(result, tuple)
        for own, predictor, name in zip(result, alone, names, strict=True):
            same(own, predictor.predict(source), name)


def test_timelines_are_those_of_each_model_alone(both: tuple[Heads, list[Predictor]], film: Path) -> None:
    heads, alone = both
    config = TimelineConfig(window_s=1.0, lengths=(1, 2), threshold=0.3)
    found = heads.timeline(film, config)
    assert any(own.spans for own in found)
    for own, predictor in zip(found, alone, strict=True):
        other = sweep(predictor, film, config)
        assert (own.model, other.model) == (predictor.name, "")
        assert_allclose(own.scores, other.scores, rtol=0, atol=NEAR)
        assert [(span.start_s, span.end_s, span.label) for span in own.spans] == [
            (span.start_s, span.end_s, span.label) for span in other.spans
        ]
        assert (own.known is None) == (other.known is None)
        if own.known is not None and other.known is not None:
            assert_allclose(own.known, other.known, rtol=0, atol=NEAR)
        assert own.to_dict().keys() - other.to_dict().keys() == {"model"}


@pytest.fixture(params=RUNTIMES)
def detecting(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Heads, list[Predictor]]:
    """Two models with detectors for frames 0.25 and 0.375 s apart, and two that learned from clips of 4 and 1.6 s."""
    files = {
        "learned": with_detector(solved_head(1, 3), 0.25),
        "other": with_detector(solved_head(2, 2), 0.375),
        "of 4 s": with_clips_of(solved_head(3, 11), 4.0),
        "of 8 s": with_clips_of(solved_head(4, 2, task="multilabel"), 8.0),
    }
    for name, file in files.items():
        write_model_file(tmp_path / f"{name}.safetensors", file)
    names = [tmp_path / f"{name}.safetensors" for name in files]
    options = {"runtime": request.param, "dtype": "float32", "device": "cpu"}
    return load_heads(names, **options), [load(name, **options) for name in names]  # type: ignore[arg-type]


def same_timeline(found: Timeline, alone: Timeline) -> None:
    assert (found.method, found.threshold, found.weights) == (alone.method, alone.threshold, alone.weights)
    assert_allclose(found.times_s, alone.times_s)
    assert_allclose(found.scores, alone.scores, rtol=0, atol=NEAR)
    assert_allclose(found.cuts_s, alone.cuts_s)
    assert [span.label for span in found.spans] == [span.label for span in alone.spans]
    for name in ("start_s", "end_s", "confidence"):
        own, other = ([getattr(span, name) for span in side.spans] for side in (found, alone))
        assert_allclose(own, other, rtol=0, atol=NEAR)


def test_models_with_a_detector_use_it_and_others_windows_of_their_own_in_one_pass(
    detecting: tuple[Heads, list[Predictor]], film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, alone = detecting
    counts: list[int] = []
    embed = heads.runtime.embed_frames

    def counted(frames_TCHW: Frames) -> Floats:
        counts.append(len(frames_TCHW))
        return embed(frames_TCHW)

    monkeypatch.setattr(heads.runtime, "embed_frames", counted)
    found = heads.timeline(film, TimelineConfig(threshold=0.05))
    assert [own.method for own in found] == ["learned", "learned", "windows", "windows"]
    assert sum(counts) == len(found[0].times_s) == 48  # 12 s, the nearest that one of them needs
    assert all(own.num_encoded == 48 for own in found)
    others = [sweep(predictor, film, TimelineConfig(threshold=0.05)) for predictor in alone]
    assert found[0].spans
    same_timeline(found[0], others[0])
    same_timeline(found[2], others[2])
    # Models that need frames farther apart look at the nearest ones: as many windows, at the same times.
    assert len(others[1].times_s) == 32
    assert found[1].spans
    assert [window.length_s for window in found[3].windows] == [8.0]
    (own,), (other,) = found[3].windows, others[3].windows
    assert_allclose(own.starts_s, other.starts_s)
    assert own.logits.shape == other.logits.shape


def test_windows_asked_for_are_those_of_all_and_a_detector_asked_for_must_be_there(
    detecting: tuple[Heads, list[Predictor]], film: Path
) -> None:
    heads, alone = detecting
    for config in (TimelineConfig(spans="windows", window_s=2.0), TimelineConfig(window_s=2.0, lengths=(1, 2))):
        for own, predictor in zip(heads.timeline(film, config), alone, strict=True):
            same_timeline(own, sweep(predictor, film, config))
            assert own.method == "windows"
    with pytest.raises(ConfigError, match=r"of 4 s.* has no detector"):
        heads.timeline(film, TimelineConfig(spans="learned"))


def test_a_part_too_short_for_some_is_one_window_of_these(detecting: tuple[Heads, list[Predictor]], film: Path) -> None:
    heads, alone = detecting
    found = heads.timeline(film, start_s=2.0, end_s=7.0)
    assert [own.method for own in found] == ["learned", "windows", "windows", "windows"]
    assert len(found[3].windows[0].starts_s) == 1
    same_timeline(found[0], sweep(alone[0], film, start_s=2.0, end_s=7.0))


def test_a_stream_has_an_answer_of_each_model_at_each_time(both: tuple[Heads, list[Predictor]], film: Path) -> None:
    heads, alone = both
    config = StreamConfig(window_s=1.6, every_s=0.4, smooth_s=0.5)
    answers = list(heads.stream(str(film), config))
    assert [answer.model for answer in answers[:4]] == list(heads.names)
    for number, predictor in enumerate(alone):
        others = list(predictor.stream(str(film), config))
        own = [answer for answer in answers if answer.model == heads.names[number]]
        assert len(own) == len(others) > 5
        for answer, other in zip(own, others, strict=True):
            assert_allclose([*answer.scores, *answer.smoothed], [*other.scores, *other.smoothed], rtol=0, atol=NEAR)
            assert (answer.label, answer.start_s, answer.end_s) == (other.label, other.start_s, other.end_s)
            assert (answer.familiarity is None) == (other.familiarity is None)
            assert (answer.spans is None) == (other.spans is None)
            same = [(span.label, span.state) for span in answer.spans or ()]
            assert same == [(span.label, span.state) for span in other.spans or ()]


def test_frames_are_encoded_once_and_the_encoder_is_in_memory_once(
    both: tuple[Heads, list[Predictor]], film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, _ = both
    encoders = {
        id(runtime._frames if isinstance(runtime, OnnxFileRuntime) else runtime.model.frame_encoder)
        for runtime in heads.shared.runtimes
        if isinstance(runtime, OnnxFileRuntime | TorchRuntime)
    }
    assert len(encoders) == 1
    assert len({runtime.encoder_key() for runtime in heads.shared.runtimes}) == 1
    counts: list[int] = []
    embed = heads.runtime.embed_frames

    def counted(frames_TCHW: Frames) -> Floats:
        counts.append(len(frames_TCHW))
        return embed(frames_TCHW)

    monkeypatch.setattr(heads.runtime, "embed_frames", counted)
    cache = EmbeddingCache(tmp_path / "cache")
    first = heads.timeline(film, TimelineConfig(window_s=2.0), cache=cache)
    assert sum(counts) == len(first[0].times_s)
    again = sweep(heads.predictors[1], film, TimelineConfig(window_s=2.0), cache=cache)
    assert (again.num_encoded, sum(counts)) == (0, len(first[0].times_s))  # what one pass cached, a model alone finds


def test_loading_holds_the_weights_of_one_encoder(names: list[str]) -> None:
    heads = load_heads(names, runtime="onnxruntime")
    files = [runtime.file for runtime in heads.shared.runtimes if isinstance(runtime, OnnxFileRuntime)]
    key = next(key for key in files[0].tensors if key.startswith("frame_encoder."))
    assert len({id(file.tensors[key]) for file in files}) == 1


def test_one_model_by_its_name(both: tuple[Heads, list[Predictor]], names: list[str]) -> None:
    heads, _ = both
    assert heads[names[2]].labels == ("action 3.0", "action 3.1")
    assert len(heads) == 4
    with pytest.raises(ConfigError, match="no model 'x'"):
        heads["x"]
    assert "4 models" in repr(heads)


def test_models_that_cannot_share_one_pass(names: list[str], tmp_path: Path, tiny_model: Path) -> None:
    first = names[0]
    key = next(key for key in packaged().tensors if key.startswith("frame_encoder.") and key.endswith("weight"))
    own = solved_head(5, 2)
    others = {
        "look at 8 and 16 frames": replace(own, config=replace(own.config, num_frames=8)),
        "another size or normalisation": replace(own, view=replace(own.view, resize_px=240)),
        "the weights of their frame encoders differ": replace(own, tensors={**own.tensors, key: own.tensors[key] + 1}),
    }
    for number, (reason, file) in enumerate(others.items()):
        path = tmp_path / f"{number}.safetensors"
        write_model_file(path, file)
        with pytest.raises(ConfigError, match=f"{re.escape(str(path))} and .* cannot share one pass: .*{reason}"):
            load_heads([first, path])
    with pytest.raises(ConfigError, match="cannot share one pass"):
        load_heads([first, tiny_model])
    with pytest.raises(ConfigError, match="given twice"):
        load_heads([first, first])
    with pytest.raises(ConfigError, match="1 models: needs two or more"):
        load_heads([first])
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="exported graph has its frame encoder inside"):
        load_heads([first, tmp_path / "x.onnx"])
    with pytest.raises(WeightsError, match="no such file"):
        load_heads([first, tmp_path / "missing"])


def test_the_public_name() -> None:
    assert fewframes.load_heads is load_heads
