"""Decoded pictures -> RGB tensors: colour matrix, fields, rotation; and several of them as one. No files, no times."""

from __future__ import annotations

from typing import Any

import av.filter
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

UNSPECIFIED_COLORSPACE = 2
HD_WIDTH_PX, SD_HEIGHT_PX = 1280, 576


def rgb_of_frame(frame: VideoFrame, reformatter: VideoReformatter, threads: int = 1) -> Tensor:
    """A decoder's frame as it should be shown: (C, H, W) uint8 RGB.

    `reformatter` keeps what is prepared for frames of one kind; give the same for all of a video.
    Colour matrix, range and bit depth follow the frame's own flags; where it does not name its matrix, HD sizes are
    read as BT.709 and smaller ones as BT.601, as players do. Interlaced pictures are deinterlaced (from their own
    fields alone, so that no other moment leaks in) and rotation metadata is applied.
    """
    quarter_turns = round(frame.rotation / 90) % 4
    if frame.interlaced_frame:
        frame = _deinterlaced(frame)
    unnamed_hd = frame.colorspace == UNSPECIFIED_COLORSPACE and (
        frame.width >= HD_WIDTH_PX or frame.height > SD_HEIGHT_PX
    )
    rgb = reformatter.reformat(
        frame, format="rgb24", src_colorspace=Colorspace.ITU709 if unnamed_hd else None, threads=threads
    )
    plane = rgb.planes[0]  # seen as it lies there; the tensor keeps it
    rows: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    pixels_HWC = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    if quarter_turns:
        pixels_HWC = np.ascontiguousarray(np.rot90(pixels_HWC, quarter_turns))
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


def rgb_of_image(image: Any) -> Tensor:
    """A still image as it should be shown: (C, H, W) uint8 RGB.

    Takes a PIL image (its EXIF rotation is applied), an array or tensor of shape (H, W, 3), (3, H, W) or (H, W)
    that is uint8 0-255. Raises ValueError for anything else, with what was found.
    """
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image).convert("RGB")
    tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
    if tensor.dtype != torch.uint8:
        raise ValueError(f"a frame of dtype {tensor.dtype}: needs uint8 values 0-255 (floats in 0-1: multiply by 255)")
    if tensor.ndim == 2:
        tensor = tensor.expand(3, -1, -1)
    elif tensor.ndim == 3 and tensor.shape[-1] == 3:
        tensor = tensor.permute(2, 0, 1)
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise ValueError(f"a frame of shape {tuple(tensor.shape)}: needs (H, W, 3), (3, H, W) or (H, W)")
    return tensor


def _deinterlaced(frame: VideoFrame) -> VideoFrame:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    deinterlace = graph.add("estdif", "mode=frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlace)
    deinterlace.link_to(sink)
    graph.configure()
    source.push(frame)
    source.push(None)
    result = sink.pull()
    assert isinstance(result, VideoFrame)
    # The graph is told sizes and pixel format only; the colour flags go round it.
    result.colorspace, result.color_range = frame.colorspace, frame.color_range
    return result


class FrameStack:
    """Frames put one by one into one tensor, so that none is copied twice; of another size (a stream that changes it) they take
    the first's."""

    def __init__(self, count: int) -> None:
        self._count, self._num = count, 0
        self._frames: Tensor | None = None

    def add(self, frame: Tensor) -> int:
        """Its place; `frame` is (C, H, W), or several crops of one (S, C, H, W)."""
        if self._frames is None:
            # Decoded pictures have their colours together in memory, and keep them so: whole rows are copied.
            together = frame.ndim == 3 and frame.stride(0) == 1
            shape = (*frame.shape[1:], frame.shape[0]) if together else frame.shape
            frames = torch.empty((self._count, *shape), dtype=frame.dtype, device=frame.device)
            self._frames = frames.permute(0, 3, 1, 2) if together else frames
        size = self._frames.shape[-2:]
        if frame.shape[-2:] != size:
            frame = F.interpolate(frame[None], size=size, mode="bilinear", antialias=True).squeeze(0)
        self._frames[self._num] = frame
        self._num += 1
        return self._num - 1

    def taken(self, places: list[int]) -> Tensor:
        """Those at these places, in this order: (T, ...)."""
        assert self._frames is not None
        frames = self._frames[: self._num]
        return frames if places == list(range(self._num)) else frames[places]
