"""Turn a decoder's frames into the pictures that a player shows: fields, colours, shape of the pixels, orientation. No torch."""

from __future__ import annotations

import logging
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import av.filter
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from fewframes.errors import TooLarge

log = logging.getLogger("fewframes")

UNSPECIFIED_COLORSPACE = 2
HD_WIDTH_PX, SD_HEIGHT_PX = 1280, 576
"""The width from which, and the height above which, a picture counts as HD."""
MOST_ASPECT = 8
"""The largest ratio of a pixel's long to short side. A larger one is a mistake of the writer, because recordings of one field or of
half the width have at most 4."""
SQUARE = Fraction(1)
FULL_TURN = 1 << 16
"""The value that stands for 1.0 in a display matrix."""
EXACT = 0.02
"""The fraction of a display matrix that may differ from a quarter turn or a mirror by rounding: about one degree."""

Pixels = NDArray[np.uint8]
"""A picture (H, W, C) as uint8 RGB."""


class Geometry(NamedTuple):
    """The stated geometry of a frame: the width of a pixel over its height, and the display matrix if there is one."""

    aspect: Fraction
    matrix: bytes | None


class Display:
    """The display of one video: it makes the pictures that a player would show.

    `begin` is called for each stream that is opened, `geometry` for each frame as it comes out of the decoder, and `pixels` for the
    frames that are wanted.
    """

    def __init__(self, name: str, max_pixels: int, threads: int = 1) -> None:
        """Prepare the display of a video.

        Args:
            name: what messages call the video.
            max_pixels: the most pixels of a picture.
            threads: the threads that convert colours; 0 is one a core.
        """
        self._name, self._max_pixels, self._threads = name, max_pixels, threads
        self._reformatter = VideoReformatter()  # one for all frames: it reuses what it prepared for the last one
        self._said: set[str] = set()
        self._stream: VideoStream
        self._container_aspect: Fraction | None
        self._matrix: bytes | None
        self._rotation: float | None
        self._geometry: Geometry | None = None

    def begin(self, stream: VideoStream) -> None:
        """Note what the header of a newly opened stream states, before anything of it is decoded."""
        self._stream, stated = stream, stream.sample_aspect_ratio
        # Before anything is decoded, the codec's value is the header's. If the two are equal, the container states none of its own.
        self._container_aspect = None if stated == stream.codec_context.sample_aspect_ratio else stated
        self._matrix, self._rotation, self._geometry = None, None, None

    def close(self) -> None:
        """Release the stream, and the scaler with its threads. `begin` may follow."""
        self.__dict__.pop("_stream", None)
        self._reformatter = VideoReformatter()

    def geometry(self, frame: VideoFrame) -> Geometry:
        """Return the stated geometry of a frame. It must be called for all frames, in the order in which they leave the decoder.

        The container's shape of pixels wins over the codec's, as in FFmpeg. The codec's may change at a key frame, as in broadcasts
        between two programmes. A matrix that H.264 or HEVC state at a frame holds until another is stated.
        """
        # Reading all side data takes longer than the rotation, which changes with the matrix, except for a turn upside down of a
        # video that is mirrored midway.
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame) or self._matrix
            self._geometry = None
        if self._geometry is None or frame.key_frame:
            self._geometry = Geometry(self._aspect(), self._matrix)
        return self._geometry

    def _aspect(self) -> Fraction:
        """Return the width of a pixel over its height."""
        stated = self._container_aspect or self._stream.codec_context.sample_aspect_ratio or SQUARE
        if Fraction(1, MOST_ASPECT) <= stated <= MOST_ASPECT:
            return stated
        self._say(
            f"its pixels are stated to be {float(stated):.4g} times as wide as high; beyond 1:{MOST_ASPECT} and {MOST_ASPECT}:1 "
            "that is taken for a mistake, and they are shown as squares"
        )
        return SQUARE

    def pixels(self, frame: VideoFrame, geometry: Geometry) -> Pixels:
        """Return a frame as a player shows it: (H, W, C) uint8 RGB with square pixels. Raises TooLarge.

        Colour matrix, range and bit depth follow the frame's own flags. If it does not name its matrix, HD sizes are read as BT.709
        and smaller ones as BT.601, as players do. Interlaced pictures are deinterlaced from their own fields alone, so that no
        other frame leaks in. Transparent parts are black. The display matrix is applied last.
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
            # Colours and shape change in one pass, so that no pixel is resampled twice.
            width=width,
            height=height,
            format="rgba" if transparent else "rgb24",
            src_colorspace=Colorspace.ITU709 if unnamed_hd else None,
            threads=self._threads,
        )
        pixels_HWC = _packed_pixels(rgb, 4 if transparent else 3)
        if transparent:
            pixels_HWC = over_black(pixels_HWC)
        return pixels_HWC if geometry.matrix is None else self._oriented(pixels_HWC, geometry.matrix)

    def shows_as_stored(self, frame: VideoFrame, geometry: Geometry) -> bool:
        """Return whether a player shows a frame as it is stored, but for the conversion of its colours."""
        return geometry == (SQUARE, None) and not frame.interlaced_frame and not _has_alpha(frame.format.name)

    def _oriented(self, pixels_HWC: Pixels, matrix: bytes) -> Pixels:
        """Return pixels turned and mirrored by a display matrix."""
        # A step to the right in the stored picture leads to (a, b) in the shown one, and a step down leads to (c, d).
        a, b, _, c, d, *_ = (np.frombuffer(matrix, np.int32) / FULL_TURN).tolist()
        is_turned = abs(b) + abs(c) > abs(a) + abs(d)
        rest, whole = (abs(a) + abs(d), abs(b) + abs(c)) if is_turned else (abs(b) + abs(c), abs(a) + abs(d))
        if rest > EXACT * whole:
            self._say(
                f"its display matrix ({a:.3g} {b:.3g}; {c:.3g} {d:.3g}) is no quarter turn and no mirror; the nearest one is used"
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
        """Log a warning once."""
        if words not in self._said:
            self._said.add(words)
            log.warning("%s: %s", self._name, words)


def shown_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return the width and height of a picture in square pixels. One side grows and none shrinks, so that nothing is lost."""
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def check_pixels(name: str, width: int, height: int, max_pixels: int) -> None:
    """Raise TooLarge if a picture has more than `max_pixels` pixels. `name` is what the message calls the video."""
    if width * height > max_pixels:
        raise TooLarge(
            f"{name}: frames of {width}x{height} px; the limit is {max_pixels / 1e6:.3g} million pixels; scale the video down"
        )


