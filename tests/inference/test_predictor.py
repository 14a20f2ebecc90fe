"""From a path to a named action: the same answer by every way in, and failures that stop nothing."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import fewframes
from fewframes.errors import ConfigError, VideoError
from fewframes.inference import clips as reader
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.stages.early_exit import filled, stages_of
from fewframes.models.config import ExitPlan
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.networks import build_model
from fewframes.models.layers import pixels_of
from fewframes.models.token_merging import merged_per_block
from fewframes.results import Failure, Prediction, tally
from fewframes.runtime.protocol import scores_of
from fewframes.sampling import Views, centre_times
from fewframes.video.source import open_video, read_frames
from fewframes.video.transforms import crops_of, fit_frame
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY
from helpers.numbered import drifting


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu", dtype="float32")


def test_prediction_is_the_models_own(tiny: Predictor, videos: Path) -> None:
    prediction = tiny.predict(videos / "a.mp4")
    clip = read_frames(videos / "a.mp4", centre_times(0.8, 4))
    frames_TCHW = np.stack([fit_frame(frame, tiny.runtime.view) for frame in clip.frames])
    model = tiny.torch.model
    with torch.no_grad():
        frames_BTD = model.encode_clips(pixels_of(torch.from_numpy(frames_TCHW))[None])
        encoded = model.encode_video(frames_BTD, with_attention=True)
    assert_close(prediction.scores, encoded.logits.softmax(-1)[0].numpy())
    assert_close(prediction.embedding, encoded.embedding[0].numpy())
    assert_close(prediction.frame_embeddings, frames_BTD[0].numpy())
    assert encoded.frame_attention is not None
    assert_close(prediction.frame_attention, encoded.frame_attention[0].numpy())
    assert prediction.times_s.tolist() == pytest.approx([0.08, 0.28, 0.48, 0.68])
    assert prediction.labels == ("hug", "kick", "push")
    assert min(prediction.timing.decode_s, prediction.timing.transform_s, prediction.timing.network_s) > 0


def test_every_input_gives_the_same(tiny: Predictor, videos: Path) -> None:
    path = videos / "a.mp4"
    expected = tiny.predict(path).scores
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert_close(tiny.predict(source).scores, expected, rtol=0, atol=0)
    frames = read_frames(path, np.arange(20) / 25).frames
    assert_close(tiny.predict(frames, fps=25).scores, expected, rtol=0, atol=0)


def test_a_part_and_another_number_of_frames(tiny: Predictor, videos: Path) -> None:
    part = tiny.predict(videos / "a.mp4", start_s=0.4, end_s=0.8, num_frames=2)
    assert part.times_s.tolist() == pytest.approx([0.48, 0.68])
    with pytest.raises(VideoError, match=r"a\.mp4: nothing to look at between 5 s and 0\.8 s"):
        tiny.predict(videos / "a.mp4", start_s=5)


def test_many_come_back_in_order_and_failures_stop_nothing(tiny: Predictor, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    sources = [
        videos / "a.mp4",
        tmp_path / "empty.mp4",
        videos / "b.mp4",
        tmp_path / "none.mp4",
        videos / "sub" / "c.mp4",
    ]
    results = list(tiny.predict_many(sources, workers=3))
    assert [result.source for result in results] == [str(source) for source in sources]
    assert [type(result) for result in results] == [Prediction, Failure, Prediction, Failure, Prediction]
    assert isinstance(results[1], Failure)
    assert results[1].to_dict() == {"source": str(sources[1]), "error": results[1].error, "missing": False}
    assert isinstance(results[3], Failure)
    assert results[3].missing  # no such file, which is another thing than a file that cannot be read
    assert tally(3, "labelled", [results[1], results[3]]) == "3 labelled, 1 failed, 1 missing"
    one = tiny.predict(videos / "b.mp4")
    assert isinstance(results[2], Prediction)
    assert_close(results[2].scores, one.scores, rtol=0, atol=0)


def test_decoding_runs_ahead_but_not_away(tiny: Predictor, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def sources() -> Any:
        nonlocal asked
        for _ in range(100):
            asked += 1
            yield videos / "a.mp4"

    before = threading.active_count()
    results = tiny.predict_many(sources(), workers=2)
    next(iter(results))
    assert asked <= 5
    results.close()  # type: ignore[attr-defined]
    assert asked <= 5
    assert threading.active_count() == before


def test_a_gpu_takes_several_videos_at_once_and_answers_the_same(
    tiny: Predictor, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed: the number of videos a batch is set, and what goes through the network together is counted."""
    (tmp_path / "empty.mp4").touch()
    good = [videos / "a.mp4", videos / "b.mp4", videos / "sub" / "c.mp4"]
    sources = [good[0], tmp_path / "empty.mp4", *good[1:], tmp_path / "none.mp4", good[0], good[1]]
    alone = list(tiny.predict_many(sources))
    sizes: list[int] = []
    label_many = tiny.label_many

    def counted(decoded: Any) -> list[Prediction]:
        sizes.append(len(decoded))
        return label_many(decoded)

    monkeypatch.setattr(tiny, "_videos_at_once", lambda num_frames: 3)
    monkeypatch.setattr(tiny, "label_many", counted)
    together = list(tiny.predict_many(sources))
    assert sorted(sizes) == [1, 2, 2]  # of each three, what could be read
    assert [result.source for result in together] == [str(source) for source in sources]
    for one, other in zip(alone, together, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Prediction) and isinstance(other, Prediction):
            assert_close(other.scores, one.scores, rtol=0, atol=1e-5)


