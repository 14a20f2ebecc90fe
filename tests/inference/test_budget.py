"""Budgets: the fewest frames where nothing fits, all where everything does, kept in between, and never surer than few frames allow.

Time is a clock that the test moves: by so much for a decoded picture, and so much for an encoded frame.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile
from numpy.testing import assert_allclose
from PIL import Image

import fewframes
from fewframes.errors import ConfigError, VideoError
from fewframes.inference.clips import OpenRequest
from fewframes.inference.predictor import Predictor
from fewframes.inference.stages.budget import STORED, Budget, BudgetReader, fit_divisors, stage_plan_of, stages_within
from fewframes.inference.stages.early_exit import filled
from fewframes.models.config import ExitPlan
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.networks import build_model
from fewframes.results import Clip, Failure, Prediction
from fewframes.runtime.protocol import Floats, Frames, scores_of
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, TINY
from helpers.numbered import drifting

NO_END = 1e9
DIVISORS = {"2": 3.0, "4": 2.0, "6": 1.5, "8": 1.2, "12": 1.1}


def predictor_of(**changes: Any) -> Predictor:
    torch.manual_seed(1)
    view = ViewConfig(resize_px=36, crop_px=32)
    model = build_model(replace(TINY, num_frames=16), view)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Predictor(Checkpoint(model, view, LABELS, **changes), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def sixteen() -> Predictor:
    return predictor_of(provenance={STORED: DIVISORS})


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with a key frame every eight pictures."""
    return drifting(tmp_path_factory.mktemp("keyed") / "keyed.mp4", "libx264", 160, gop=8, options={"bf": "0"})


class Told:
    """A clock, moved by hand, and a reader of budgets that goes by it."""

    def __init__(
        self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, picture_ms: float, frame_ms: float
    ) -> None:
        self.now_s = 0.0
        self.encoded: list[int] = []
        embed_frames, decode = predictor.runtime.embed_frames, OpenRequest.decode
        before: dict[int, int] = {}

        def slow_embed(frames_TCHW: Frames) -> Floats:
            self.now_s += frame_ms / 1000 * len(frames_TCHW)
            self.encoded.append(len(frames_TCHW))
            return embed_frames(frames_TCHW)

        def slow_decode(video: OpenRequest, indices: Any) -> Clip:
            clip = decode(video, indices)
            self.now_s += picture_ms / 1000 * (clip.reading.frames_decoded - before.get(id(video), 1))
            before[id(video)] = clip.reading.frames_decoded
            return clip

        monkeypatch.setattr(predictor.runtime, "embed_frames", slow_embed)
        monkeypatch.setattr(OpenRequest, "decode", slow_decode)
        reader = BudgetReader(predictor.runtime, predictor.reader, predictor._familiarity, lambda: self.now_s)
        monkeypatch.setattr(predictor, "budget_reader", reader)


def used(prediction: Prediction) -> Any:
    assert prediction.budget is not None
    return prediction.budget


def test_stages_grow_by_less_than_twice_and_contain_each_other() -> None:
    stages = stages_within(16)
    assert [len(stage) for stage in stages] == [2, 4, 6, 8, 12, 16]
    assert stages[:2] == ((5, 10), (1, 5, 10, 14))
    assert all(set(few) < set(more) for few, more in zip(stages, stages[1:], strict=False))
    assert [len(stage) for stage in stages_within(4)] == [4]
    assert len(stages_within(33)[-1]) == 33


