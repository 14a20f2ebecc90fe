"""Read pictures as a video: lists of arrays, folders of images, image files with one picture, pages or an animation."""

from __future__ import annotations

import io
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import ArrayLike
from PIL import Image, features

from fewframes.core.guards import Guard
from fewframes.core.natural import equal_groups, in_natural_order, repeated_numbers, unclear_order, without_numbers
from fewframes.core.storage import unbroken
from fewframes.core.text import count_of
from fewframes.errors import VideoError
from fewframes.results import Clip, ClockStep, Reading, Work
from fewframes.video.decode.container import Limits
from fewframes.video.decode.packets import SAME_S
from fewframes.video.pictures.arrays import FrameStack, Prepare
from fewframes.video.pictures.display import Pixels, check_pixels
from fewframes.video.pictures.images import ANIMATED, opened, pages_of, pixels_of_pil, reading, shown_s

log = logging.getLogger("fewframes")

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
"""The file name endings of the pictures in a folder of images."""
OTHER_IMAGE_SUFFIXES = frozenset(
    ".arw .cr2 .cr3 .dng .dpx .exr .hdr .heic .heif .jxl .nef .orf .pcx .psd .raw .rw2 .svg .tga".split()
)
"""The file name endings of images that are not read as frames; those in a folder of images are named."""

