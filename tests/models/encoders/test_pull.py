"""Frame encoders by name, from files of weights: what they compute and how they see frames is what their library does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.backbones import parted_timm_name
from fewframes.models.encoders.listed import ENCODERS
from fewframes.models.encoders.named import named_encoder
from fewframes.models.encoders.pull import pull_encoder
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import read_header
from fewframes.models.files.names import encoder_path, find_model
from fewframes.models.layers import pixels_of
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.video.transforms import fit_frame
from fewframes.video.view import ViewConfig

GAIN = 1.5
"""The factor of the weights of `fill`, with which the signal neither dies nor grows in any family."""
SHALLOW: dict[str, Any] = {"depth": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "CLIP": ("vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", SHALLOW, [-1.0163, 0.4759, 0.974, 2.3431, 0.7827]),
    "SigLIP 2": ("vit_base_patch32_siglip_256.v2_webli", SHALLOW, [0.1681, -0.2671, -0.4857, -0.2741, 0.2133]),
    "PE-Core": ("vit_pe_core_tiny_patch16_384.fb", SHALLOW, [-0.1413, -0.0336, 0.0282, -0.0999, 0.1387]),
    "DINOv3 ViT": ("vit_small_patch16_dinov3.lvd1689m", SHALLOW, [-0.3455, -1.1096, -1.1888, -0.6515, 0.5162]),
    "DINOv3 ConvNeXt": (
        "convnext_tiny.dinov3_lvd1689m",
        {"depths": (1, 1, 1, 1)},
        [-2.0438, -2.2862, -1.758, -0.3157, 0.8129],
    ),
    "EVA02": ("eva02_tiny_patch14_336.mim_in22k_ft_in1k", SHALLOW, [-0.2813, 1.3665, 1.8351, 1.3342, 0.8576]),
    "TIPSv2": ("vit_base_patch14_reg1_tipsv2.webli", SHALLOW, [1.8143, -0.7017, -1.6299, -0.6611, 0.7650]),
    "ViT": ("vit_tiny_patch16_224.augreg_in21k", SHALLOW, [-1.1057, -0.3366, 1.5417, 0.7965, 0.8803]),
    "MobileNetV4": ("mobilenetv4_conv_small.e2400_r224_in1k", {}, [0.3986, 0.0, 0.0, 0.0, 0.0672]),
    "EfficientNet-Lite": ("tf_efficientnet_lite0.in1k", {}, [0.0, 0.0, 0.0, 0.0, 0.1009]),
    "FastViT": ("fastvit_t8.apple_in1k", {"layers": (1, 1, 1, 1)}, [-0.0186, 0.0067, 0.0204, 0.9205, 0.1374]),
    "MobileCLIP": (
        "fastvit_mci0.apple_mclip2_dfndr2b",
        {"layers": (1, 1, 1, 1)},
        [0.0995, 0.1601, 0.1985, 0.0474, 0.0526],
    ),
}
"""A small network of each family, what makes it smaller still, and golden numbers of the embedding of `frame`: the first four,
and the mean of all without their signs."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWFRAMES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[float]]:
    """A name of timm whose network is built with fewer blocks, in our code as in the test, and its golden numbers."""
    name, smaller, golden = FAMILIES[request.param]
    if timm.get_pretrained_cfg(name, allow_unregistered=True) is None:
        pytest.skip(f"timm {timm.__version__} is older than {name}")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: create(name, **smaller, **settings))
    return name, golden


def fill(network: nn.Module) -> nn.Module:
    """Give every weight a value that depends on nothing but its place, so that results are the same everywhere."""
    with torch.no_grad():
        for number, (key, weight) in enumerate(sorted(network.state_dict().items())):
            if weight.is_floating_point() and "running_var" not in key:
                places = torch.arange(weight.numel(), dtype=torch.float64)
                waves = torch.sin(0.7 * places + number) * torch.cos(0.0137 * places * (1 + number % 7))
                is_scale = weight.ndim == 1 and key.endswith("weight")
                size = 0.2 if weight.ndim < 2 else GAIN / math.sqrt(weight[0].numel())
                weight.copy_((waves * size + is_scale).reshape(weight.shape))
    return network.eval()


