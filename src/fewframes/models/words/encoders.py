"""A short list of image-text encoders that suit videos, with sizes and purposes. Any other of open_clip works by name too."""

from __future__ import annotations

from typing import NamedTuple

from fewframes.models.words.licences import licence_of

DEFAULT_ENCODER = "clip:PE-Core-B-16/meta"
"""The encoder if none is named."""


class NamedEncoder(NamedTuple):
    """An encoder of the list."""

    num_parameters: int
    """The number of parameters of its image half, which is all that videos are seen by. A test checks it."""
    gmacs: float
    """The multiply-adds of one frame, in units of 1e9. A test checks it."""
    image_px: int
    """The side of the frames in pixels."""
    width: int
    """D, the width of its embeddings."""
    suits: str
    """The purpose that it suits, in words."""


ENCODERS: dict[str, NamedEncoder] = {
    "clip:PE-Core-B-16/meta": NamedEncoder(93_673_984, 17.8, 224, 1024, "the default"),
    "clip:PE-Core-S-16-384/meta": NamedEncoder(23_783_168, 15.7, 384, 512, "a smaller model of the same family"),
    "clip:PE-Core-L-14-336/meta": NamedEncoder(317_152_256, 192.2, 336, 1024, "a GPU"),
    "clip:ViT-B-16-SigLIP2/webli": NamedEncoder(92_884_224, 17.7, 224, 768, "labels in other languages than English"),
    "clip:ViT-SO400M-14-SigLIP2/webli": NamedEncoder(427_680_704, 110.2, 224, 1152, "the same, on a GPU"),
    "clip:ViT-B-32-256/datacomp_s34b_b86k": NamedEncoder(87_860_736, 5.8, 256, 512, "a CPU: 64 patches a frame"),
    "clip:ViT-B-16/openai": NamedEncoder(86_192_640, 17.6, 224, 512, "comparison with published figures"),
    "clip:MobileCLIP2-S0/dfndr2b": NamedEncoder(11_406_976, 2.4, 256, 512, "research on small machines"),
}
"""The encoders by name."""


def licence_words(name: str) -> str:
    """Return the licence of the weights of an encoder of the list, and what it forbids."""
    licence = licence_of(name.rpartition("/")[2])
    return f"{licence.name}; forbids {licence.forbids}" if licence.forbids else licence.name
