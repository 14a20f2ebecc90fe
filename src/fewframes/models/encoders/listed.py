"""A short, judged list of frame encoders for videos, with sizes, speeds and purposes. Any other of the two libraries works too."""

from __future__ import annotations

from typing import NamedTuple

RESEARCH_ONLY = "Apple Machine Learning Research Model licence; forbids any use but research"
META_TERMS = "dinov3-license: Meta's own terms"


class ListedEncoder(NamedTuple):
    """An encoder of the list."""

    num_parameters: int
    """The number of parameters of its image half, which is all that videos are seen by. A test checks it."""
    gmacs: float
    """The multiply-adds of one frame, in units of 1e9. A test checks it."""
    image_px: int
    """The side of the frames in pixels."""
    width: int
    """D, the width of its embeddings."""
    ms_per_frame: float
    """The milliseconds of one thread for a frame, as benchmarks/speed/encoders.json has them. A test checks it."""
    licence: str
    """The licence of its weights. A test compares it with what timm says, and with licences.py."""
    suits: str
    """The purpose that it suits, in words."""


MACHINE = "one thread of an Intel Xeon (2.5 GHz) beside other work, float32"
"""The machine on which `ms_per_frame` was measured."""

ENCODERS: dict[str, ListedEncoder] = {
    "clip:MobileCLIP2-S0/dfndr2b": ListedEncoder(
        11_406_976, 2.4, 256, 512, 104.52, RESEARCH_ONLY, "research on small machines"
    ),
    "clip:ViT-B-32-256/datacomp_s34b_b86k": ListedEncoder(
        87_860_736, 5.8, 256, 512, 144.8, "MIT", "words on a CPU: 64 patches a frame"
    ),
    "clip:PE-Core-S-16-384/meta": ListedEncoder(
        23_783_168, 15.7, 384, 512, 401.53, "Apache-2.0", "a smaller model of the default's family"
    ),
    "clip:ViT-B-16/openai": ListedEncoder(
        86_192_640, 17.6, 224, 512, 489.39, "MIT", "comparison with published figures"
    ),
    "clip:ViT-B-16-SigLIP2/webli": ListedEncoder(
        92_884_224, 17.7, 224, 768, 414.23, "Apache-2.0", "labels in other languages than English"
    ),
    "clip:PE-Core-B-16/meta": ListedEncoder(93_673_984, 17.8, 224, 1024, 532.86, "Apache-2.0", "the default for words"),
    "clip:ViT-SO400M-14-SigLIP2/webli": ListedEncoder(
        427_680_704, 110.2, 224, 1152, 2314.03, "Apache-2.0", "other languages, on a GPU"
    ),
    "clip:PE-Core-L-14-336/meta": ListedEncoder(
        317_152_256, 192.2, 336, 1024, 5761.98, "Apache-2.0", "words, on a GPU"
    ),
    "timm:mobilenetv4_conv_small.e2400_r224_in1k": ListedEncoder(
        2_493_024, 0.2, 224, 1280, 19.39, "Apache-2.0", "the smallest machines"
    ),
    "timm:tf_efficientnet_lite0.in1k": ListedEncoder(
        3_371_008, 0.4, 224, 1280, 42.27, "Apache-2.0", "small machines: what the packaged model began from"
    ),
    "timm:mobilenetv4_conv_medium.e500_r256_in1k": ListedEncoder(
        8_434_512, 1.1, 256, 1280, 61.83, "Apache-2.0", "a CPU with many streams"
    ),
    "timm:vit_tiny_patch16_224.augreg_in21k": ListedEncoder(
        5_524_416, 1.3, 224, 192, 56.72, "Apache-2.0", "a CPU: a ViT whose patches can be merged (--merge)"
    ),
    "timm:vit_pe_core_tiny_patch16_384.fb": ListedEncoder(
        6_042_240, 4.7, 384, 192, 214.89, "Apache-2.0", "a CPU: the smallest that began with words"
    ),
    "timm:convnext_tiny.dinov3_lvd1689m": ListedEncoder(
        27_820_128, 4.5, 224, 768, 155.75, META_TERMS, "a CPU: the convolutions of DINOv3"
    ),
    "timm:vit_small_patch16_dinov3.lvd1689m": ListedEncoder(
        21_586_944, 6.2, 256, 384, 237.09, META_TERMS, "what no label names: likeness, few examples"
    ),
    "timm:eva02_small_patch14_336.mim_in22k_ft_in1k": ListedEncoder(
        21_744_000, 15.5, 336, 384, 536.43, "MIT", "few examples, under MIT"
    ),
    "timm:vit_base_patch16_dinov3.lvd1689m": ListedEncoder(
        85_641_216, 23.6, 256, 768, 718.13, META_TERMS, "likeness, few examples, on a GPU"
    ),
    "timm:vit_base_patch14_reg1_tipsv2.webli": ListedEncoder(
        86_314_752, 107.0, 448, 768, 2704.17, "Apache-2.0", "large frames, on a GPU"
    ),
}
"""The encoders by name: those that know words, then those that learned from pictures alone, each from light to heavy."""
