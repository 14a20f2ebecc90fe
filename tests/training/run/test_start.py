"""What a new model takes over from the one that it starts from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from fewframes.data.config import DataConfig
from fewframes.data.dataset import read_data
from fewframes.data.known_videos import known_facts
from fewframes.errors import ConfigError
from fewframes.models.cost import count_cost
from fewframes.models.files import hub
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import read_model_file
from fewframes.models.files.names import packaged_path
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PLAIN_PIXELS, PRESETS
from fewframes.training.config import RunConfig, TrainConfig, read_run
from fewframes.training.run.start import kept_graphs, start_run, warnings_of_known
from fewframes.training.solved.checks import check_settings
from fewframes.training.train import TrainOptions, train
from fewframes.video.view import ViewConfig
from helpers.models import LABELS, SMALL_RELEASE, TINY, release_state, shaken

VIEW = ViewConfig(resize_px=36, crop_px=32)
MIIL = "vit_base_patch16_224_miil.in21k"


def saved(path: Path, **fields: Any) -> Path:
    """Write a model with random weights that no new model has by chance."""
    model: Any = shaken(build_model(replace(TINY, **fields), VIEW))
    save_checkpoint(path, Checkpoint(model, VIEW, LABELS, {"data": "earlier"}, licences={"weights": "MIT"}))
    return path


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    others = second.state_dict()
    return all(torch.equal(tensor, others[key]) for key, tensor in first.state_dict().items())


def test_graphs_are_kept_while_the_architecture_is_the_same() -> None:
    preset, packaged = PRESETS["lite0-16"], packaged_path("lite0-16")
    graphs = read_model_file(packaged).graphs
    more_classes = replace(preset.model, num_classes=99)
    assert graphs
    assert kept_graphs(RunConfig(start="lite0-16"), more_classes, preset.view) == graphs
    assert kept_graphs(RunConfig(start=str(packaged)), more_classes, preset.view) == graphs
    assert kept_graphs(RunConfig(start="lite0-16"), replace(more_classes, num_frames=8), preset.view) == {}
    assert kept_graphs(RunConfig(start="vit-s-16", init="no_such.timm"), PRESETS["vit-s-16"].model, preset.view) == {}


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_whole_model_is_kept_on_demand_alone(tmp_path: Path, as_folder: bool) -> None:
    path = saved(tmp_path / "model.safetensors")
    name = str(tmp_path if as_folder else path)
    trained = load_checkpoint(path).model
    run = RunConfig(start=name)
    usual = start_run(run, num_classes=5, task="single")
    assert same(usual.model.frame_encoder, trained.frame_encoder)
    assert not same(usual.model.temporal_encoder, trained.temporal_encoder)
    assert usual.started_from["kept"] == ["frame encoder"]
    whole = start_run(replace(run, keep_temporal=True), num_classes=5, task="multilabel")
    assert same(whole.model.frame_encoder, trained.frame_encoder)
    assert same(whole.model.temporal_encoder, trained.temporal_encoder)
    assert whole.model.head.weight.shape[0] == 5
    assert whole.model.config.task == "multilabel"
    assert whole.started_from["kept"] == ["frame encoder", "temporal encoder"]
    assert (whole.started_from["model"], whole.started_from["data"]) == (name, "earlier")
    assert whole.licences == {"weights": "MIT"}


def test_the_packaged_model_starts_with_a_new_temporal_part_as_ever() -> None:
    torch.manual_seed(0)
    model = start_run(RunConfig(), num_classes=3, task="single").model
    packaged = load_checkpoint("lite0-16").model
    assert same(model.frame_encoder, packaged.frame_encoder)
    assert not torch.equal(model.temporal_encoder.pos_embed, packaged.temporal_encoder.pos_embed)
    assert model.temporal_encoder.motion is not None
    assert not model.temporal_encoder.motion.kept


@pytest.mark.parametrize("temporal", ["paper", "release", "causal"])
def test_positions_start_as_waves_if_the_frame_encoder_is_frozen(tmp_path: Path, temporal: str) -> None:
    path = str(saved(tmp_path / "model.safetensors", temporal=temporal))
    run = RunConfig(start=path)

    def started(run: RunConfig) -> tuple[str, float]:
        model = start_run(run, num_classes=3, task="single").model
        return model.config.temporal_positions, model.temporal_encoder.pos_embed.detach().std().item()

    name, size = started(run)
    assert name == "waves"
    assert size > 0.2
    for other in (
        replace(run, train=TrainConfig(unfreeze="all")),
        replace(run, model={"temporal_positions": "learned"}),
    ):
        name, size = started(other)
        assert name == "learned"
        assert size < 0.05
    assert started(replace(run, keep_temporal=True))[0] == "learned"


def test_the_release_is_kept_whole_unless_something_else_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's Tables 6 and 7: from Kinetics to other actions."""
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    torch.save({"model": release_state(SMALL_RELEASE)}, tmp_path / "stam.pth")
    path = str(tmp_path / "stam.pth")
    trained = load_checkpoint(path).model
    started = start_run(RunConfig(start=path), num_classes=5, task="single")
    assert same(started.model.temporal_encoder, trained.temporal_encoder)
    assert started.started_from["source"].startswith("2021 release")
    longer = start_run(RunConfig(start=path, model={"num_frames": 16}), num_classes=5, task="single").model
    embeddings_BTD = torch.randn(2, 16, SMALL_RELEASE.width)
    assert_close(longer.eval().encode_video(embeddings_BTD).embedding, trained.encode_video(embeddings_BTD).embedding)
    changes: tuple[dict[str, Any], ...] = ({"temporal": "paper"}, {"temporal_depth": 1}, {"cells": 2})
    others: list[dict[str, Any]] = [{"keep_temporal": False}, *({"model": change} for change in changes)]
    for other in others:
        new = start_run(replace(RunConfig(start=path), **other), num_classes=5, task="single")
        assert new.started_from["kept"] == ["frame encoder"]
        assert not torch.equal(new.model.temporal_encoder.pos_embed, trained.temporal_encoder.pos_embed)


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    path = str(saved(tmp_path / "model.safetensors"))
    for run, words in (
        (RunConfig(start="vit-ti-16"), "'vit-ti-16' is an architecture without trained weights"),
        (RunConfig(start=path, init=path), "needs the frame encoder that it was trained with"),
        (RunConfig(start=path, model={"temporal": "release"}), r"model\.temporal = 'release': the temporal encoder"),
        (RunConfig(start=path, model={"cells": 2}), r"model\.cells = 2: the temporal encoder .* --no-keep-temporal"),
    ):
        with pytest.raises(ConfigError, match=words):
            start_run(replace(run, keep_temporal=True, model={**run.model}), num_classes=5, task="single")
    with pytest.raises(ConfigError, match="head 'solved' does not use keep_temporal"):
        check_settings(RunConfig(start=path, keep_temporal=True, train=TrainConfig(head="solved")))


