"""Make thumbnails: small pictures of a video at given times, for people to look at."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fewframes.errors import VideoError
from fewframes.inference.spans import Span
from fewframes.video.source import Source, open_video

log = logging.getLogger("fewframes")


def middle_frames(source: Source, spans: Sequence[Span], *, width_px: int = 320) -> Iterator[Tensor]:
    """Yield the frame in the middle of each span, in their order: (C, H, W) uint8, black where none can be decoded."""

    def small(frame_CHW: Tensor) -> Tensor:
        height_px = max(1, round(frame_CHW.shape[-2] * width_px / frame_CHW.shape[-1]))
        small_1CHW = F.interpolate(frame_CHW[None].float(), (height_px, width_px), mode="bilinear", antialias=True)
        return small_1CHW[0].round().clamp(0, 255).byte()

    shape = torch.Size((3, width_px * 9 // 16, width_px))
    with closing(open_video(source)) as video:
        for span in spans:
            try:
                frame_CHW = video.frames_at(torch.tensor([(span.start_s + span.end_s) / 2]).double(), small).frames[0]
                shape = frame_CHW.shape
            except VideoError as error:
                log.debug("%s", error)
                frame_CHW = torch.zeros(shape, dtype=torch.uint8)
            yield frame_CHW


def jpeg(frame_CHW: Tensor, side_px: int | None = None) -> bytes:
    """Return a frame (C, H, W) uint8 as a JPEG file, resized to a square of `side_px` where that is given."""
    content, image = io.BytesIO(), Image.fromarray(frame_CHW.permute(1, 2, 0).numpy())
    if side_px is not None:
        image = image.resize((side_px, side_px))
    image.save(content, format="jpeg", quality=85)
    return content.getvalue()


def data_url(picture: bytes) -> str:
    """Return a JPEG as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")
