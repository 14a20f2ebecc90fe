"""Films of drawn persons who walk through the picture, with where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewframes.video.regions.boxes import Box

FPS = 10


@dataclass(frozen=True)
class Walker:
    """A drawn person whose feet move from `start` to `end` (x, y) between two times; 3 colours, `height_px` high."""

    start: tuple[float, float]
    end: tuple[float, float]
    from_s: float
    to_s: float
    height_px: float = 90
    colour: tuple[int, int, int] = (60, 60, 60)

    def box(self, time_s: float) -> Box | None:
        """Where it is at a time, None before and after."""
        if not self.from_s <= time_s <= self.to_s:
            return None
        share = (time_s - self.from_s) / max(1e-9, self.to_s - self.from_s)
        x, foot = (a + share * (b - a) for a, b in zip(self.start, self.end, strict=True))
        half = 0.16 * self.height_px
        return Box(x - half, foot - self.height_px, x + half, foot)


def draw_person(draw: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int]) -> None:
    height, x, top = box.y1 - box.y0, (box.x0 + box.x1) / 2, box.y0
    wide = 0.28 * height
    draw.ellipse((x - 0.065 * height, top, x + 0.065 * height, top + 0.14 * height), fill=colour)
    trunk = (x - wide / 2, top + 0.15 * height, x + wide / 2, top + 0.55 * height)
    draw.rounded_rectangle(trunk, radius=0.06 * height, fill=colour)
    hips, knees = top + 0.5 * height, top + 0.62 * height
    legs = [(-0.42, hips), (0.42, hips), (0.55, box.y1), (0.2, box.y1), (0, knees), (-0.2, box.y1), (-0.55, box.y1)]
    draw.polygon([(x + part * wide, y) for part, y in legs], fill=colour)


def picture_of(walkers: Sequence[Walker], time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) at a time."""
    image = Image.new("RGB", size, (200, 200, 200))
    draw = ImageDraw.Draw(image)
    for walker in walkers:
        box = walker.box(time_s)
        if box is not None:
            draw_person(draw, box, walker.colour)
    return np.asarray(image)


def write_walkers(path: Path, walkers: Sequence[Walker], seconds: float, size: tuple[int, int] = (240, 160)) -> Path:
    """A film of these persons, 10 pictures a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(round(seconds * FPS)):
            pixels = picture_of(walkers, number / FPS, size)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


class ByColour:
    """A detector of dark things of one colour channel: it finds the box around all pixels where that channel stands out."""

    def boxes(self, picture_HWC: NDArray[np.uint8], time_s: float) -> Sequence[Box]:
        found = []
        for channel in range(3):
            others = np.delete(picture_HWC, channel, axis=2).max(axis=2).astype(int)
            rows, columns = np.nonzero(picture_HWC[..., channel] - others > 60)
            if len(rows):
                found.append(Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        return found


def by_colour() -> ByColour:
    return ByColour()