def test_time_inside_the_frame_encoder_is_kept_for_other_numbers_of_frames(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.safetensors", layout="per_block", temporal="mean")
    trained = load_checkpoint(path).model
    model = start_run(RunConfig(start=str(path), model={"num_frames": 6}), num_classes=3, task="single").model.eval()
    clips_BTCHW = torch.rand(1, 6, 3, 32, 32)
    with torch.no_grad():
        assert_close(model.encode_clips(clips_BTCHW), trained.encode_clips(clips_BTCHW))


def test_a_run_from_a_whole_model_goes_on_and_remembers_its_videos(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields: dict[str, Any] = {
        "temporal_width": 32,
        "motion_width": 16,
        "moment_head": True,
        "temporal_positions": "waves",
    }
    start = saved(tmp_path / "start.safetensors", **fields)
    options, quick = TrainOptions(device="cpu", dtype="float32"), TrainConfig(epochs=1, min_steps=20)
    data = read_data(clips, DataConfig(holdout=0.34))
    run = RunConfig(start=str(start), data=DataConfig(holdout=0.34), train=quick)
    first = train(data, tmp_path / "first", run, options)
    again = replace(run, start=str(tmp_path / "first"), keep_temporal=True, train=replace(quick, learning_rate=1e-9))
    assert "has learned from" not in caplog.text
    second = train(data, tmp_path / "second", again, options)
    assert f"first has learned from {len(data.samples) - 4} of {len(data.samples) - 4} training videos" in caplog.text
    assert "held-out" not in caplog.text
    moved = warnings_of_known(second.checkpoint.provenance["started_from"], [], data.samples)
    assert [
        f"has learned from {len(data.samples) - 4} of {len(data.samples)} held-out videos" in one for one in moved
    ] == [True]
    before, after = load_checkpoint(tmp_path / "first"), load_checkpoint(tmp_path / "second")
    for key, tensor in before.model.temporal_encoder.state_dict().items():
        assert_close(after.model.temporal_encoder.state_dict()[key], tensor, rtol=0, atol=1e-6)
    record = after.provenance["started_from"]
    assert record["kept"] == ["frame encoder", "temporal encoder"]
    assert record["training_videos"] == before.provenance["training_videos"] != []
    others = replace(data, samples=tuple(sample for sample in data.samples if "broken" not in sample.path))
    mine = {**after.provenance, "training_videos": []}
    known = known_facts(others.samples, mine, "")["num_trained_on"]
    assert known == known_facts(others.samples, before.provenance, "")["num_trained_on"] > 0
    assert "training_videos" not in str((tmp_path / "second" / "metrics.json").read_text())
    third = start_run(RunConfig(start=str(tmp_path / "second")), num_classes=2, task="single")
    assert third.started_from["training_videos"] == []  # the frame encoder alone has learned from none of them
    assert asdict(second.checkpoint.model.config)["motion_width"] == 16
    assert first.checkpoint.provenance["started_from"]["kept"] == ["frame encoder"]


# -- encoders of timm ------------------------------------------------------------------------------------------------


@contextmanager
def no_download(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let timm build networks with random weights where it would download them. Yields the names that were asked for."""
    import timm

    create, asked = timm.create_model, []

    def without_download(name: str, *, pretrained: bool, **settings: Any) -> Any:
        if pretrained:
            asked.append(name)
        return create(name, pretrained=False, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(timm, "create_model", without_download)
        yield asked


def test_one_choice_of_an_encoder_brings_its_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm: 160 px, crop 0.95 (160 / 0.95 = 168.4), mean and deviation 0.5, bicubic."""
    name = "test_vit3.r160_in1k"
    with no_download(monkeypatch) as asked:
        started = start_run(RunConfig(model={"encoder": f"timm:{name}"}), num_classes=3, task="single")
    assert asked == [name]
    assert started.view == ViewConfig(resize_px=168, crop_px=160, interpolation="bicubic")
    config, ours = started.model.config, PRESETS["lite0-16"].model
    assert (config.encoder, config.image_size, config.cells) == (f"timm:{name}", 160, 6)
    assert (config.motion_width, config.temporal_width) == (ours.motion_width, ours.temporal_width)
    assert started.licences == {"frame encoder": f"apache-2.0 (timm: {name})"}
    assert started.started_from == {}
    embeddings_MD = started.model.eval().encode_frames(torch.rand(2, 3, 160, 160))
    assert embeddings_MD.shape == (2, started.model.frame_width)


@pytest.mark.parametrize(
    "name", ["test_vit3.r160_in1k", "vit_pe_core_tiny_patch16_384.fb", "vit_small_patch16_dinov3.lvd1689m"]
)
def test_encoders_of_each_kind_embed_and_are_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SigLIP's pooling by attention, PE and DINOv3 (rotary positions, other first tokens), each at a size that was set by hand."""
    run = RunConfig(model={"encoder": f"timm:{name}", "num_frames": 2}, view={"crop_px": 64})
    with no_download(monkeypatch) as asked:
        started = start_run(run, num_classes=3, task="single")
    assert asked == [name]
    model = started.model.eval()
    with torch.no_grad():
        embeddings_MD = model.encode_frames(torch.rand(2, 3, 64, 64))
    assert embeddings_MD.shape == (2, model.frame_width)
    cost = count_cost(model, 2, 64)
    encoder: Any = model.frame_encoder
    pooled_width = model.frame_width - encoder.grid.width
    assert cost.num_parameters == sum(weight.numel() for weight in model.parameters())
    assert cost.gmacs > 2 * 16 * 1e-9 * pooled_width**2  # two frames of 16 patches, through one matrix at least


def test_what_is_set_by_hand_wins_over_the_encoders_own_view(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunConfig(
        model={"encoder": "timm:test_vit.r160_in1k"},
        view={"crop_px": 96, "mean": (0.1, 0.2, 0.3), "interpolation": "bilinear"},
    )
    with no_download(monkeypatch):
        started = start_run(run, num_classes=3, task="single")
    assert (started.view.crop_px, started.view.resize_px) == (96, 101)  # 96 / 0.95 = 101.05
    assert (started.view.mean, started.view.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert started.view.interpolation == "bilinear"
    assert started.model.config.image_size == 96
    assert started.model.frame_encoder.state_dict()["backbone.pos_embed"].shape[1] == 1 + 6 * 6  # patches of 16 px
    by_model = replace(run, view={}, model={**run.model, "image_size": 64})
    with no_download(monkeypatch):
        assert start_run(by_model, num_classes=3, task="single").view.crop_px == 64


def test_an_encoders_weights_may_be_a_file(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("test_vit", num_classes=4)
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, tmp_path / "w.safetensors")
    run = RunConfig(model={"encoder": "timm:test_vit.r160_in1k"}, init=str(tmp_path / "w.safetensors"))
    started = start_run(run, num_classes=3, task="single")
    weights = started.model.frame_encoder.state_dict()["backbone.patch_embed.proj.weight"]
    assert torch.equal(weights, network.state_dict()["patch_embed.proj.weight"])
    assert started.view.crop_px == 160


@pytest.mark.parametrize(
    ("model", "view", "words"),
    [
        ({"encoder": "timm:test_vit.none"}, {}, "timm has no weights 'test_vit.none'; it has test_vit.r160_in1k"),
        ({"encoder": "timm:tset_vit"}, {}, "timm has no network 'tset_vit'; did you mean 'test_vit"),
        ({"encoder": "timm:test_vit"}, {"crop_px": "big"}, "size of frames 'big': needs a number of pixels"),
    ],
)
def test_wrong_encoders_are_refused(model: dict[str, Any], view: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        start_run(RunConfig(model=model, view=view), num_classes=3, task="single")


def test_weights_by_a_timm_name_bring_their_scale_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = replace(VIEW, mean=(0.1, 0.1, 0.1), std=(0.9, 0.9, 0.9))
    fields: dict[str, Any] = {"image_size": 32, "patch_size": 16, "width": 64, "heads": 2, "depth": 6, "mlp_ratio": 3.0}
    model = build_model(replace(TINY, **fields), view)
    save_checkpoint(tmp_path / "model.safetensors", Checkpoint(model, view, LABELS))
    run = RunConfig(start=str(tmp_path), init="test_vit.r160_in1k")
    with no_download(monkeypatch):
        plain = start_run(run, num_classes=3, task="single")
        by_hand = start_run(replace(run, view={"mean": (0.2, 0.2, 0.2)}), num_classes=3, task="single")
    assert (plain.view.mean, plain.view.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (by_hand.view.mean, by_hand.view.std) == ((0.2, 0.2, 0.2), (0.5, 0.5, 0.5))
    assert plain.licences == {"frame encoder": "apache-2.0 (timm: test_vit.r160_in1k)"}


@pytest.mark.parametrize("name", ["authors-issue-2", "authors-issue-9"])
def test_the_authors_run_files_start_as_the_authors_did(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MIIL's weights (their issue 14) on pixels in 0-1, under the published temporal encoder with its dropout."""
    run = read_run(Path(__file__).parents[3] / "runs" / f"{name}.toml")
    assert run.init == MIIL
    smaller = replace(run, model={**run.model, "depth": 12, "num_frames": 2})
    with no_download(monkeypatch) as asked:
        started = start_run(smaller, num_classes=2, task="single")
    assert asked == [MIIL]
    assert started.view == PLAIN_PIXELS
    config = started.model.config
    assert (config.qkv_bias, config.temporal, config.temporal_dropout) == (False, "release", 0.1)
    assert not [key for key in started.model.frame_encoder.state_dict() if key.startswith("head")]


def test_a_preset_that_must_be_pulled_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path))
    assert hub.release_url("stam-32").endswith("stam_32.pth")
    with pytest.raises(Exception, match="fewframes models pull stam-32"):
        start_run(RunConfig(start="stam-32"), num_classes=3, task="single")
