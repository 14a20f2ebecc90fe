"""All named networks: `PRESETS` is one dict that a person can read."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic.dataclasses import dataclass

from fewframes.core.settings import STRICT
from fewframes.models.config import ModelConfig
from fewframes.video.view import ViewConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Preset:
    """A named network, with its cost and the origin of its weights."""

    model: ModelConfig
    """The architecture."""
    view: ViewConfig
    """The view of the frames that the network takes."""
    num_parameters: int
    """The number of parameters, with the classifier. A test checks it."""
    gmacs: float
    """The multiply-adds for one video in units of 1e9, without attention's products q k^T and (weights) v, as the paper counts.
    FLOPs are twice that. A test checks it."""
    attention_gmacs: float
    """The multiply-adds of attention's products, in units of 1e9."""
    paper: str = ""
    """The row of the paper that the network stands for, with the paper's own figures."""
    init: str = ""
    """The timm weights that its training starts from."""
    weights: Literal["", "packaged", "released"] = ""
    """The location of complete weights: inside this package, or published by the paper's authors. Empty if there are none."""
    licence: str = ""
    """The licence of the complete weights, or of `init` if there are none."""


RELEASE_URL = "https://miil-public-eu.oss-eu-central-1.aliyuncs.com/model-zoo/STAM/v2/stam_{num_frames}.pth"
"""The URL under which the paper's authors publish their weights (from their README)."""