def published(name: str, path: Path) -> nn.Module:
    """Return a network of timm with its own classifier, and write its weights as they are published."""
    network = fill(timm.create_model(name, pretrained=False))
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    return network


def frame(height: int = 300, width: int = 404) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture with soft and hard edges: (H, W, C) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    soft = [127 + 100 * np.sin(x / 23 + y / 41), 90 + 60 * np.cos(y / 17), (x + y) % 256 * 0.9]
    picture = np.stack(soft, axis=-1)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 60)
    return picture.clip(0, 255).astype(np.uint8)


def test_pixels_and_embeddings_are_those_of_timm(family: tuple[str, list[float]], tmp_path: Path) -> None:
    name, golden = family
    theirs: Any = published(name, tmp_path / "weights.safetensors")
    path = pull_encoder(f"timm:{name}", file=tmp_path / "weights.safetensors")
    assert find_model(f"timm:{name}") == path == encoder_path(f"timm:{name}")
    checkpoint = load_checkpoint(f"timm:{name}")

    data: Any = timm.data
    transform = data.create_transform(**data.resolve_data_config({}, model=theirs))
    normalised_MCHW = transform(Image.fromarray(frame()))[None]
    ours_CHW = fit_frame(frame().transpose(2, 0, 1), checkpoint.view)
    mean, std = (torch.tensor(getattr(checkpoint.view, name)).view(3, 1, 1) for name in ("mean", "std"))
    levels = 255 * (normalised_MCHW[0] * std + mean)
    # timm resizes the frame and then crops; here only the crop is computed: at most 2 levels of 255.
    difference = (torch.from_numpy(ours_CHW.copy()).float() - levels).abs()
    assert difference.max() < 2.01
    assert difference.mean() < 0.3

    theirs.reset_classifier(0)
    pixels_MCHW = pixels_of(torch.from_numpy(ours_CHW.copy())[None])
    with torch.inference_mode():
        expected_MD = theirs((pixels_MCHW - mean) / std)
        embedding_MD = checkpoint.model.encode_frames(pixels_MCHW)
    torch.testing.assert_close(embedding_MD, expected_MD, atol=1e-5, rtol=1e-5)
    numbers = [*embedding_MD[0, :4].tolist(), float(embedding_MD.abs().mean())]
    np.testing.assert_allclose(numbers, golden, rtol=2e-3, atol=2e-4)
    # The runtime merges branches where timm can (FastViT), which adds in another order.
    merged_MD = TorchRuntime(checkpoint, name=name, device="cpu", dtype="float32").embed_frames(ours_CHW[None])
    np.testing.assert_allclose(merged_MD, expected_MD, atol=1e-4, rtol=1e-3)


def test_the_file_tells_the_licence_and_where_it_comes_from(tmp_path: Path) -> None:
    name = "test_vit.r160_in1k"
    published(name, tmp_path / "model.safetensors")
    path = pull_encoder(f"timm:{name}", file=tmp_path)  # a folder, as the hub has it
    header = read_header(path)
    assert header is not None
    assert header["licences"] == {"frame encoder": f"apache-2.0 (timm: {name})"}
    record = header["provenance"]["encoder"]
    assert (record["name"], record["weights"]) == (f"timm:{name}", str(tmp_path))
    assert record["versions"] == {"timm": timm.__version__}
    first = load_checkpoint(path).model.state_dict()
    assert pull_encoder(f"timm:{name}", file=tmp_path / "model.safetensors") == path
    again = load_checkpoint(path).model.state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())


