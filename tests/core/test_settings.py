"""Settings are checked when they are made, and strict when they are read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from fewframes.core.settings import cache_dir, settings_from
from fewframes.data.config import DataConfig
from fewframes.errors import ConfigError
from fewframes.models.config import ModelConfig
from fewframes.models.presets import PRESETS
from fewframes.training.config import RunConfig, TrainConfig, changed, changed_by_words, read_run, run_to_toml
from fewframes.video.view import ViewConfig


def test_settings_survive_json() -> None:
    for preset in PRESETS.values():
        assert settings_from(ModelConfig, dataclasses.asdict(preset.model), "x") == preset.model
        assert settings_from(ViewConfig, dataclasses.asdict(preset.view), "x") == preset.view


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"run.toml: unknown setting 'num_frame'; did you mean 'num_frames'\?"):
        settings_from(ModelConfig, {"num_frame": 8}, "run.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 0}, "num_frames = 0: Input should be greater than or equal to 1"),
        ({"num_frames": "8"}, "num_frames = '8': Input should be a valid integer"),
        (
            {"temporal": "lstm"},
            "temporal = 'lstm': Input should be 'paper', 'release', 'mean', 'causal' or 'recurrent'",
        ),
        ({"image_size": 225}, "image_size 225 is not a multiple of patch_size 16"),
        ({"width": 100}, "width 100 is not a multiple of heads 12"),
        ({"encoder": "resnet50"}, "encoder 'resnet50': needs"),
        ({"encoder": "timm:resnet50", "layout": "joint"}, "layout 'joint' needs the ViT encoder"),
        ({"temporal_width": 100}, "temporal_width 100 is not a multiple of temporal_heads 8"),
        ({"temporal_dropout": 1.0}, "temporal_dropout = 1.0"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_from(ModelConfig, values, "x")


def test_views_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="resize_px 200 is below crop_px 224"):
        ViewConfig(resize_px=200)
    with pytest.raises(ConfigError, match=r"std\.1 = 0"):
        settings_from(ViewConfig, {"std": [1, 0, 1]}, "x")


def test_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().width = 3  # type: ignore[misc]
    with pytest.raises((TypeError, ValidationError)):
        ModelConfig("vit")  # type: ignore[misc, call-arg]


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("FEWFRAMES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "fewframes"


RUN = RunConfig(
    start="vit-ti-16",
    init='weights "mine".safetensors',
    model={"num_frames": 8, "temporal": "mean", "motion_width": 0, "moment_head": True},
    view={"mean": [0.5, 0.4, 0.3]},
    data=DataConfig(holdout=0.0, group="person"),
    train=TrainConfig(learning_rate=3e-4),
)


@pytest.mark.parametrize("run", [RUN, RunConfig()])
def test_a_run_file_reads_back_as_it_was_written(run: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(run_to_toml(run), encoding="utf-8")
    assert read_run(tmp_path / "run.toml") == run


def test_changes_keep_the_rest() -> None:
    after = changed(
        RUN, {"start": None, "init": "other", "train": {"epochs": 3, "seed": None}, "data": {"mirror": False}}
    )
    assert after == dataclasses.replace(
        RUN,
        init="other",
        train=dataclasses.replace(RUN.train, epochs=3),
        data=dataclasses.replace(RUN.data, mirror=False),
    )
    with pytest.raises(ConfigError, match=r"options: train: learning_rate = -1"):
        changed(RUN, {"train": {"learning_rate": -1.0}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", r"run\.toml: train: unknown setting 'epoch'; did you mean 'epochs'"),
        ("strat = 'x'", "unknown setting 'strat'; did you mean 'start'"),
        ("[data]\nholdout = 1.5", "holdout = 1.5: Input should be less than 1"),
        ("train = 3", r"train = 3: needs a table, \[train\]"),
        ("[train\n", "not TOML"),
    ],
)
def test_bad_run_files_say_where(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_run(tmp_path / "run.toml")


def test_a_missing_run_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_run(tmp_path / "none.toml")


def test_settings_by_words() -> None:
    words = [
        "train.epochs=5",
        "augment.auto=imagenet",
        "init=weights.safetensors",
        "train.trackers=['wandb']",
        "data.mirror=false",
    ]
    run = changed_by_words(RunConfig(), [*words, "train.ema_decay = 0.99"])
    assert (run.train.epochs, run.train.ema_decay, run.train.trackers) == (5, 0.99, ("wandb",))
    assert (run.augment.auto, run.init, run.data.mirror) == ("imagenet", "weights.safetensors", False)
    assert changed_by_words(run, ["model.depth=3"]).model == {"depth": 3}


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("train.epochs", "'train.epochs': needs TABLE.SETTING=VALUE, for example train.epochs=5"),
        ("trian.epochs=5", "'trian.epochs=5': no table 'trian'; did you mean 'train'"),
        ("train.epoch=5", "unknown setting 'epoch'; did you mean 'epochs'"),
        ("train.epochs=many", "epochs = 'many'"),
        ("train.unfreeze=last-0-blocks", "unfreeze = 'last-0-blocks'"),
        ("augment.cutout=1.5", "cutout = 1.5"),
        ("strat=x", "unknown setting 'strat'; did you mean 'start'"),
    ],
)
def test_bad_words_say_what_they_need(word: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        changed_by_words(RunConfig(), [word])


def test_run_files_of_the_project_are_complete_runs(tmp_path: Path) -> None:
    paths = sorted((Path(__file__).parents[2] / "runs").glob("*.toml"))
    assert len(paths) >= 4
    for path in paths:
        run = read_run(path)
        assert path.read_text().startswith("# ")
        (tmp_path / "again.toml").write_text(run_to_toml(run))
        assert read_run(tmp_path / "again.toml") == run
        assert run.start in PRESETS


def test_the_papers_recipe_is_the_papers() -> None:
    run = read_run(Path(__file__).parents[2] / "runs" / "paper-16.toml")
    view = PRESETS[run.start].view
    assert (view.resize_px, round(view.resize_px * run.augment.scale), view.crop_px) == (256, 320, 224)
    assert (run.augment.cutout, run.augment.auto, run.data.mirror, run.augment.jitter) == (0.5, "imagenet", True, False)
    assert (run.train.epochs, run.train.unfreeze) == (30, "all")
    assert PRESETS[run.start].model.num_frames == 16