START_BYTES = 16
"""The number of first bytes that tell an image file."""
IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of files that Pillow reads better. FFmpeg finds one of their pictures only, or ignores their depth."""
JPEG_START, PROBED_BYTES = b"\xff\xd8\xff", 2**20
"""The first bytes of a JPEG, and how many bytes are read to tell a photograph from a video of JPEGs."""
AVIF_KINDS = (b"ftypavif", b"ftypavis")
"""Bytes 4 to 11 of an AVIF picture and of an AVIF animation."""


class PictureVideo:
    """A video of pictures that can each be read by itself: an `OpenVideo`."""

    def __init__(
        self,
        name: str,
        starts_s: Sequence[float],
        duration_s: float,
        read: Callable[[int], Pixels],
        close: Callable[[], None] | None = None,
    ) -> None:
        """Make a video of pictures.

        Args:
            name: what messages call the video.
            starts_s: when each picture begins, in seconds, ascending.
            duration_s: when the last picture ends.
            read: a function of an index that returns the picture (H, W, C) there.
            close: a function that closes the file, if there is one.

        Raises:
            VideoError: if there are no pictures.
        """
        if not starts_s:
            raise VideoError(f"{name}: no frames in it; pass at least one")
        self.name, self.duration_s = name, duration_s
        self._guard = Guard(name)
        self._starts_s, self._read, self._close, self._num_read = starts_s, read, close, 0

    def frames_at(self, times_s: ArrayLike, prepare: Prepare | None = None, tolerance_s: float = 0.0) -> Clip:  # noqa: ARG002
        """Return a clip as `OpenVideo.frames_at` does. No timestamp moves, because all frames are equally cheap."""
        indices = [self._index(time_s) for time_s in np.asarray(times_s, np.float64).tolist()]
        distinct = sorted(set(indices))
        stack = FrameStack(len(distinct), prepare)
        with self._guard:
            stacked = {index: stack.add(self._read(index)) for index in distinct}
            self._num_read += len(distinct)
        first_s = [self._starts_s[index] for index in indices]
        indices_in_stack = [stacked[index] for index in indices]
        return stack.clip(indices_in_stack, first_s, self.duration_s, self.name, Reading(self._num_read, 0, 0, 0))

    def span_s(self, times_s: ArrayLike) -> float:
        """Return for how many seconds the pictures at timestamps (T,) are shown, on average; no others are read."""
        return np.size(times_s) * self.duration_s / len(self._starts_s)

    def work(self, times_s: ArrayLike, tolerance_s: float = 0.0) -> Work:  # noqa: ARG002
        """Return the seconds of `span_s`. The bytes of pictures are not counted."""
        return Work(self.span_s(times_s), 0.0)

    def steps(self) -> tuple[ClockStep, ...]:
        """Return no gaps, because no clock says when the pictures are shown."""
        return ()

    def check(self, start_s: float, end_s: float) -> None:
        """Read every picture that is shown between two times, in seconds. Raises VideoError if one cannot be read."""
        for index, first_s in enumerate(self._starts_s):
            ends_s = self._starts_s[index + 1] if index + 1 < len(self._starts_s) else self.duration_s
            if ends_s > start_s + SAME_S and first_s < end_s - SAME_S:
                with self._guard:
                    self._read(index)

    def close(self) -> None:
        """Close the file, if there is one."""
        if not self._guard.close():
            return
        if self._close is not None:
            self._close()
        self._close = self._read = _nothing  # the pictures are freed with them, although this object may live on

    def _index(self, time_s: float) -> int:
        """Return the index of the picture shown at `time_s`."""
        return max(0, bisect_right(self._starts_s, time_s + SAME_S) - 1)


def _nothing(*_: object) -> Any:
    """Stand in for a function that is not called any more."""


def steady_times(num_pictures: int, fps: float) -> tuple[list[float], float]:
    """Return when each picture begins at a steady rate, and when the last one ends, in seconds.

    Raises ValueError if `fps` is not a number above 0.
    """
    if not 0 < fps < math.inf:
        raise ValueError(f"fps = {fps}: needs to be above 0")
    return [index / fps for index in range(num_pictures)], num_pictures / fps


def open_folder(folder: Path, fps: float, limits: Limits, num_videos: int) -> PictureVideo:
    """Open a folder of images as a video, in the order of their numbers. Hidden files are ignored.

    Args:
        folder: the folder.
        fps: the frame rate.
        limits: the largest frames that are read.
        num_videos: the number of videos in the folder, which the error of a folder without images names.

    Raises:
        VideoError: if there are no images, or images of several sequences (several cameras, or several formats).
    """
    files = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and not entry.is_dir()]
    names = [entry.name for entry in files if entry.suffix.lower() in IMAGE_SUFFIXES]
    others = in_natural_order(entry.name for entry in files if entry.suffix.lower() in OTHER_IMAGE_SUFFIXES)
    if others and len(others) >= len(names):
        raise VideoError(
            f"{folder}: {len(others)} of its {len(names) + len(others)} images, such as {others[0]}, are of a kind that is not "
            "read as frames; save them as JPEG or PNG"
        )
    if not names:
        raise VideoError(
            f"{folder}: a folder with {count_of(num_videos, 'video')} and no images in it; pass a video, or a folder of images"
        )
    if twice := repeated_numbers(names):
        raise VideoError(
            f"{folder}: {len(twice)} of its {len(names)} images share their number with another one, such as {twice[0]} and "
            f"{twice[1]}: more than one sequence; give each a folder of its own"
        )
    if unclear := unclear_order(names):
        raise VideoError(
            f"{folder}: the order of {unclear[0]} and {unclear[1]} is not clear: the digits after the point may be a fraction or a "
            "counter; write all with equally many digits"
        )
    if groups := equal_groups(names):
        log.warning(
            "%s: its images are numbered alike in %d groups, which are read one after the other; where these are several cameras, "
            "give each a folder of its own",
            folder,
            groups,
        )
    if others:
        log.warning("%s: %d images are left out, such as %s; save them as JPEG or PNG", folder, len(others), others[0])
    if strangers := without_numbers(names):
        log.warning(
            "%s: %d of its %d images have no number, such as %s, and are frames too; where they are a cover or a preview, move "
            "them elsewhere",
            folder,
            len(strangers),
            len(names),
            strangers[0],
        )
    paths = [folder / name for name in in_natural_order(names)]

    def read_image(index: int) -> Pixels:
        """Read the image at an index of the folder. Raises VideoError if it holds several pictures."""
        with opened(paths[index], str(paths[index]), limits.max_pixels) as image:
            pages = pages_of(image)
            if len(pages) > 1:
                raise VideoError(
                    f"{paths[index]}: holds {len(pages)} pictures (a {image.format} animation, or pages), one of "
                    f"{len(paths)} images in a folder; pass it by itself, or save them one by one"
                )
            return pixels_of_pil(image)

    return PictureVideo(str(folder), *steady_times(len(paths), fps), read_image)


def is_image(file: str | IO[bytes], name: str) -> bool:
    """Return whether Pillow reads a file. Its first bytes decide, not its name. An open file is left at its start."""
    if isinstance(file, str):
        with open(file, "rb") as opened_file:
            return is_image(opened_file, name)
    start = file.read(START_BYTES)
    file.seek(0)
    if start.startswith(IMAGE_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return True
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return True
    if start[4:12] in AVIF_KINDS:
        return bool(features.check("avif"))
    return start.startswith(JPEG_START) and not _is_motion_jpeg(file, name)


def open_image(file: str | IO[bytes], name: str, fps: float, limits: Limits) -> PictureVideo:
    """Open an image file as a video.

    One picture or the pages of a TIFF have a steady rate; an animation has its own times.

    Args:
        file: a path, or an open binary file.
        name: what messages call the file.
        fps: the frame rate of pages.
        limits: the largest frames and the longest video that are read.

    Raises:
        VideoError: if the file is damaged.
        TooLarge: if it is above the limits.
    """
    with unbroken(file), ExitStack() as stack:
        image = stack.enter_context(opened(file, name, limits.max_pixels))
        pages = pages_of(image)
        if len(pages) > 1 and image.format in ANIMATED:
            starts_s, duration_s = _times(image, pages, name, limits)
        else:
            starts_s, duration_s = steady_times(len(pages), fps)
            limits.check_length(name, duration_s)
        held = stack.pop_all()

    def read_page(index: int) -> Pixels:
        """Read the page or frame at an index of `pages`."""
        with unbroken(file), reading(name):
            image.seek(pages[index])
            check_pixels(name, image.width, image.height, limits.max_pixels)  # each page has a size of its own
            return pixels_of_pil(image)

    return PictureVideo(name, starts_s, duration_s, read_page, held.close)


def _times(image: Image.Image, pages: Sequence[int], name: str, limits: Limits) -> tuple[list[float], float]:
    """Return when each frame of an animation begins, and when the last one ends, in seconds.

    Each frame is decoded, because its own duration is known only then. Raises TooLarge above the limits.
    """
    ends_s = [0.0]
    for page in pages:
        image.seek(page)
        image.load()
        ends_s.append(ends_s[-1] + shown_s(image))
        limits.check_length(name, ends_s[-1])
    return ends_s[:-1], ends_s[-1]


def _is_motion_jpeg(file: IO[bytes], name: str) -> bool:
    """Return whether a file is a video of JPEGs, one after the other.

    A photograph may hold further JPEGs too, such as a preview. Its first JPEG says that they belong to it (the format MPO).
    """
    if name.lower().endswith((".mjpeg", ".mjpg")):
        return True
    start = file.read(PROBED_BYTES)
    file.seek(0)
    try:
        with av.open(io.BytesIO(start)) as container:
            if container.format.name != "mjpeg":
                return False
    except FFmpegError:
        return False
    with reading(name), Image.open(file) as image:
        is_photo = image.format == "MPO"
    file.seek(0)
    return not is_photo