def over_black(pixels_HWC: Pixels) -> Pixels:
    """Return RGBA pixels as RGB. Transparent parts become black, as in video players.

    A picture that is transparent everywhere keeps its colours, because old formats leave the fourth byte empty.
    """
    colours, alpha = pixels_HWC[..., :3], pixels_HWC[..., 3:]
    if alpha.min(initial=255) == 255 or alpha.max(initial=0) == 0:
        return np.ascontiguousarray(colours)
    return np.asarray((colours.astype(np.uint16) * alpha + 127) // 255, dtype=np.uint8)


def _display_matrix(frame: VideoFrame) -> bytes | None:
    """Return the display matrix that the container or the frame itself states: nine int32 with `FULL_TURN` as 1.0; None if none."""
    # Not `frame.side_data`: that and the frame hold each other, and a frame keeps its memory and the decoder's pool of frames.
    stated = _side_data_of(frame).get("DISPLAYMATRIX")
    return None if stated is None else bytes(stated)


_side_data_of: Any = SideDataContainer
"""PyAV's side data of a frame, which holds the frame. PyAV's stubs know no type for its values, and not what it is made of."""


@cache
def _has_alpha(format_name: str) -> bool:
    """Return whether a pixel format may have transparent parts."""
    form = VideoFormat(format_name)
    return form.has_palette or any(component.is_alpha for component in form.components)


def _packed_pixels(frame: VideoFrame, num_channels: int) -> Pixels:
    """Return the pixels of a packed frame without a copy; the array keeps the frame alive."""
    plane = frame.planes[0]
    rows: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : num_channels * frame.width].reshape(frame.height, frame.width, num_channels)


def _deinterlaced(frame: VideoFrame) -> VideoFrame:
    """Return an interlaced frame with its missing lines filled in from its own fields."""
    graph = av.filter.Graph()
    # The last frames of a decoder come without a unit of time; for a single frame any will do.
    time_base = frame.time_base or Fraction(1, 1000)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    deinterlace = graph.add("estdif", "mode=frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlace)
    deinterlace.link_to(sink)
    graph.configure()
    source.push(frame)
    source.push(None)
    result = sink.pull()
    assert isinstance(result, VideoFrame)
    # The filter graph knows sizes and pixel format only, so the flags of colours are copied past it.
    result.colorspace, result.color_range = frame.colorspace, frame.color_range
    return result
