"""Make thumbnails: small pictures of a video at given times, for people to look at."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from fewframes.errors import VideoError
from fewframes.inference.spans import Span
from fewframes.video.pictures.display import Pixels
from fewframes.video.source import Source, open_video
from fewframes.video.transforms import resized

log = logging.getLogger("fewframes")


def middle_frames(source: Source, spans: Sequence[Span], *, width_px: int = 320) -> Iterator[Pixels]:
    """Yield the frame in the middle of each span, in their order: (C, H, W) uint8, black where none can be decoded."""

    def small(frame_CHW: Pixels) -> Pixels:
        return resized(frame_CHW, max(1, round(frame_CHW.shape[-2] * width_px / frame_CHW.shape[-1])), width_px)

    shape: tuple[int, ...] = (3, width_px * 9 // 16, width_px)
    with closing(open_video(source)) as video:
        for span in spans:
            try:
                frame_CHW = video.frames_at([(span.start_s + span.end_s) / 2], small).frames[0]
                shape = frame_CHW.shape
            except VideoError as error:
                log.debug("%s", error)
                frame_CHW = np.zeros(shape, np.uint8)
            yield frame_CHW


def jpeg(frame_CHW: ArrayLike, side_px: int | None = None) -> bytes:
    """Return a frame (C, H, W) uint8 as a JPEG file, resized to a square of `side_px` where that is given."""
    content, image = (
        io.BytesIO(),
        Image.fromarray(np.ascontiguousarray(np.asarray(frame_CHW, np.uint8).transpose(1, 2, 0))),
    )
    if side_px is not None:
        image = image.resize((side_px, side_px))
    image.save(content, format="jpeg", quality=85)
    return content.getvalue()


def data_url(picture: bytes) -> str:
    """Return a JPEG as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")
