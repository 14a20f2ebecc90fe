"""What timm says of its weights: the view that they see frames by, their licence, and their own shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from fewframes.errors import ConfigError, WeightsError
from fewframes.models.config import ModelConfig
from fewframes.models.files.image_weights import start_model
from fewframes.models.files.timm_weights import is_timm_name, timm_licence, timm_view
from fewframes.video.view import ViewConfig
from helpers.models import TINY

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize(
    ("name", "size", "resize_px", "crop_px", "pixels", "licence"),
    [
        ("vit_base_patch16_clip_224.openai", None, 248, 224, CLIP, "apache-2.0"),  # 224 / 0.9 = 248.9
        ("vit_base_patch16_siglip_224.v2_webli", None, 248, 224, HALF, "apache-2.0"),
        ("vit_base_patch16_siglip_224.v2_webli", 384, 426, 384, HALF, "apache-2.0"),  # 384 / 0.9 = 426.7
        ("vit_pe_core_base_patch16_224.fb", None, 224, 224, HALF, "apache-2.0"),
        ("vit_small_patch16_dinov3.lvd1689m", None, 256, 256, IMAGENET, "dinov3-license"),
    ],
)
def test_the_view_is_that_of_the_weights(
    name: str,
    size: int | None,
    resize_px: int,
    crop_px: int,
    pixels: dict[str, tuple[float, float, float]],
    licence: str,
) -> None:
    view = ViewConfig(**timm_view(name, size))
    assert view == ViewConfig(resize_px=resize_px, crop_px=crop_px, interpolation="bicubic", **pixels)  # type: ignore[arg-type]
    assert timm_licence(name).partition("; ")[0] == f"{licence} (timm: {name})"


def test_miils_weights_take_plain_pixels() -> None:
    view = timm_view("vit_base_patch16_224_miil.in21k")
    assert (view["mean"], view["std"], view["interpolation"], view["resize_px"]) == (
        (0, 0, 0),
        (1, 1, 1),
        "bilinear",
        256,
    )


def test_names_that_timm_does_not_have() -> None:
    assert is_timm_name("resnet18.a1_in1k")
    assert not is_timm_name("resnet18.no_such_tag")
    assert not is_timm_name("model.safetensors")
    with pytest.raises(ConfigError, match="did you mean 'vit_base_patch16_siglip_224'"):
        timm_view("vit_base_patch16_siglop_224")
    with pytest.raises(ConfigError, match=r"no weights 'resnet18\.no_such_tag'; it has .*resnet18\.a1_in1k"):
        timm_view("resnet18.no_such_tag")


def miil_file(folder: Path, *, qkv_bias: bool) -> Path:
    """Write a small ViT as MIIL publishes theirs: a pickle, with the classifier of 21k classes (here 5)."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(1)
    network = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=3, num_classes=5, qkv_bias=qkv_bias
    )
    torch.save({"state_dict": network.state_dict()}, folder / "miil.pth")
    return folder / "miil.pth"


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_a_bias_of_qkv_is_read_from_the_weights(tmp_path: Path, qkv_bias: bool) -> None:
    from timm.models.vision_transformer import VisionTransformer

    path = miil_file(tmp_path, qkv_bias=qkv_bias)
    model = start_model(TINY, ViewConfig(resize_px=36, crop_px=32), str(path)).eval()
    assert model.config == replace(TINY, qkv_bias=qkv_bias)
    theirs = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=3, num_classes=0, qkv_bias=qkv_bias
    ).eval()
    state = torch.load(path)["state_dict"]
    theirs.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("head.")})
    pixels_MCHW = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.forward_features((pixels_MCHW - 0.5) / 0.5)[:, 0]
        assert_close(model.encode_frames(pixels_MCHW), expected)


def test_a_bias_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    path = miil_file(tmp_path, qkv_bias=False)
    with pytest.raises(WeightsError, match=r"1 missing: blocks\.0\.attn\.qkv\.bias"):
        start_model(TINY, ViewConfig(resize_px=36, crop_px=32), str(path), chosen={"qkv_bias"})


@pytest.mark.parametrize("name", ["test_vit", "test_vit4"])
def test_positions_of_timms_networks_are_resampled_for_another_size(tmp_path: Path, name: str) -> None:
    import timm

    torch.manual_seed(2)
    network: Any = timm.create_model(name, num_classes=3)  # for 160 px
    save_file(
        {key: tensor.contiguous() for key, tensor in network.state_dict().items()}, tmp_path / "weights.safetensors"
    )
    config = ModelConfig(encoder=f"timm:{name}", image_size=96, temporal="mean", num_classes=3)
    view = ViewConfig(resize_px=96, crop_px=96)
    model = start_model(config, view, str(tmp_path / "weights.safetensors")).eval()
    network.eval().set_input_size((96, 96))
    network.reset_classifier(0)
    pixels_MCHW = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert_close(model.encode_frames(pixels_MCHW), network((pixels_MCHW - 0.5) / 0.5), rtol=1e-4, atol=1e-4)