def test_a_batch_is_put_together_while_the_one_before_is_computed(
    tiny: Predictor, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_many, both, before = tiny.label_many, threading.Barrier(2, timeout=60), threading.active_count()

    def waits_for_the_other(decoded: Any) -> list[Prediction]:
        both.wait()  # is broken, and fails, if one batch is labelled at a time
        return label_many(decoded)

    monkeypatch.setattr(tiny, "_videos_at_once", lambda num_frames: 2)
    monkeypatch.setattr(tiny, "label_many", waits_for_the_other)
    results = tiny.predict_many([videos / "a.mp4", videos / "b.mp4"] * 4)
    assert isinstance(next(results), Prediction)
    cast("Any", results).close()
    assert threading.active_count() == before


def test_what_ends_a_batch_ends_the_call(tiny: Predictor, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(decoded: Any) -> list[Prediction]:
        raise ConfigError("no such thing")

    monkeypatch.setattr(tiny, "_videos_at_once", lambda num_frames: 2)
    monkeypatch.setattr(tiny, "label_many", refused)
    with pytest.raises(ConfigError, match="no such thing"):
        list(tiny.predict_many([videos / "a.mp4", videos / "b.mp4"]))


def test_a_video_without_an_answer_does_not_take_those_of_its_batch(
    tiny: Predictor, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, label_many = str(videos / "b.mp4"), tiny.label_many

    def refused(decoded: Any) -> list[Prediction]:
        if any(video.clips[0].source == bad for video in decoded):
            raise VideoError("no numbers")
        return label_many(decoded)

    monkeypatch.setattr(tiny, "_videos_at_once", lambda num_frames: 3)
    monkeypatch.setattr(tiny, "label_many", refused)
    results = list(tiny.predict_many([videos / "a.mp4", bad, videos / "sub" / "c.mp4"]))
    assert [type(result) for result in results] == [Prediction, Failure, Prediction]


@pytest.mark.parametrize(("device", "num_frames", "expected"), [("cuda:0", 16, 16), ("cuda:0", 300, 1), ("cpu", 16, 1)])
def test_a_batch_on_a_gpu_has_256_frames(tiny_model: Path, device: str, num_frames: int, expected: int) -> None:
    predictor = load(tiny_model, device="cpu", dtype="float32", runtime="torch")
    predictor.torch.device = device
    assert predictor._videos_at_once(num_frames) == expected


def test_names_files_and_devices_that_are_not_there(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"device 'cuba' cannot be used here .*; take 'auto' or 'cpu'"):
        load(tiny_model, device="cuba")
    with pytest.raises(ConfigError, match="dtype 'float23': did you mean 'float32'"):
        load(tiny_model, dtype="float23")  # type: ignore[arg-type]


@pytest.mark.parametrize("num_frames", [1, 3, 16, 35])
def test_frames_side_by_side_are_those_one_by_one(tiny: Predictor, num_frames: int) -> None:
    side = tiny.runtime.view.crop_px
    frames_TCHW = np.random.default_rng(0).integers(0, 256, (num_frames, 3, side, side), dtype=np.uint8)
    with torch.no_grad():
        alone = [tiny.torch.model.encode_frames(pixels_of(torch.from_numpy(frame)[None])) for frame in frames_TCHW]
    assert_close(tiny.runtime.embed_frames(frames_TCHW), torch.cat(alone).numpy())


def states(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in checkpoint.model.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["lite0-16", "tiny"])
def test_predicting_leaves_the_checkpoint_as_it_is(
    tiny_model: Path, videos: Path, tmp_path: Path, name: str, dtype: Any
) -> None:
    """Folding norms, casting and merging are the predictor's own: what is saved afterwards is what was loaded, bit for bit."""
    source = tiny_model if name == "tiny" else name
    checkpoint = load_checkpoint(source)
    checkpoint.model.train()
    before, modules = states(checkpoint), [type(module) for module in checkpoint.model.modules()]
    strides = [parameter.stride() for parameter in checkpoint.model.parameters()]
    predictor = Predictor(checkpoint, device="cpu", dtype=dtype, merge=2 if name == "tiny" else None)
    said = predictor.predict(videos / "a.mp4")
    assert predictor.torch.checkpoint is checkpoint
    assert checkpoint.model.training
    assert not predictor.torch.model.training
    assert [type(module) for module in checkpoint.model.modules()] == modules
    assert [parameter.stride() for parameter in checkpoint.model.parameters()] == strides
    if name == "tiny":
        assert merged_per_block(checkpoint.model.frame_encoder) == 0
    for number, kept in enumerate(
        (checkpoint, load(source, device="cpu", dtype=dtype, runtime="torch").torch.checkpoint)
    ):
        save_checkpoint(tmp_path / f"{number}.safetensors", kept)
        after = states(load_checkpoint(tmp_path / f"{number}.safetensors"))
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)
    again = Predictor(
        load_checkpoint(tmp_path / "0.safetensors"), device="cpu", dtype=dtype, merge=2 if name == "tiny" else None
    )
    assert np.array_equal(again.predict(videos / "a.mp4").scores, said.scores)


def test_weights_that_need_no_cast_are_there_once(tiny_model: Path) -> None:
    """A large ViT in float32 must not take its memory twice."""
    checkpoint = load_checkpoint(tiny_model)
    predictor = Predictor(checkpoint, device="cpu", dtype="float32")
    own = dict(predictor.torch.model.named_parameters())
    apart = [name for name, one in checkpoint.model.named_parameters() if one.data_ptr() != own[name].data_ptr()]
    assert apart in ([], ["frame_encoder.patch_embed.proj.weight"])  # a convolution's weights lie channels last


def test_bfloat16_agrees(tiny: Predictor, tiny_model: Path, videos: Path) -> None:
    low = load(tiny_model, device="cpu", dtype="bfloat16").predict(videos / "a.mp4")
    assert_close(low.scores, tiny.predict(videos / "a.mp4").scores, rtol=0, atol=0.02)


def test_front_door() -> None:
    assert fewframes.load is load
    assert "load" in dir(fewframes)
    assert ViewConfig is fewframes.ViewConfig
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        fewframes.lode  # noqa: B018


def test_wrong_arguments_are_said(tiny: Predictor, videos: Path) -> None:
    with pytest.raises(ValueError, match=r"num_frames = 0: needs at least 1"):
        tiny.predict(videos / "a.mp4", num_frames=0)
    with pytest.raises(TypeError, match="needs several; use predict for one"):
        next(tiny.predict_many("clip.mp4"))
    with pytest.raises(TypeError, match="a list of paths: pass one path"):
        tiny.predict([str(videos / "a.mp4")])
    with pytest.raises(ValueError, match="one picture; pass a list of pictures"):
        tiny.predict(np.zeros((48, 64, 3), np.uint8))
    content = (videos / "a.mp4").read_bytes()
    assert np.array_equal(tiny.predict(bytearray(content)).scores, tiny.predict(content).scores)
    bad, good = tiny.predict_many(["a\0b", str(videos / "a.mp4")])
    assert isinstance(bad, Failure)
    assert not isinstance(good, Failure)


def test_views_of_one_opening(tiny: Predictor, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal opened
        opened += 1
        return open_video(*arguments, **options)

    monkeypatch.setattr(reader, "open_video", counted)
    clips = tiny.read_views(videos / "a.mp4", Views(num_clips=2, num_crops=3, clip_s=0.4))  # of 0.8 s
    assert opened == 1
    assert len(clips) == 6
    for clip, start_s in zip(clips, (0, 0, 0, 0.4, 0.4, 0.4), strict=True):
        assert clip.times_s.tolist() == pytest.approx([start_s + time for time in (0.04, 0.12, 0.24, 0.32)])
    for place, clip in enumerate(clips):
        frames = read_frames(videos / "a.mp4", clip.times_s).frames
        slow = np.stack([crops_of(frame, tiny.runtime.view, 3)[place % 3] for frame in frames])
        assert np.array_equal(clip.frames, slow)
    assert not np.array_equal(clips[0].frames, clips[2].frames)
    one = tiny.read_views(videos / "a.mp4", Views())
    assert np.array_equal(one[0].frames, tiny.read_clip(videos / "a.mp4").frames)


def test_a_view_of_the_whole_picture_has_no_crops(tiny_model: Path, videos: Path) -> None:
    checkpoint = load_checkpoint(tiny_model)
    whole = Predictor(replace(checkpoint, view=ViewConfig(fit="squash", crop_px=32)), device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match=r"3 crops: this model's view \(squash\) shows the whole picture"):
        whole.read_views(videos / "a.mp4", Views(num_crops=3))


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A tiny model of eight frames, so that there are two stages: four, and all."""
    torch.manual_seed(1)
    view = ViewConfig(resize_px=36, crop_px=32)
    model = build_model(replace(TINY, num_frames=8), view)
    plan = ExitPlan(stages=stages_of(8), temperatures=(1.0, 1.0), threshold=2.0)
    return Predictor(Checkpoint(model, view, LABELS, exits=plan), device="cpu", dtype="float32")


def test_a_sure_answer_comes_from_few_frames(eight: Predictor, videos: Path) -> None:
    path = videos / "a.mp4"
    early, whole = eight.predict(path, early_exit=1e-6), eight.predict(path)
    places = list(stages_of(8)[0])
    assert len(early.times_s) == len(places) == 4
    assert_close(early.times_s, whole.times_s[places])
    assert_close(early.frame_embeddings, whole.frame_embeddings[places])
    assert float(early.frame_attention.sum()) == pytest.approx(1, abs=1e-5)
    frames_BTD = filled(early.frame_embeddings[None], places, 8)
    assert_close(early.scores, scores_of(eight.runtime.encode_windows(frames_BTD).logits, "single")[0])


@pytest.mark.parametrize("early_exit", [True, 1.0])
def test_an_answer_that_is_never_sure_is_that_of_all_frames(
    eight: Predictor, videos: Path, early_exit: bool | float
) -> None:
    late, whole = eight.predict(videos / "a.mp4", early_exit=early_exit), eight.predict(videos / "a.mp4")
    assert_close(late.scores, whole.scores)
    assert_close(late.frame_attention, whole.frame_attention)
    assert np.array_equal(late.times_s, whole.times_s)


@pytest.mark.parametrize(("temperature", "num_frames"), [(1e-4, 4), (1.0, 8), (1e4, 8)])
def test_early_exit_asks_the_calibrated_confidence(
    eight: Predictor, videos: Path, temperature: float, num_frames: int
) -> None:
    """The same logits are sure or doubtful by the temperature that was fitted for the stage."""
    plan = ExitPlan(stages=stages_of(8), temperatures=(temperature, 1.0), threshold=0.95)
    judge = Predictor(replace(eight.torch.checkpoint, exits=plan), device="cpu", dtype="float32")
    assert len(judge.predict(videos / "a.mp4", early_exit=True).times_s) == num_frames
    assert len(judge.predict(videos / "a.mp4", early_exit=0.9).times_s) == num_frames


BAD_ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    *(("num_frames", {"num_frames": bad}) for bad in (0, -1, 4097, 10**12, 2.5, "8", True, float("nan"))),
    *(("start_s", {"start_s": bad}) for bad in (float("nan"), float("inf"), "1", None, True)),
    *(("end_s", {"end_s": bad}) for bad in (float("nan"), float("-inf"), "1", False)),
    *(("tolerance", {"tolerance": bad}) for bad in (-0.1, 0.6, float("nan"), "0.1", None)),
    *(("early_exit", {"early_exit": bad}) for bad in (0, 0.0, -1, 1.01, 5.0, float("nan"), float("inf"), "auto")),
]


@pytest.mark.parametrize(("name", "bad"), BAD_ARGUMENTS, ids=str)
def test_values_out_of_range_are_refused_at_every_door(
    eight: Predictor, videos: Path, name: str, bad: dict[str, Any]
) -> None:
    """One family: TypeError, or ConfigError, which is a ValueError; it names the argument."""
    doors: list[Any] = [
        lambda: eight.predict(videos / "a.mp4", **bad),
        lambda: next(iter(eight.predict_many([videos / "a.mp4"], **bad))),
    ]
    if name in {"num_frames", "start_s", "end_s"}:
        doors += [
            lambda: eight.read_clip(videos / "a.mp4", **bad),
            lambda: eight.read_views(videos / "a.mp4", Views(), **bad),
        ]
    for door in doors:
        with pytest.raises((ConfigError, TypeError), match=name):
            door()
    with pytest.raises((ValueError, TypeError), match=name):
        doors[0]()


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("fps", {"fps": 0}),
        ("fps", {"fps": float("nan")}),
        ("fps", {"fps": "25"}),
    ],
    ids=str,
)
def test_rates_that_are_none(eight: Predictor, videos: Path, name: str, bad: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, TypeError), match=name):
        eight.predict(videos / "a.mp4", **bad)


def test_wrong_values_of_the_public_names(tiny: Predictor, tiny_model: Path, videos: Path, tmp_path: Path) -> None:
    """Each raises ValueError or TypeError, as Python callers expect, and says which value is wrong."""
    said = tiny.predict(videos / "a.mp4")
    checkpoint = load_checkpoint(tiny_model)
    doors: list[tuple[Any, str]] = [
        (lambda: fewframes.load(tiny_model, device="cuba"), "cuba"),
        (lambda: fewframes.load(tiny_model, dtype="int8"), "int8"),  # type: ignore[arg-type]
        (lambda: fewframes.load(tiny_model, dtype=torch.float32), "torch.float32"),  # type: ignore[arg-type]
        (lambda: fewframes.load(tiny_model, backend="ffmpeg"), "backend 'ffmpeg'"),  # type: ignore[arg-type]
        (lambda: fewframes.load(tiny_model, merge=-1), "merge = -1"),
        (lambda: fewframes.load(tiny_model, merge=100), "100 patches"),
        (lambda: fewframes.load(tiny_model, merge=1.5), "merge = 1.5"),  # type: ignore[arg-type]
        (lambda: fewframes.load(7), "int"),  # type: ignore[arg-type]
        (lambda: fewframes.Predictor(str(tiny_model)), "needs a Checkpoint"),  # type: ignore[arg-type]
        (lambda: list(tiny.predict_many([videos / "a.mp4"], workers=-1)), "workers = -1"),
        (lambda: list(tiny.predict_many([videos / "a.mp4"], workers=1.5)), "workers = 1.5"),  # type: ignore[arg-type]
        (lambda: tiny.predict(None), ""),  # type: ignore[arg-type]
        (lambda: tiny.predict(3.5), ""),  # type: ignore[arg-type]
        (lambda: said.top(0), "k = 0"),
        (lambda: said.top(-1), "k = -1"),
        (lambda: said.top(1.5), "k = 1.5"),  # type: ignore[arg-type]
        (lambda: said.to_dict(0), "k = 0"),
        (lambda: fewframes.ModelConfig(num_classes=0), "num_classes"),
        (lambda: fewframes.ModelConfig(num_frames=0), "num_frames"),
        (lambda: fewframes.ViewConfig(mean=(float("nan"),) * 3), "mean"),
        (lambda: fewframes.StreamConfig(window_s=0), "window_s"),
        (lambda: fewframes.StreamConfig(enter=float("nan")), "enter"),
        (lambda: fewframes.StreamConfig(leave=0.9), "leave 0.9 is above enter 0.5"),
        (lambda: fewframes.save_checkpoint(tmp_path / "x", replace(checkpoint, labels=())), "0 labels"),
        (lambda: fewframes.save_checkpoint(tmp_path / "x", checkpoint, dtype=torch.int32), "torch.int32"),
    ]
    for number, (door, words) in enumerate(doors):
        with pytest.raises((ValueError, TypeError)) as caught:
            door()
        assert words in str(caught.value), (number, str(caught.value))
    assert not (tmp_path / "x").exists()


def test_numbers_of_numpy_are_numbers(tiny: Predictor, videos: Path) -> None:
    plain = tiny.predict(videos / "a.mp4", num_frames=3, start_s=0.2, end_s=0.7)
    part: dict[str, Any] = {"num_frames": np.int64(3), "start_s": np.float64(0.2), "end_s": np.float32(0.7)}
    same = tiny.predict(videos / "a.mp4", **part)
    assert_close(plain.scores, same.scores)
    assert len(plain.top(np.int64(2))) == 2  # type: ignore[arg-type]


def test_many_stop_early_as_one_does(eight: Predictor, videos: Path) -> None:
    paths = [str(path) for path in (videos / "a.mp4", videos / "b.mp4", videos / "none.mp4")]
    first, second, missing = eight.predict_many(paths, early_exit=1e-6)
    assert isinstance(missing, Failure)
    for path, many in zip(paths, (first, second), strict=False):
        assert isinstance(many, Prediction)
        assert_close(many.scores, eight.predict(path, early_exit=1e-6).scores)


def test_frames_not_needed_are_not_decoded(eight: Predictor, tmp_path: Path) -> None:
    """Where key frames are many; where going back would cost more, all are read at once."""
    many = drifting(tmp_path / "many.mp4", "libx264", 80, gop=5, options={"bf": "0"})
    early, whole = eight.predict(many, early_exit=1e-6), eight.predict(many)
    assert early.reading.frames_decoded < 0.7 * whole.reading.frames_decoded
    late = eight.predict(many, early_exit=1.0)
    assert late.reading.frames_decoded <= whole.reading.frames_decoded + 12
    one = drifting(tmp_path / "one.mp4", "libx264", 80, gop=250, options={"bf": "0"})
    assert eight.predict(one, early_exit=1.0).reading.frames_decoded == eight.predict(one).reading.frames_decoded


def test_what_early_exit_cannot_do(eight: Predictor, tiny: Predictor, videos: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no early exit was fitted for this model; train with --early-exit, or pass .* 0\.9"
    ):
        tiny.predict(videos / "a.mp4", early_exit=True)
    with pytest.raises(ConfigError, match=r"4 frames with early exit: its stages are made for this model's 8 frames"):
        eight.predict(videos / "a.mp4", num_frames=4, early_exit=0.5)


def test_a_predictor_names_its_model_labels_device_and_precision(tiny_model: Path) -> None:
    predictor = load(tiny_model, device="cpu", dtype="bfloat16")
    assert repr(predictor) == f"Predictor({str(tiny_model)!r}, {len(predictor.labels)} labels, torch on cpu, bfloat16)"
