"""Find copies of real videos that were changed on purpose: encoded anew, cut, mirrored, and so on.

Thresholds were chosen on the copies of every second group (a recording, a sequence, a source); the others are reported.

    python -m benchmarks.robustness.copies SHARED_DATA FOLDER > benchmarks/robustness/copies.json
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.harness import video_writer

SETS = {"fights": ("list.csv", "group"), "ut_interaction": ("manifest.csv", "sequence"), "fir_rgb": ("manifest.csv", "recording")}
WIDTH_PX = 320
LEAST_S = 1.0
CODECS = {
    "h264": ("libx264", {"preset": "ultrafast", "crf": "35"}),
    "mpeg4": ("mpeg4", {"qscale": "12", "flags": "+qscale", "global_quality": str(12 * 118)}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "45", "b:v": "0"}),
    "good h264": ("libx264", {"preset": "ultrafast", "crf": "23"}),
}
KINDS = {
    "H.264, low bitrate": "h264",
    "MPEG-4, low bitrate": "mpeg4",
    "VP9, low bitrate": "vp9",
    "half as wide": "half",
    "cut, begin": "begin",
    "cut, middle": "middle",
    "cut, end": "end",
    "mirrored": "mirrored",
    "12 frames a second": "rate",
    "light and contrast": "light",
    "black bars": "bars",
    "thin border": "border",
    "text": "text",
    "VP9, cut, mirrored": "vp9 middle mirrored",
    "H.264, cut, text, light": "h264 middle text light",
    "MPEG-4, mirrored, bars, 12 a second": "mpeg4 mirrored bars rate",
}


@dataclass(frozen=True)
class Original:
    path: Path
    name: str
    group: str


def originals(shared: Path) -> Iterator[Original]:
    for name, (listed, column) in SETS.items():
        with (shared / name / listed).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield Original(shared / name / row["path"], name, f"{name} {row[column]}")


def write_copy(original: Path, path: Path, kind: str, rng: np.random.Generator) -> tuple[float, float]:
    """Write a changed copy; return the part of the original that it shows, in seconds."""
    ways = KINDS[kind].split()
    with av.open(str(original)) as container:
        stream = container.streams.video[0]
        rate = round(float(stream.average_rate or 25))
        pictures = [frame for frame in container.decode(stream)]
    first, last = kept(len(pictures), rate, ways, rng)
    new_rate = 12 if "rate" in ways else rate
    count = round((last - first) / rate * new_rate)
    width = min(WIDTH_PX, pictures[0].width) // (2 if "half" in ways else 1) // 2 * 2
    height = round(pictures[0].height * width / pictures[0].width / 2) * 2
    gain, more = rng.choice([0.7, 1.3]), rng.choice([-25, 25])
    corner = rng.integers(4)
    encoder, options = CODECS[next((way for way in ways if way in CODECS), "good h264")]
    with video_writer(path, bordered(np.zeros((height, width, 3), np.uint8), ways).shape[1::-1], new_rate, 250, options, encoder) as add:
        for number in range(count):
            picture = pictures[min(first + int(number / new_rate * rate), last - 1)]
            pixels = picture.to_ndarray(format="rgb24", width=width, height=height)
            if "light" in ways:
                pixels = np.clip((pixels - 128.0) * gain + 128 + more, 0, 255).astype(np.uint8)
            if "mirrored" in ways:
                pixels = pixels[:, ::-1]
            if "text" in ways:
                pixels = with_text(pixels, corner)
            add(av.VideoFrame.from_ndarray(np.ascontiguousarray(bordered(pixels, ways)), format="rgb24"))
    return first / rate, last / rate


def kept(count: int, rate: int, ways: list[str], rng: np.random.Generator) -> tuple[int, int]:
    """The first picture that a cut keeps, and the first that it does not."""
    if not {"begin", "middle", "end"} & set(ways):
        return 0, count
    length = min(count, max(round(LEAST_S * rate), round(rng.uniform(0.4, 0.7) * count)))
    first = {"begin": 0, "end": count - length}.get(next(way for way in ways if way in ("begin", "end", "middle")))
    first = int(rng.integers(count - length + 1)) if first is None else first
    return first, first + length


def bordered(pixels_HWC: NDArray[np.uint8], ways: list[str]) -> NDArray[np.uint8]:
    height, width = pixels_HWC.shape[:2]
    if "bars" in ways:
        return np.pad(pixels_HWC, ((height // 16 * 2,) * 2, (0, 0), (0, 0)))
    if "border" in ways:
        return np.pad(pixels_HWC, ((width // 50 * 2,) * 2, (width // 50 * 2,) * 2, (0, 0)), constant_values=255)
    return pixels_HWC


def with_text(pixels_HWC: NDArray[np.uint8], corner: int) -> NDArray[np.uint8]:
    """A watermark over about a fiftieth of the picture, in one of its corners."""
    image = Image.fromarray(np.ascontiguousarray(pixels_HWC))
    size = image.height // 9
    at = ((4, image.width - 5 * size)[corner % 2], (4, image.height - size - 6)[corner // 2])
    ImageDraw.Draw(image).text(at, "CHANNEL 7", fill=(255, 255, 255), font_size=size, stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(image)
