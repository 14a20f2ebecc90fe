"""Decoded pictures -> arrays of pixels: colour matrix, fields, rotation; one view of them for a network. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import av.filter
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fewframes.clip import Clip, Reading
from fewframes.config import ViewConfig
from fewframes.fitting import centre_fitted, put_inside

UNSPECIFIED_COLORSPACE = 2
HD_WIDTH_PX, SD_HEIGHT_PX = 1280, 576

Pixels = NDArray[np.uint8]
"""(H, W, C) RGB."""


class Stack(Protocol):
    """Where a decoder puts the pictures that were asked for, one by one, and whence a clip of them is taken."""

    def add(self, pixels_HWC: Pixels) -> int:
        """The place where this picture is kept."""

    def clip(
        self, places: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip[Any]:
        """Those at these places, in this order."""


NewStack = Callable[[int], Stack]
"""A stack for so many pictures."""


class ViewStack:
    """A `Stack` of squares as the network takes them, in one array."""

    def __init__(self, count: int, view: ViewConfig) -> None:
        around_C11 = np.round(np.array(view.mean, np.float32) * 255).astype(np.uint8)[:, None, None]
        self._frames: Pixels = np.empty((count, 3, view.crop_px, view.crop_px), dtype=np.uint8)
        self._frames[:] = around_C11  # what the fit `pad` leaves
        self._num, self._view = 0, view
        self.transform_s = 0.0
        """Seconds that making these squares took."""

    def add(self, pixels_HWC: Pixels) -> int:
        """The place where this picture is kept, as the view has it."""
        began = time.perf_counter()
        put_inside(self._frames[self._num], centre_fitted(pixels_HWC.transpose(2, 0, 1), self._view, resized))
        self.transform_s += time.perf_counter() - began
        self._num += 1
        return self._num - 1

    def clip(
        self, places: list[int], times_s: Sequence[float], duration_s: float, source: str, reading: Reading
    ) -> Clip[NDArray[Any]]:
        """Those at these places, in this order: `frames` (T, C, crop_px, crop_px)."""
        return Clip(self._frames[places], np.array(times_s), duration_s, source, reading)


def resized(pixels_CHW: Pixels, height: int, width: int, view: ViewConfig) -> Pixels:
    """Another size, by Pillow: what torch gives (transforms.py), up to one level of 255 on photographs."""
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    image = Image.fromarray(np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0)))
    return np.asarray(image.resize((width, height), filters[view.interpolation])).transpose(2, 0, 1)


def pixels_of_frame(frame: VideoFrame, reformatter: VideoReformatter, threads: int = 1) -> Pixels:
    """A decoder's frame as it should be shown: (H, W, C) uint8 RGB.

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
    plane = rgb.planes[0]  # seen as it lies there; the array keeps it
    rows: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    pixels_HWC = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    if quarter_turns:
        pixels_HWC = np.ascontiguousarray(np.rot90(pixels_HWC, quarter_turns))
    return pixels_HWC


def pixels_of_image(image: Any) -> Pixels:
    """A still image as it should be shown: (H, W, C) uint8 RGB.

    Takes a PIL image (its EXIF rotation is applied), an array or tensor of shape (H, W, 3), (3, H, W) or (H, W)
    that is uint8 0-255. Raises ValueError for anything else, with what was found.
    """
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image).convert("RGB")
    pixels: NDArray[Any] = np.asarray(image.cpu() if hasattr(image, "cpu") else image)
    if pixels.dtype != np.uint8:
        raise ValueError(f"a frame of dtype {pixels.dtype}: needs uint8 values 0-255 (floats in 0-1: multiply by 255)")
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    elif pixels.ndim == 3 and pixels.shape[-1] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ValueError(f"a frame of shape {np.shape(image)}: needs (H, W, 3), (3, H, W) or (H, W)")
    return pixels


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
