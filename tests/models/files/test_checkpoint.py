"""Weights: strict model files, files of the 2021 release, timm's names, and machines without a network."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.backbones import LITES, EfficientNetLite
from fewframes.models.config import ModelConfig
from fewframes.models.files import hub
from fewframes.models.files.checkpoint import Checkpoint, save_checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.files.networks import build_model
from fewframes.models.files.release import load_release
from fewframes.models.presets import PRESETS, RELEASE
from fewframes.models.stam import STAM
from fewframes.video.view import ViewConfig
from helpers.models import SMALL_RELEASE, release_state

TINY = ModelConfig(
    image_size=32, patch_size=8, width=48, depth=2, heads=3, temporal_depth=1, temporal_heads=4, num_frames=4, num_classes=3
)  # fmt: skip
VIEW = ViewConfig(resize_px=36, crop_px=32)
LABELS = ("hug", "kick", "push")


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        build_model(TINY, VIEW).eval(), VIEW, LABELS, {"data": "made"}, {"top1": 0.5}, {"weights": "Apache-2.0"}
    )


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    return tmp_path / "model.safetensors"


def test_one_file_is_the_whole_model(checkpoint: Checkpoint, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.model.config == TINY
    assert loaded.view == VIEW
    assert loaded.labels == LABELS
    assert (loaded.provenance, loaded.metrics, loaded.licences) == (
        {"data": "made"}, {"top1": 0.5}, {"weights": "Apache-2.0"}
    )  # fmt: skip
    video_BTCHW = torch.rand(1, 4, 3, 32, 32)
    assert_close(loaded.model(video_BTCHW), checkpoint.model(video_BTCHW), rtol=0, atol=0)
    assert not loaded.model.training


@pytest.mark.parametrize("changes", [{}, {"cell_width": 5}, {"cells_layer": 1}, {"encoder": "lite0", "cells_layer": 3}])
def test_cells_travel_with_the_file(changes: dict[str, Any], tmp_path: Path) -> None:
    """The projection is random, and is the same after loading."""
    torch.manual_seed(0)
    model = build_model(replace(TINY, **{"cells": 2, **changes}), VIEW).eval()
    save_checkpoint(tmp_path / "cells.safetensors", Checkpoint(model, VIEW, LABELS))
    torch.manual_seed(1)
    loaded = load_checkpoint(tmp_path / "cells.safetensors").model
    assert loaded.config == model.config
    frames_MCHW = torch.rand(2, 3, 32, 32)
    assert_close(loaded.frame_encoder(frames_MCHW), model.frame_encoder(frames_MCHW), rtol=0, atol=0)
    video_BTCHW = torch.rand(1, 4, 3, 32, 32)
    assert_close(loaded(video_BTCHW), model(video_BTCHW), rtol=0, atol=0)


def test_half_precision_file_is_half_the_size(checkpoint: Checkpoint, saved: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, checkpoint, dtype=torch.float16)
    assert half.stat().st_size < 0.6 * saved.stat().st_size
    loaded = load_checkpoint(half).model
    assert next(loaded.parameters()).dtype == torch.float32
    video_BTCHW = torch.rand(1, 4, 3, 32, 32)
    assert_close(loaded(video_BTCHW), checkpoint.model(video_BTCHW), rtol=1e-2, atol=1e-2)


def test_labels_must_match_classes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, labels=("a", "b")))
    assert not list(tmp_path.iterdir())


def rewritten(path: Path, change: Any = None, **header_changes: Any) -> Path:
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["fewframes"])
    header.update(header_changes)
    if change is not None:
        change(tensors)
    save_file(tensors, path, metadata={"fewframes": json.dumps(header)})
    return path


def test_missing_unknown_and_misshaped_keys_are_listed(saved: Path) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors["head.wieght"] = tensors.pop("head.weight")
        tensors["head.bias"] = torch.zeros(7)

    with pytest.raises(WeightsError) as caught:
        load_checkpoint(rewritten(saved, damage))
    message = str(caught.value)
    assert "1 missing: head.weight" in message
    assert "1 unknown: head.wieght" in message
    assert "head.bias is (7,), not (3,)" in message


def test_newer_files_and_other_sampling_are_refused(saved: Path) -> None:
    with pytest.raises(WeightsError, match="install a newer one"):
        load_checkpoint(rewritten(saved, format=99))
    with pytest.raises(WeightsError, match="sampling 'dense'"):
        load_checkpoint(rewritten(saved, format=1, sampling="dense"))


def test_unknown_architecture_key_is_refused(saved: Path) -> None:
    with pytest.raises(WeightsError, match="unknown setting 'colour'"):
        load_checkpoint(rewritten(saved, model={"colour": 1}))


def test_a_save_that_fails_leaves_the_old_file(
    checkpoint: Checkpoint, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("fewframes.models.files.model_file._bytes_of", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, checkpoint)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# -- the 2021 release ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [True, False])
def test_release_layout_loads(tmp_path: Path, wrapped: bool) -> None:
    state = release_state(SMALL_RELEASE)
    torch.save({"model": state} if wrapped else state, tmp_path / "stam.pth")
    loaded = load_checkpoint(tmp_path / "stam.pth")
    assert loaded.model.config == SMALL_RELEASE
    assert loaded.view.mean == (0.0, 0.0, 0.0)
    assert_close(loaded.model.head.weight, state["head.weight"])
    assert_close(
        loaded.model.temporal_encoder.blocks[1].attn.qkv.weight,  # type: ignore[union-attr]
        state["aggregate.transformer_enc.layers.1.self_attn.in_proj_weight"],
    )
    assert loaded.model(torch.rand(1, 8, 3, 64, 64)).shape == (1, 11)


def test_full_size_release_loads_strictly(tmp_path: Path) -> None:
    torch.save({"model": release_state(RELEASE)}, tmp_path / "stam_16.pth")
    loaded = load_release(tmp_path / "stam_16.pth")
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 119_205_520
    assert loaded.model.config == PRESETS["stam-16"].model
    assert len(loaded.labels) == 400
    assert loaded.labels[:2] == ("abseiling", "air drumming")
    assert list(loaded.labels) == sorted(loaded.labels)


def test_release_with_a_key_missing_is_refused(tmp_path: Path) -> None:
    state = release_state(SMALL_RELEASE)
    del state["blocks.1.mlp.fc2.bias"]
    torch.save({"model": state}, tmp_path / "stam.pth")
    with pytest.raises(WeightsError, match=r"1 missing: frame_encoder\.blocks\.1\.mlp\.fc2\.bias"):
        load_checkpoint(tmp_path / "stam.pth")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_pickles_with_code_are_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": Evil()}, protocol=2))
    torch.save({"model": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(WeightsError, match="not a file of plain tensors"):
            load_checkpoint(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80\x02junk", b"PK\x03\x04junk", bytes(1000)])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth"):
        load_checkpoint(tmp_path / "x.pth")


def test_a_folder_without_a_model_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a folder without model\.safetensors, and no preset of that name"):
        load_checkpoint(str(tmp_path))


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"did you mean 'stam-16'\?"):
        load_checkpoint("stam_16")
    with pytest.raises(WeightsError, match="train it: fewframes train FOLDER --model vit-s-16"):
        load_checkpoint("vit-s-16")


# -- pulling ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_stam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a file that can stand for the weights of stam-8, and set a cache folder for the test."""
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    torch.save({"model": release_state(SMALL_RELEASE)}, tmp_path / "stam_8.pth")
    return tmp_path / "stam_8.pth"


