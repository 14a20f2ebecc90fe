"""Frame encoders by name: their `width` is right, each Lite equals timm's, and cells come last."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fewframes.errors import ConfigError
from fewframes.models.backbones import LITES, EfficientNetLite, _fused_dtypes, _timm_level, timm_frame_encoder
from fewframes.models.config import LITE_ENCODERS, NUM_LITE_STAGES
from fewframes.models.layers import FrameGrid
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


def test_unknown_backbone_that_is_near_none_lists_none() -> None:
    match = r"^timm has no backbone 'qqqqqqqq'; none of the \d+ known names is close to it; check the spelling$"
    with pytest.raises(ConfigError, match=match):
        timm_frame_encoder("qqqqqqqq", image_size=224)


@pytest.mark.parametrize(("name", "side"), [("lite0", 64), ("lite0", 65), ("lite0", 97), ("lite1", 65), ("lite2", 64)])
def test_lites_are_timms(name: str, side: int) -> None:
    import timm

    reference = with_statistics(timm.create_model(f"tf_efficientnet_{name}", num_classes=0))
    ours = EfficientNetLite(multipliers=LITES[name]).eval()
    assert list(ours.state_dict()) == list(reference.state_dict())
    ours.load_state_dict(reference.state_dict())
    frames_MCHW = torch.randn(2, 3, side, side)
    assert_close(ours(frames_MCHW), reference(frames_MCHW))


def test_every_lite_can_be_named() -> None:
    assert tuple(LITES) == LITE_ENCODERS
    assert len(EfficientNetLite.STAGES) == NUM_LITE_STAGES


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0"])
def test_timm_encoders_append_cells_of_a_middle_layer(name: str) -> None:
    """The default is the last map at a stride of 16, or the block at two thirds of a ViT's depth."""
    torch.manual_seed(0)
    default_layer, channels = {"resnet18": (4, 256), "vit_tiny_patch16_224": (8, 192)}.get(name, (4, 112))
    celled = timm_frame_encoder(name, image_size=64, cells=2).eval()
    plain = timm_frame_encoder(name, image_size=64).eval()
    named = timm_frame_encoder(name, image_size=64, cells=2, cells_layer=default_layer).eval()
    for one in (plain, named):
        one.load_state_dict(celled.state_dict())
    frames_MCHW = torch.rand(2, 3, 64, 64)
    embeddings_MD, pooled_MD = celled(frames_MCHW), plain(frames_MCHW)
    assert embeddings_MD.shape == (2, celled.width) == (2, plain.width + 4 * channels)
    assert_close(embeddings_MD[:, : plain.width], pooled_MD)
    assert_close(named(frames_MCHW), embeddings_MD, rtol=0, atol=0)
    assert not torch.allclose(celled(frames_MCHW.flip(-1))[:, plain.width :], embeddings_MD[:, plain.width :])


def test_timms_lite_has_the_cells_of_ours() -> None:
    theirs = timm_frame_encoder("tf_efficientnet_lite0", image_size=64, cells=3).eval()
    ours = EfficientNetLite(cells=3).eval()
    ours.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in theirs.state_dict().items()})
    frames_MCHW = torch.rand(2, 3, 64, 64)
    assert_close(ours(frames_MCHW), theirs(frames_MCHW))


def test_cells_that_a_backbone_cannot_give_are_refused() -> None:
    with pytest.raises(ConfigError, match="cells_layer 9: 'resnet18' has 5 maps"):
        timm_frame_encoder("resnet18", image_size=64, cells=3, cells_layer=9)
    with pytest.raises(ConfigError, match="timm's 'plain' gives none; set cells = 0"):
        _timm_level("plain", nn.Linear(2, 2), None)


def test_cells_append_where_things_are() -> None:
    torch.manual_seed(0)
    plain, celled = EfficientNetLite().eval(), EfficientNetLite(cells=3).eval()
    celled.load_state_dict(plain.state_dict())
    frames_MCHW = torch.rand(2, 3, 96, 96)
    assert celled(frames_MCHW).shape == (2, celled.width) == (2, 1280 + 9 * 112)
    assert_close(celled(frames_MCHW)[:, :1280], plain(frames_MCHW))
    mirrored = celled(frames_MCHW.flip(-1))
    assert not torch.allclose(mirrored[:, 1280:], celled(frames_MCHW)[:, 1280:])


def test_a_narrow_grid_is_the_projection_of_the_whole_one() -> None:
    torch.manual_seed(0)
    whole, narrow = EfficientNetLite(cells=3).eval(), EfficientNetLite(cells=3, cell_width=5).eval()
    assert narrow.grid is not None
    assert narrow.grid.reduce is not None
    rows_WC = narrow.grid.reduce.weight.flatten(1)
    assert_close(rows_WC @ rows_WC.T, torch.eye(5), rtol=0, atol=2e-3)
    assert torch.equal(rows_WC, rows_WC.half().float())
    narrow.load_state_dict({**whole.state_dict(), "grid.reduce.weight": narrow.grid.reduce.weight})
    frames_MCHW = torch.rand(2, 3, 96, 96)
    grid_MCS = whole(frames_MCHW)[:, 1280:].reshape(2, 112, 9)
    assert narrow(frames_MCHW).shape == (2, narrow.width) == (2, 1280 + 5 * 9)
    assert_close(narrow(frames_MCHW)[:, 1280:], (rows_WC @ grid_MCS).flatten(1))


def test_every_network_draws_the_same_projection() -> None:
    first, second = FrameGrid(8, 2, 3), FrameGrid(8, 4, 3)
    assert first.reduce is not None
    assert second.reduce is not None
    assert torch.equal(first.reduce.weight, second.reduce.weight)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_encoders_have_narrow_grids(name: str) -> None:
    encoder = timm_frame_encoder(name, image_size=64, cells=2, cell_width=7).eval()
    plain = timm_frame_encoder(name, image_size=64)
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, encoder.width) == (2, plain.width + 4 * 7)


def test_a_grid_wider_than_its_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="cell_width 113: the layer has 112 channels"):
        EfficientNetLite(cells=3, cell_width=113)


def test_folded_norms_are_the_same_function() -> None:
    network = with_statistics(EfficientNetLite())
    folded = copy.deepcopy(network)
    assert isinstance(folded, EfficientNetLite)
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
    network = EfficientNetLite(cells=3).eval()
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
    network = EfficientNetLite().eval()
    frames_MCHW = torch.randn(1, 3, 64, 64)
    assert fused_calls(network, frames_MCHW)[1] == 0
    network.fold_norms()
    network(frames_MCHW).sum().backward()
    assert network.conv_stem.weight.grad is not None
