"""Frame encoders by name: their `width` is right, and Lite0 equals timm's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fewframes.errors import ConfigError
from fewframes.models.backbones import EfficientNetLite0, _fused_dtypes, timm_frame_encoder
from helpers.models import with_statistics

NUM_RESIDUALS = 9
"""The number of blocks of Lite0 that add their input: all but the first of each stage."""


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet18", "vit_tiny_patch16_224"])
def test_timm_backbones_give_their_width(name: str) -> None:
    encoder = timm_frame_encoder(name, image_size=64).eval()
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, encoder.width)


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="timm has no backbone 'resnet_50'; did you mean 'resnet50"):
        timm_frame_encoder("resnet_50", image_size=224)


@pytest.mark.parametrize("side", [64, 65, 97])
def test_lite0_is_timms(side: int) -> None:
    import timm

    reference = with_statistics(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    ours = EfficientNetLite0().eval()
    ours.load_state_dict(reference.state_dict())
    frames_MCHW = torch.randn(2, 3, side, side)
    assert_close(ours(frames_MCHW), reference(frames_MCHW))


def test_cells_append_where_things_are() -> None:
    torch.manual_seed(0)
    plain, celled = EfficientNetLite0().eval(), EfficientNetLite0(cells=3).eval()
    celled.load_state_dict(plain.state_dict())
    frames_MCHW = torch.rand(2, 3, 96, 96)
    assert celled(frames_MCHW).shape == (2, celled.width) == (2, 1280 + 9 * 112)
    assert_close(celled(frames_MCHW)[:, :1280], plain(frames_MCHW))
    mirrored = celled(frames_MCHW.flip(-1))
    assert not torch.allclose(mirrored[:, 1280:], celled(frames_MCHW)[:, 1280:])


def test_folded_norms_are_the_same_function() -> None:
    network = with_statistics(EfficientNetLite0())
    folded = copy.deepcopy(network)
    assert isinstance(folded, EfficientNetLite0)
    folded.fold_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    frames_MCHW = torch.randn(2, 3, 64, 64)
    assert_close(folded(frames_MCHW), network(frames_MCHW), rtol=1e-4, atol=1e-3)
    folded.fold_norms()  # a second time changes nothing
    assert_close(folded(frames_MCHW), network(frames_MCHW), rtol=1e-4, atol=1e-3)


def fused_calls(network: nn.Module, frames_MCHW: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the output of the network at inference, and the number of its convolutions that oneDNN fused."""
    with torch.inference_mode(), torch.profiler.profile() as profile:
        embeddings_MD = network(frames_MCHW)
    return embeddings_MD, sum("_convolution_pointwise" in event.name for event in profile.events())


@pytest.mark.parametrize("side", [64, 65, 97])
@pytest.mark.skipif(not _fused_dtypes(), reason="nothing is fused on this processor")
def test_fused_convolutions_are_the_same_function(side: int) -> None:
    torch.manual_seed(0)
    network = EfficientNetLite0(cells=3).eval()
    network.fold_norms()
    network.to(memory_format=torch.channels_last)
    frames_MCHW = torch.randn(2, 3, side, side).contiguous(memory_format=torch.channels_last)
    untouched_MCHW = frames_MCHW.clone()
    with torch.no_grad():
        slow_MD = network(frames_MCHW)  # without gradients, but not in inference mode
    fused_MD, calls = fused_calls(network, frames_MCHW)
    assert calls == 1 + 1 + 2 * 15 + 1 + NUM_RESIDUALS
    assert_close(fused_MD, slow_MD, rtol=1e-5, atol=1e-5)
    assert_close(frames_MCHW, untouched_MCHW, rtol=0, atol=0)
    again_MD, _ = fused_calls(network, frames_MCHW)
    assert_close(again_MD, fused_MD, rtol=0, atol=0)  # nothing remains of sums that were made in place


def test_nothing_is_fused_where_norms_are_not_folded_or_gradients_are_wanted() -> None:
    network = EfficientNetLite0().eval()
    frames_MCHW = torch.randn(1, 3, 64, 64)
    assert fused_calls(network, frames_MCHW)[1] == 0
    network.fold_norms()
    network(frames_MCHW).sum().backward()
    assert network.conv_stem.weight.grad is not None