def test_pull_takes_a_file_and_remembers_its_hash(small_stam: Path) -> None:
    with pytest.raises(WeightsError, match="fewframes models pull stam-8"):
        load_checkpoint("stam-8")
    blocks: list[int] = []
    path = hub.pull("stam-8", file=str(small_stam), progress=lambda done, total: blocks.append(done))
    assert path.read_bytes() == small_stam.read_bytes()
    assert blocks[-1] == small_stam.stat().st_size
    assert load_checkpoint("stam-8").model.config == SMALL_RELEASE
    with path.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"x")
    with pytest.raises(WeightsError, match="not the file that was pulled"):
        load_checkpoint("stam-8")


def test_pull_refuses_what_does_not_load(small_stam: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="built for 8 frames; 'stam-16' has 16"):
        hub.pull("stam-16", file=str(small_stam))
    (tmp_path / "page.html").write_text("<html>not found</html>")
    with pytest.raises(WeightsError):
        hub.pull("stam-8", file=str(tmp_path / "page.html"))
    with pytest.raises(WeightsError, match="no/such: cannot be read"):
        hub.pull("stam-8", file="no/such")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_pull_into_a_folder_that_is_none(small_stam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("text")
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "mine"))
    with pytest.raises(WeightsError, match=r"stam_8\.pth: cannot be fetched and stored as .*mine"):
        hub.pull("stam-8", file=str(small_stam))
    assert (tmp_path / "mine").read_text() == "text"


def test_pull_downloads(small_stam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "RELEASE_URL", f"file://{small_stam.parent}/stam_{{num_frames}}.pth")
    assert hub.pull("stam-8").read_bytes() == small_stam.read_bytes()


def test_pull_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "RELEASE_URL", "http://127.0.0.1:9/stam_{num_frames}.pth")
    with pytest.raises(WeightsError, match=r"cannot be fetched .* fewframes models pull stam-16 --file stam_16\.pth"):
        hub.pull("stam-16")


def test_only_published_weights_can_be_pulled() -> None:
    with pytest.raises(WeightsError, match=r"no weights to pull; these presets have: stam-8, stam-16"):
        hub.pull("vit-s-16")
    with pytest.raises(ConfigError, match="did you mean"):
        hub.pull("stam16")


# -- starting from image weights -------------------------------------------------------------------------------------