def test_where_nothing_fits_the_fewest_frames_answer_and_it_is_said(sixteen: Predictor, keyed: Path) -> None:
    prediction = sixteen.predict(keyed, budget_ms=1e-3)
    use = used(prediction)
    assert len(prediction.times_s) == use.num_frames == 2
    assert use.is_least
    assert not use.is_kept
    assert use.over_ms == pytest.approx(use.took_ms - 1e-3)
    assert f"the budget was not kept: {use.over_ms:.0f} ms over; the fewest frames take more" in prediction.notices
    assert prediction.to_dict()["budget"]["kept"] is False  # type: ignore[index]
    assert float(prediction.frame_attention.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("early", [False, 1.0])
def test_where_everything_fits_the_answer_is_that_without_a_budget(
    sixteen: Predictor, keyed: Path, early: bool | float
) -> None:
    whole, plain = sixteen.predict(keyed, budget_ms=NO_END, budget_kb=NO_END, early_exit=early), sixteen.predict(keyed)
    assert used(whole).num_frames == 16
    assert used(whole).is_kept
    assert_allclose(whole.scores, plain.scores, rtol=0, atol=1e-5)
    assert_allclose(whole.frame_attention, plain.frame_attention, rtol=0, atol=1e-5)
    assert whole.times_s.tolist() == plain.times_s.tolist()
    assert plain.budget is None
    assert "budget" not in plain.to_dict()


@pytest.mark.parametrize(("budget_ms", "num_frames"), [(45, 4), (70, 6), (100, 8), (125, 12), (170, 16)])
def test_as_many_frames_as_fit_are_looked_at(
    sixteen: Predictor, keyed: Path, monkeypatch: pytest.MonkeyPatch, budget_ms: float, num_frames: int
) -> None:
    """Ten milliseconds a frame, and a tenth more for what comes: two of the first video are seen before that is known."""
    told = Told(sixteen, monkeypatch, 0.0, 10.0)
    for planned in (False, True):
        told.encoded.clear()
        use = used(sixteen.predict(keyed, budget_ms=budget_ms))
        assert use.num_frames == sum(told.encoded) == num_frames
        assert use.is_kept
        assert use.took_ms == pytest.approx(10 * num_frames)
        assert (told.encoded[0] == 2) is not planned


def test_times_move_only_where_the_fewest_frames_do_not_fit(
    sixteen: Predictor, keyed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Told(sixteen, monkeypatch, 10.0, 0.01)
    tight, ample = sixteen.predict(keyed, budget_ms=60), sixteen.predict(keyed, budget_ms=300)
    assert used(tight).tolerance > 0
    assert used(ample).tolerance == 0
    exact = sixteen.predict(keyed)
    assert set(ample.times_s.tolist()) <= set(exact.times_s.tolist())
    assert not set(tight.times_s.tolist()) <= set(exact.times_s.tolist())
    assert tight.reading.frames_decoded < ample.reading.frames_decoded


def test_times_may_always_move_as_far_as_asked(sixteen: Predictor, keyed: Path) -> None:
    moved = sixteen.predict(keyed, budget_ms=NO_END, tolerance=0.5)
    assert moved.times_s.tolist() == sixteen.predict(keyed, tolerance=0.5).times_s.tolist()
    assert used(moved).tolerance == 0.5


def test_a_sure_answer_ends_before_the_budget(sixteen: Predictor, keyed: Path) -> None:
    assert used(sixteen.predict(keyed, budget_ms=NO_END, early_exit=1e-6)).num_frames == 2


def test_few_frames_are_less_sure(sixteen: Predictor, keyed: Path) -> None:
    few = sixteen.predict(keyed, budget_ms=1e-3)
    frames_BTD = filled(few.frame_embeddings[None], stages_within(16)[0], 16)
    logits_K = sixteen.runtime.encode_windows(frames_BTD).logits[0]
    assert_allclose(few.scores, scores_of(logits_K / 3, "single"), rtol=0, atol=1e-5)
    assert few.score < float(scores_of(logits_K, "single").max())
    assert used(few).is_fitted
    assert not any("was not fitted" in notice for notice in few.notices)


def test_what_was_fitted_for_early_exits_is_used(keyed: Path) -> None:
    stages = stages_within(16)[1::2]
    plan = ExitPlan(stages=stages, temperatures=(4.0, 2.0, 3.0), threshold=0.0)
    fitted = predictor_of(exits=plan)
    few, all_frames = (used(fitted.predict(keyed, budget_ms=ms)) for ms in (1e-3, NO_END))
    assert (few.num_frames, few.is_fitted, all_frames.num_frames) == (4, True, 16)  # its threshold was not asked for
    assert used(fitted.predict(keyed, budget_ms=NO_END, early_exit=True)).num_frames == 4
    plain = fitted.predict(keyed)
    assert_allclose(fitted.predict(keyed, budget_ms=NO_END).scores, plain.scores, rtol=0, atol=1e-5)


def test_where_nothing_was_fitted_that_is_said(keyed: Path) -> None:
    few = predictor_of().predict(keyed, budget_ms=1e-3)
    assert any("of 2 instead of 16 frames, which was not fitted for this model" in notice for notice in few.notices)


def test_another_number_of_frames_has_stages_too(sixteen: Predictor, keyed: Path) -> None:
    found = sixteen.predict(keyed, budget_ms=1e-3, num_frames=8)
    assert (used(found).num_frames, used(found).all_frames, used(found).is_fitted) == (2, 8, False)
    whole = sixteen.predict(keyed, budget_ms=NO_END, num_frames=8)
    assert_allclose(whole.scores, sixteen.predict(keyed, num_frames=8).scores, rtol=0, atol=1e-5)


def test_a_model_that_mixes_frames_looks_at_all(keyed: Path) -> None:
    torch.manual_seed(1)
    view = ViewConfig(resize_px=36, crop_px=32)
    model = build_model(replace(TINY, layout="joint", temporal="mean"), view)
    mixing = Predictor(Checkpoint(model, view, LABELS), device="cpu", dtype="float32")
    found = mixing.predict(keyed, budget_ms=1e-3)
    assert (used(found).num_frames, used(found).is_least, used(found).is_kept) == (4, True, False)
    assert np.array_equal(found.scores, mixing.predict(keyed).scores)


def test_many_have_a_budget_each(sixteen: Predictor, keyed: Path, videos: Path) -> None:
    few, missing, other = sixteen.predict_many([keyed, videos / "none.mp4", videos / "a.mp4"], budget_ms=1e-3)
    assert isinstance(missing, Failure)
    for found in (few, other):
        assert isinstance(found, Prediction)
        assert used(found).num_frames == 2
    for found in sixteen.predict_many([keyed], budget_ms=NO_END):
        assert isinstance(found, Prediction)
        assert used(found).num_frames == 16


def test_pictures_keep_budgets_of_time_and_have_no_bytes(sixteen: Predictor, tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((40, 40, 3), 8 * number, np.uint8)) for number in range(20)]
    pictures[0].save(tmp_path / "grey.gif", save_all=True, append_images=pictures[1:], duration=40)
    (tmp_path / "folder").mkdir()
    for number, one in enumerate(pictures):
        one.save(tmp_path / "folder" / f"{number:02d}.png")
    assert used(sixteen.predict(tmp_path / "grey.gif", budget_kb=1e-3)).num_frames == 2  # a file like others
    for source in (tmp_path / "folder", [np.asarray(one) for one in pictures]):
        few = sixteen.predict(source, budget_ms=1e-3, budget_kb=1)
        assert used(few).num_frames == 2
        assert used(few).read_kb is None
        assert "the budget of bytes had no effect: the bytes of this kind of video are not counted" in few.notices
        assert used(sixteen.predict(source, budget_kb=1)).num_frames == 16


class FarFiles(AbstractFileSystem):  # type: ignore[misc]
    """Local files as a store has them: opened by an address, and fetched in blocks."""

    protocol = "far"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return {"name": path, "size": os.path.getsize("/" + path.lstrip("/")), "type": "file"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        options = {name: options[name] for name in ("block_size", "cache_type")}
        return FarContent(self, path, mode, **options)


class FarContent(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        with open("/" + self.path.lstrip("/"), "rb") as file:
            file.seek(start)
            return file.read(end - start)


def test_blocks_fetched_from_afar_stay_within_their_budget(sixteen: Predictor, tmp_path: Path) -> None:
    fsspec.register_implementation("far", FarFiles, clobber=True)
    path = drifting(
        tmp_path / "far.mp4", "libx264", 320, gop=20, options={"qp": "4", "preset": "ultrafast"}, size=256,
        mux_options={"movflags": "faststart"},
    )  # fmt: skip
    size_kb = path.stat().st_size / 1000
    whole, few = (used(sixteen.predict(f"far://{path}", budget_kb=kb)) for kb in (NO_END, 1))
    assert (whole.num_frames, few.num_frames) == (16, 2)
    assert few.read_kb < whole.read_kb < size_kb
    assert few.over_kb > 0
    middle = used(sixteen.predict(f"far://{path}", budget_kb=0.8 * whole.read_kb))
    assert 2 < middle.num_frames < 16
    assert middle.is_kept
    assert few.read_kb < middle.read_kb


def test_bytes_read_stay_within_their_budget(sixteen: Predictor, keyed: Path) -> None:
    whole, few = sixteen.predict(keyed, budget_kb=NO_END), sixteen.predict(keyed, budget_kb=1e-3)
    most, least = used(whole).read_kb, used(few).read_kb
    assert (used(whole).num_frames, used(few).num_frames) == (16, 2)
    assert least < most
    assert used(few).over_kb == pytest.approx(least - 1e-3)
    middle = used(sixteen.predict(keyed, budget_kb=(least + most) / 2))
    assert 2 < middle.num_frames < 16
    assert middle.read_kb <= (least + most) / 2
    assert middle.is_kept


def test_the_narrower_of_two_budgets_holds(sixteen: Predictor, keyed: Path) -> None:
    for ms, kb in ((NO_END, 1e-3), (1e-3, NO_END)):
        assert used(sixteen.predict(keyed, budget_ms=ms, budget_kb=kb)).num_frames == 2


def test_a_budget_must_be_above_nothing(sixteen: Predictor, keyed: Path) -> None:
    assert Budget.of(None, None) is None
    for bad in (0, -1, float("nan"), float("inf"), 0.0):
        for name in ("budget_ms", "budget_kb"):
            budget: dict[str, Any] = {name: bad}
            with pytest.raises(ConfigError, match=f"{name} = .*: needs a finite number above 0"):
                sixteen.predict(keyed, **budget)
            with pytest.raises(ConfigError, match=name):
                next(iter(sixteen.predict_many([keyed], **budget)))
    with pytest.raises(TypeError, match="budget_ms"):
        sixteen.predict(keyed, budget_ms="150")  # type: ignore[arg-type]
    with pytest.raises(VideoError, match="nothing to look at"):
        sixteen.predict(keyed, budget_ms=100, start_s=1000)


def test_divisors_make_few_frames_as_sure_as_they_are_right() -> None:
    generator = np.random.default_rng(0)
    targets_N = generator.integers(3, size=2000)
    wrong_N = generator.random(2000) < 0.4
    seen_N = np.where(wrong_N, generator.integers(3, size=2000), targets_N)
    all_NK = np.eye(3, dtype=np.float32)[targets_N] * 4
    logits_SNK = np.stack([np.eye(3, dtype=np.float32)[seen_N] * 4, all_NK, all_NK])
    stages = ((1,), (1, 2), (0, 1, 2))
    divisors = fit_divisors(stages, logits_SNK, targets_N)
    assert divisors["2"] == 1.0
    assert divisors["1"] > 1.5
    assert set(divisors) == {"1", "2"}


def test_the_packaged_model_knows_how_sure_few_frames_are() -> None:
    plan = stage_plan_of(fewframes.load().runtime, early_exit=False)
    assert all(plan.fitted)
    first, second, *more = plan.exits.temperatures
    assert first > second > 1
    assert set(more) == {1.0}