PLAIN_PIXELS = ViewConfig(interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""The view of the release and of TResNet. They take pixels in [0, 1] as they are: resize, crop and ToTensor, without Normalize."""
VIT_VIEW = ViewConfig()
RESNET_VIEW = ViewConfig(interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
LITE_VIEW = ViewConfig(resize_px=224)

VIT_B = ModelConfig()
VIT_S = ModelConfig(width=384, heads=6)
VIT_TI = ModelConfig(width=192, heads=3)
RELEASE = ModelConfig(temporal="release", temporal_mlp_width=2048, temporal_dropout=0.1, norm_eps=1e-5)
"""The network that the authors published. The paper's table says 96 M parameters; this one has 119.2 M."""
RESNET50 = ModelConfig(encoder="timm:resnet50")
TRESNET_M = ModelConfig(encoder="timm:tresnet_m")
TRESNET_L = ModelConfig(encoder="timm:tresnet_l", num_frames=8)
LITE0 = ModelConfig(
    encoder="lite0",
    cells=6,
    cell_width=28,
    temporal_width=128,
    temporal_depth=2,
    temporal_heads=4,
    temporal_mlp_width=256,
    temporal_dropout=0.3,
    token_dropout=0.3,
    motion_width=256,
    temporal_positions="waves",
    moment_head=True,
    moments="motion",
    num_classes=11,
)
"""Our own network. docs/decisions says why it was chosen."""
LITE1 = replace(LITE0, encoder="lite1", image_size=240)
LITE2 = replace(LITE0, encoder="lite2", image_size=260)

IMAGENET_21K_VIT_B = "vit_base_patch16_224.augreg_in21k"
"""The timm name of ViT-B weights from ImageNet-21k, as in the paper."""


def _preset(
    model: ModelConfig,
    view: ViewConfig,
    cost: tuple[int, float, float],
    paper: str,
    init: str = "",
    weights: Literal["", "packaged", "released"] = "",
    licence: str = "Apache-2.0",
) -> Preset:
    """Make a preset. `cost` is (num_parameters, gmacs, attention_gmacs)."""
    num_parameters, gmacs, attention_gmacs = cost
    return Preset(
        model=model,
        view=view,
        num_parameters=num_parameters,
        gmacs=gmacs,
        attention_gmacs=attention_gmacs,
        paper=paper,
        init=init,
        weights=weights,
        licence=licence,
    )


PRESETS: dict[str, Preset] = {
    "stam-8": _preset(
        replace(RELEASE, num_frames=8),
        PLAIN_PIXELS,
        (119_199_376, 135.079, 5.723),
        "the authors' release, 8 frames",
        weights="released",
    ),
    "stam-16": _preset(
        replace(RELEASE, num_frames=16),
        PLAIN_PIXELS,
        (119_205_520, 270.126, 11.448),
        "the authors' release, 16 frames",
        weights="released",
    ),
    "stam-32": _preset(
        replace(RELEASE, num_frames=32),
        PLAIN_PIXELS,
        (119_217_808, 540.218, 22.901),
        "the authors' release, 32 frames",
        weights="released",
    ),
    "stam-64": _preset(
        replace(RELEASE, num_frames=64),
        PLAIN_PIXELS,
        (119_242_384, 1080.402, 45.820),
        "the authors' release, 64 frames",
        weights="released",
    ),
    "stam-paper-4": _preset(
        replace(VIT_B, num_frames=4),
        VIT_VIEW,
        (128_639_632, 67.604, 2.862),
        "Table 4: 74.1 %, 67 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-8": _preset(
        replace(VIT_B, num_frames=8),
        VIT_VIEW,
        (128_642_704, 135.164, 5.723),
        "Table 4: 77.1 %, 135 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-16": _preset(
        replace(VIT_B, num_frames=16),
        VIT_VIEW,
        (128_648_848, 270.286, 11.448),
        "Tables 1, 2, 3 and 4: 79.3 %, 270 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-32": _preset(
        replace(VIT_B, num_frames=32),
        VIT_VIEW,
        (128_661_136, 540.529, 22.901),
        "Table 4: 79.9 %, 540 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "stam-paper-64": _preset(
        replace(VIT_B, num_frames=64),
        VIT_VIEW,
        (128_685_712, 1081.016, 45.820),
        "Tables 1 and 4: 80.5 %, 1080 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "vit-b-mean-16": _preset(
        replace(VIT_B, temporal="mean"),
        VIT_VIEW,
        (86_106_256, 269.564, 11.445),
        "Table 2: 75.1 %, 265 G",
        init=IMAGENET_21K_VIT_B,
    ),
    "tresnet-m-16": _preset(
        TRESNET_M,
        PLAIN_PIXELS,
        (332_350_224, 96.887, 0.007),
        "Tables 2 and 3: 75.7 %, 93 G",
        init="tresnet_m.miil_in21k",
    ),
    "tresnet-m-mean-16": _preset(
        replace(TRESNET_M, temporal="mean"),
        PLAIN_PIXELS,
        (30_159_632, 91.753, 0.000),
        "Table 2: 71.9 %, 88 G",
        init="tresnet_m.miil_in21k",
    ),
    "tresnet-l-8": _preset(
        TRESNET_L, PLAIN_PIXELS, (480_601_264, 90.835, 0.002), "Table 3: 75.9 %, 77 G", init="tresnet_l.miil_in1k"
    ),
    "resnet50-16": _preset(
        RESNET50,
        RESNET_VIEW,
        (326_518_224, 70.529, 0.007),
        "Table 3: 72.5 %, 70 G",
        init="resnet50.tv_in1k",
        licence="BSD-3-Clause",
    ),
    "vit-b-joint-16": _preset(
        replace(VIT_B, layout="joint", temporal="mean"),
        VIT_VIEW,
        (86_118_544, 269.564, 183.124),
        "Eq. 5: joint space-time attention",
        init=IMAGENET_21K_VIT_B,
    ),
    "vit-b-per-block-16": _preset(
        replace(VIT_B, layout="per_block", temporal="mean"),
        VIT_VIEW,
        (114_485_392, 358.802, 12.375),
        "section 3: time inside every block",
        init=IMAGENET_21K_VIT_B,
    ),
    "vit-s-16": _preset(
        replace(VIT_S, temporal_depth=4, temporal_heads=6),
        VIT_VIEW,
        (28_925_200, 67.974, 5.724),
        "CPU-sized",
        init="vit_small_patch16_224.augreg_in21k",
    ),
    "vit-ti-16": _preset(
        replace(VIT_TI, temporal_depth=2, temporal_heads=3),
        VIT_VIEW,
        (6_495_184, 17.210, 2.862),
        "CPU-sized",
        init="vit_tiny_patch16_224.augreg_in21k",
    ),
    "lite0-16": _preset(
        LITE0,
        LITE_VIEW,
        (6_245_670, 6.187, 0.000),
        "CPU-sized; the packaged model",
        init="tf_efficientnet_lite0.in1k",
        weights="packaged",
        licence="Apache-2.0; its videos: none stated",
    ),
    "lite1-16": _preset(
        LITE1,
        ViewConfig(resize_px=240, crop_px=240),
        (7_010_342, 9.627, 0.000),
        "CPU-sized; a larger encoder",
        init="tf_efficientnet_lite1.in1k",
    ),
    "lite2-16": _preset(
        LITE2,
        ViewConfig(resize_px=260, crop_px=260),
        (7_685_958, 13.780, 0.000),
        "CPU-sized; a larger encoder",
        init="tf_efficientnet_lite2.in1k",
    ),
}
"""All named networks. The number at the end of a name is T, the frames per video that the network is built for."""