def timm_vit_file(tmp_path: Path, image_size: int = 32) -> Path:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(3)
    reference = VisionTransformer(img_size=image_size, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=7)
    save_file(reference.state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def test_start_from_a_file_of_timm_weights(tmp_path: Path) -> None:
    path = timm_vit_file(tmp_path)
    model = start_model(TINY, VIEW, str(path))
    assert_close(model.frame_encoder.state_dict()["pos_embed"], load_file(path)["pos_embed"])
    assert isinstance(model, STAM)


def test_positions_are_resized_for_another_grid(tmp_path: Path) -> None:
    model = start_model(TINY, VIEW, str(timm_vit_file(tmp_path, image_size=64)))
    assert model.frame_encoder.state_dict()["pos_embed"].shape == (1, 17, 48)


@pytest.mark.parametrize("layout", ["joint", "per_block"])
def test_image_weights_start_the_other_layouts(tmp_path: Path, layout: str) -> None:
    model = start_model(replace(TINY, layout=layout), VIEW, str(timm_vit_file(tmp_path)))  # type: ignore[arg-type]
    assert model(torch.rand(1, 4, 3, 32, 32)).shape == (1, 3)


def test_start_from_our_own_model(saved: Path, checkpoint: Checkpoint) -> None:
    model = start_model(replace(TINY, temporal="mean", num_classes=9), VIEW, str(saved))
    frames_MCHW = torch.rand(2, 3, 32, 32)
    assert_close(model.encode_frames(frames_MCHW), checkpoint.model.encode_frames(frames_MCHW))


def test_start_from_timm_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model
    asked: list[tuple[str, bool]] = []

    def without_download(name: str, *, pretrained: bool, **settings: Any) -> Any:
        asked.append((name, pretrained))
        torch.manual_seed(5)
        return create(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", without_download)
    config = ModelConfig(encoder="timm:resnet18", image_size=32, num_classes=3, temporal_depth=1, num_frames=4)
    model = start_model(config, VIEW, "resnet18.a1_in1k")
    assert set(asked) == {("resnet18", False), ("resnet18.a1_in1k", True)}
    torch.manual_seed(5)
    expected = create("resnet18", num_classes=0)
    assert_close(model.frame_encoder.state_dict()["backbone.conv1.weight"], expected.state_dict()["conv1.weight"])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="of another shape"):
        start_model(replace(TINY, width=96), VIEW, str(timm_vit_file(tmp_path)))


def test_model_and_view_must_agree() -> None:
    with pytest.raises(ConfigError, match="takes frames of 32 px but the view makes 224 px"):
        build_model(TINY, ViewConfig())


def other_lite(path: Path, multipliers: tuple[float, float]) -> tuple[Path, EfficientNetLite]:
    """Write weights of an EfficientNet-Lite under names of another kind, in the same order and with a classifier."""
    network = EfficientNetLite(multipliers=multipliers)
    state = {f"_blocks.{number}": tensor for number, tensor in enumerate(network.state_dict().values()) if tensor.ndim}
    state = {"_conv_stem.weight": state.pop("_blocks.0"), **state, "_fc.weight": torch.zeros(1000, 1280)}
    torch.save(state, path)
    return path, network


@pytest.mark.parametrize("encoder", LITES)
def test_an_efficientnet_lite_starts_from_weights_of_the_other_naming(encoder: str, tmp_path: Path) -> None:
    path, network = other_lite(tmp_path / "lite.pth", LITES[encoder])
    model = start_model(replace(TINY, encoder=encoder, cells=2), VIEW, str(path))
    for name, tensor in model.frame_encoder.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


def test_a_grid_of_another_model_keeps_its_projection_where_it_fits(tmp_path: Path) -> None:
    config = replace(TINY, encoder="lite0", cells=3, cell_width=4)
    model = build_model(config, VIEW)
    key = "grid.reduce.weight"
    model.frame_encoder.state_dict()[key].fill_(0.5)
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(model, VIEW, LABELS))

    def started(**changes: Any) -> dict[str, torch.Tensor]:
        other = start_model(replace(config, **changes), VIEW, str(tmp_path / "m.safetensors"))
        state = other.frame_encoder.state_dict()
        assert torch.equal(state["conv_stem.weight"], model.frame_encoder.state_dict()["conv_stem.weight"])
        return state

    assert (started(cells=2)[key] == 0.5).all()
    assert started(cell_width=8)[key].shape == (8, 112, 1, 1)
    assert not (started(cells_layer=4)[key] == 0.5).any()
    assert key not in started(cells=0, cell_width=None)


@pytest.mark.parametrize(
    ("encoder", "other", "message"),
    [
        (
            "lite0",
            "lite1",
            "320 tensors of an EfficientNet-Lite and this network has 245; take the file of the same size",
        ),
        ("lite1", "lite2", r"_blocks.\d+ is .* of this network is .*; take the file of the same size"),
    ],
)
def test_weights_of_another_efficientnet_lite_are_refused(
    encoder: str, other: str, message: str, tmp_path: Path
) -> None:
    path, _ = other_lite(tmp_path / "lite.pth", LITES[other])
    with pytest.raises(WeightsError, match=message):
        start_model(replace(TINY, encoder=encoder), VIEW, str(path))
