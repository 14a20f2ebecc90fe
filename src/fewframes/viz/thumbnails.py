"""Make thumbnails: small pictures of a video at given times, for people to look at."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewframes.errors import VideoError
from fewframes.inference.detection.spans import Span
from fewframes.video.decode.container import NO_LIMITS, Limits
from fewframes.video.source import Source, open_video

log = logging.getLogger("fewframes")


def middle_frames(
    source: Source, spans: Sequence[Span], *, width_px: int = 320, threads: int = 0, limits: Limits = NO_LIMITS
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frame in the middle of each span, in their order: (C, H, W) uint8, black where none can be decoded.

    `threads` and `limits` are those of `open_video`.
    """
    shape: tuple[int, ...] = (3, width_px * 9 // 16, width_px)
    with closing(open_video(source, threads=threads, limits=limits)) as video:
        for span in spans:
            middle_s = np.array([(span.start_s + span.end_s) / 2])
            try:
                frame_CHW = np.asarray(video.frames_at(middle_s).frames[0])  # type: ignore[arg-type]
            except VideoError as error:
                log.debug("%s", error)
                yield np.zeros(shape, np.uint8)
                continue
            height_px = max(1, round(frame_CHW.shape[1] * width_px / frame_CHW.shape[2]))
            small = _image(frame_CHW).resize((width_px, height_px), Image.Resampling.BILINEAR)
            shape = (3, height_px, width_px)
            yield np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def jpeg(frame_CHW: NDArray[np.uint8], side_px: int | None = None) -> bytes:
    """Return a frame (C, H, W) uint8 as a JPEG file, resized to a square of `side_px` where that is given."""
    content, image = io.BytesIO(), _image(np.asarray(frame_CHW))
    if side_px is not None:
        image = image.resize((side_px, side_px))
    image.save(content, format="jpeg", quality=85)
    return content.getvalue()


def jpeg_of_height(frame_CHW: NDArray[np.uint8], height_px: int) -> bytes:
    """Return a frame (C, H, W) uint8 as a JPEG file of this height. It is never enlarged."""
    content, image = io.BytesIO(), _image(np.asarray(frame_CHW))
    if height_px < image.height:
        width_px = max(1, round(image.width * height_px / image.height))
        image = image.resize((width_px, height_px), Image.Resampling.BILINEAR)
    image.save(content, format="jpeg", quality=85)
    return content.getvalue()


def data_url(picture: bytes, kind: str = "jpeg") -> str:
    """Return a JPEG, or a picture of another kind, as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _image(frame_CHW: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(frame_CHW.transpose(1, 2, 0)))