@pytest.mark.parametrize("pooling", ["class", "mean", "class+mean"])
def test_what_is_taken_of_the_tokens_can_be_chosen(pooling: str, tmp_path: Path) -> None:
    name = "test_vit.r160_in1k"
    theirs: Any = published(name, tmp_path / "weights.safetensors")
    pull_encoder(f"timm:{name}", file=tmp_path / "weights.safetensors")
    pull_encoder(f"timm:{name}@{pooling}")  # has the weights that are stored already
    model = load_checkpoint(f"timm:{name}@{pooling}").model
    pixels_MCHW = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        tokens_MND = theirs.forward_features((pixels_MCHW - 0.5) / 0.5)
        parts = {"class": tokens_MND[:, 0], "mean": tokens_MND[:, 1:].mean(1)}
        expected_MD = torch.cat([theirs.fc_norm(parts[part]) for part in pooling.split("+")], dim=1)
        torch.testing.assert_close(model.encode_frames(pixels_MCHW), expected_MD, atol=1e-5, rtol=1e-5)
    assert model.frame_width == expected_MD.shape[1]


def test_poolings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="after @ stands what is taken of its tokens: class, mean, class"):
        parted_timm_name("test_vit@first")
    for name, reason in (
        ("resnet18.a1_in1k@mean", "this network has maps and no tokens"),
        ("test_vit3.r160_in1k@class", "this network has no class token; take @mean"),
    ):
        with pytest.raises(ConfigError, match=reason):
            pull_encoder(f"timm:{name}", file=__file__)


def test_weights_that_are_missing_or_of_another_network_are_refused(tmp_path: Path) -> None:
    name = "timm:test_vit.r160_in1k"
    with pytest.raises(
        WeightsError, match=f"was not fetched yet; fetch it: fewframes models pull {name}; without a network"
    ):
        find_model(name)
    with pytest.raises(WeightsError, match="no such file; name the file that has the weights of timm:test_vit"):
        pull_encoder(name, file=tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match=r"a folder without model\.safetensors or"):
        pull_encoder(name, file=tmp_path)
    published("test_efficientnet.r160_in1k", tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="its weights do not fit this network"):
        pull_encoder(name, file=tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="timm has no network 'tset_vit'; did you mean 'test_vit"):
        pull_encoder("timm:tset_vit", file=tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="not the name of a frame encoder; write timm:NAME or clip:ARCHITECTURE/TAG"):
        encoder_path("timm:../../somewhere")
    assert not (tmp_path / "cache").exists()


def test_a_changed_file_is_not_used(tmp_path: Path) -> None:
    published("test_vit.r160_in1k", tmp_path / "weights.safetensors")
    path = pull_encoder("timm:test_vit.r160_in1k", file=tmp_path / "weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="pull it again: fewframes models pull timm:test_vit"):
        find_model("timm:test_vit.r160_in1k")


@pytest.mark.parametrize(
    "name", ["clip:ViT-B-32-256/datacomp_s34b_b86k", "clip:PE-Core-B-16/meta", "clip:MobileCLIP2-S0/dfndr2b"]
)
def test_frames_are_seen_as_open_clip_sees_them(name: str) -> None:
    """The transform is made from what open_clip states of the weights; the towers themselves are compared in test_image_text.py."""
    open_clip = pytest.importorskip("open_clip")
    architecture, tag = name.removeprefix("clip:").split("/")
    stated = open_clip.get_pretrained_cfg(architecture, tag)
    view = ViewConfig(**named_encoder(name).view)
    known = {key: stated[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in stated}
    transform = open_clip.image_transform(ENCODERS[name].image_px, is_train=False, **known)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (view.mean, view.std))
    levels = 255 * (transform(Image.fromarray(frame())) * std + mean)
    difference = (torch.from_numpy(fit_frame(frame().transpose(2, 0, 1), view).copy()).float() - levels).abs()
    assert difference.max() < 2.01
    assert difference.mean() < 0.3
