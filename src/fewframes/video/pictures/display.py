"""A decoder's frames -> the pictures that a player shows of them: fields, colours, shape of the pixels, orientation. No torch."""

from __future__ import annotations

import logging
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import av.filter
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fewframes.errors import TooLarge

log = logging.getLogger("fewframes")

UNSPECIFIED_COLORSPACE = 2
HD_WIDTH_PX, SD_HEIGHT_PX = 1280, 576
MOST_ASPECT = 8
"""Pixels stated to be longer than this are a writer's mistake: recordings of one field, or of half the width, have at most 4."""
SQUARE = Fraction(1)
FULL_TURN = 1 << 16
"""A display matrix's 1.0."""
EXACT = 0.02
"""Share of a display matrix that may be left over beside a quarter turn or a mirror, as rounding: about one degree."""

Pixels = NDArray[np.uint8]
"""(H, W, C) RGB."""


class Geometry(NamedTuple):
    """What is stated of a frame: the width of a pixel over its height, and the display matrix, where there is one."""

    aspect: Fraction
    matrix: bytes | None


class Display:
    """Makes the shown pictures of one video: `begin` for each stream that is opened for it, `geometry` for each frame as it comes
    out of the decoder, `pixels` for those that are wanted."""

    def __init__(self, name: str, max_pixels: int, threads: int = 1) -> None:
        self._name, self._max_pixels, self._threads = name, max_pixels, threads
        self._reformatter = VideoReformatter()  # keeps what is prepared for frames of one kind
        self._said: set[str] = set()
        self._stream: VideoStream
        self._container_aspect: Fraction | None
        self._matrix: bytes | None
        self._rotation: float | None

    def begin(self, stream: VideoStream) -> None:
        """Note what the header of a newly opened stream states, before anything of it is decoded."""
        self._stream, stated = stream, stream.sample_aspect_ratio
        # Until then, the codec's value is the header's; where the two are the same, the container has none of its own.
        self._container_aspect = None if stated == stream.codec_context.sample_aspect_ratio else stated
        self._matrix, self._rotation = None, None

    def close(self) -> None:
        """Give back the stream, and the scaler with its threads; `begin` may follow."""
        self.__dict__.pop("_stream", None)
        self._reformatter = VideoReformatter()

    def geometry(self, frame: VideoFrame) -> Geometry:
        """Return what is stated of a frame that has just come out of the decoder; all frames are to be asked for, in this order.

        What the container states of pixels goes before what the codec does, as in FFmpeg; the codec's may change midway, as
        broadcasts do between programmes. A matrix that H.264 or HEVC state at a frame holds until another is stated.
        """
        # Whoever looks at PyAV's side data keeps the frame until Python collects cycles: hundreds of them, were each looked at. The
        # rotation is free, and changes where the matrix does, but for a turn upside down of a video that is mirrored midway.
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame) or self._matrix
        return Geometry(self._aspect(), self._matrix)

    def _aspect(self) -> Fraction:
        stated = self._container_aspect or self._stream.codec_context.sample_aspect_ratio or SQUARE
        width, height = stated.numerator, stated.denominator  # as whole numbers: every decoded frame comes by here
        if width <= MOST_ASPECT * height and height <= MOST_ASPECT * width:
            return stated
        self._say(
            f"its pixels are stated to be {float(stated):.4g} times as wide as high; beyond 1:{MOST_ASPECT} and {MOST_ASPECT}:1 "
            "that is taken for a mistake, and they are shown square"
        )
        return SQUARE

    def pixels(self, frame: VideoFrame, geometry: Geometry) -> Pixels:
        """Return a frame as it is shown: (H, W, C) uint8 RGB with square pixels.

        Colour matrix, range and bit depth follow the frame's own flags. Where it does not name its matrix, HD sizes are read as
        BT.709 and smaller ones as BT.601, as players do. Interlaced pictures are deinterlaced (from their own fields alone, so
        that no other moment leaks in). Transparent parts are black. The display matrix is applied at last. Raises TooLarge.
        """
        if frame.color_trc == ColorTrc.SMPTE2084:
            self._say("HDR (PQ): its brightness is shown without tone mapping, flatter than players do")
        if frame.interlaced_frame:
            frame = _deinterlaced(frame)
        unnamed_hd = frame.colorspace == UNSPECIFIED_COLORSPACE and (
            frame.width >= HD_WIDTH_PX or frame.height > SD_HEIGHT_PX
        )
        width, height = shown_size(frame.width, frame.height, geometry.aspect)
        check_pixels(self._name, width, height, self._max_pixels)
        transparent = _has_alpha(frame.format.name)
        rgb = self._reformatter.reformat(
            frame,
            # Colours and shape in one pass: no pixel is resampled twice for it.
            width=width,
            height=height,
            format="rgba" if transparent else "rgb24",
            src_colorspace=Colorspace.ITU709 if unnamed_hd else None,
            threads=self._threads,
        )
        pixels_HWC = _seen(rgb, 4 if transparent else 3)
        if transparent:
            pixels_HWC = over_black(pixels_HWC)
        return pixels_HWC if geometry.matrix is None else self._oriented(pixels_HWC, geometry.matrix)

    def shows_as_stored(self, frame: VideoFrame, geometry: Geometry) -> bool:
        """Return whether nothing but colours has to be made of a frame."""
        return geometry == (SQUARE, None) and not frame.interlaced_frame and not _has_alpha(frame.format.name)

    def _oriented(self, pixels_HWC: Pixels, matrix: bytes) -> Pixels:
        # (a, b) and (c, d) are where a step to the right and a step down in the stored picture lead.
        a, b, _, c, d, *_ = (np.frombuffer(matrix, np.int32) / FULL_TURN).tolist()
        is_turned = abs(b) + abs(c) > abs(a) + abs(d)
        rest, whole = (abs(a) + abs(d), abs(b) + abs(c)) if is_turned else (abs(b) + abs(c), abs(a) + abs(d))
        if rest > EXACT * whole:
            self._say(
                f"its display matrix ({a:.3g} {b:.3g}; {c:.3g} {d:.3g}) is no quarter turn and no mirror; the nearest one is shown"
            )
        across, down = (c, b) if is_turned else (a, d)
        if is_turned:
            pixels_HWC = pixels_HWC.swapaxes(0, 1)
        if across < 0:
            pixels_HWC = pixels_HWC[:, ::-1]
        if down < 0:
            pixels_HWC = pixels_HWC[::-1]
        return np.ascontiguousarray(pixels_HWC)

    def _say(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            log.warning("%s: %s", self._name, words)


def shown_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return width and height in square pixels. One side grows and none shrinks, so that nothing is lost."""
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def check_pixels(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raise TooLarge for a picture with more pixels."""
    if width * height > max_pixels:
        raise TooLarge(
            f"{name}: frames of {width}x{height} px; the limit is {max_pixels / 1e6:.3g} million pixels; scale the video down"
        )


def over_black(pixels_HWC: Pixels) -> Pixels:
    """Return RGBA pixels as RGB: what is transparent is black, as in video players; a picture that is transparent everywhere is
    taken as it is, for old formats leave the fourth byte empty."""
    colours, alpha = pixels_HWC[..., :3], pixels_HWC[..., 3:]
    if alpha.min(initial=255) == 255 or alpha.max(initial=0) == 0:
        return np.ascontiguousarray(colours)
    return np.asarray((colours.astype(np.uint16) * alpha + 127) // 255, dtype=np.uint8)


def _display_matrix(frame: VideoFrame) -> bytes | None:
    """Return what the container says of a frame's orientation, or itself: nine int32 with 1.0 as `FULL_TURN`."""
    stated: Any  # PyAV's stubs take these for text
    for stated in frame.side_data:
        if stated.type == SideData.DISPLAYMATRIX:
            return bytes(stated)
    return None


@cache
def _has_alpha(format_name: str) -> bool:
    form = VideoFormat(format_name)
    return form.has_palette or any(component.is_alpha for component in form.components)


def _seen(frame: VideoFrame, num_channels: int) -> Pixels:
    """The pixels of a packed frame as they lie there; the array keeps the frame."""
    plane = frame.planes[0]
    rows: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : num_channels * frame.width].reshape(frame.height, frame.width, num_channels)


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
