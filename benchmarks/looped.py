"""Films in which a part of a clip is repeated a known number of times, as real video files, and films without repetitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from examples.make_clips import ACTIONS, clip_frames

FPS = 25
MOST_SIDE_PX = 320
LEAST_S, MOST_S = 5.0, 180.0
PAUSED, VARIED, STRETCHES, BACK, CHANGING = 0.4, 0.5, 0.2, 0.5, 0.7
"""Fractions of films with pauses, with repetitions that look different, of two stretches, there and back, of changing speed."""
Picture = NDArray[np.uint8]
Pictures = Sequence[Picture]


@dataclass(frozen=True)
class Clip:
    """A source of movement: its pictures (H, W, C) at `fps`."""

    name: str
    group: str
    pictures: Pictures
    fps: float
    cyclic: bool = False
    """True if it returns to where it began by itself: played there and back it would show the movement twice."""

    @property
    def seconds(self) -> float:
        return len(self.pictures) / self.fps


@dataclass(frozen=True)
class Loop:
    """A part of a clip that is repeated: at `starts_s`, it plays for `lengths_s` seconds each, and its last picture stands until
    the next begins."""

    first_s: float
    part_s: float
    back: bool
    varied: bool
    starts_s: tuple[float, ...]
    lengths_s: tuple[float, ...]
    end_s: float

    @property
    def count(self) -> int:
        return len(self.starts_s)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def draw_loop(clip: Clip, rng: np.random.Generator, most_s: float = MOST_S) -> Loop:
    """Draw a loop of 2 to 30 repetitions (log-uniform) of 60 to 100 % of a clip, of 5 s to 3 min."""
    clip_s = clip.seconds
    while True:
        part_s = clip_s * (1.0 if clip.cyclic else rng.uniform(0.6, 1))
        count = int(np.exp(rng.uniform(np.log(2), np.log(31))))
        back, pauses, changes = rng.random() < BACK and not clip.cyclic, rng.random() < PAUSED, rng.random() < CHANGING
        speed, time_s = rng.uniform(0.7, 1.5), 0.0
        starts_s, lengths_s = [], []
        for _ in range(count):
            if changes:
                speed = float(np.clip(speed * np.exp(rng.normal(0, 0.15)), 0.5, 2.0))
            starts_s.append(time_s)
            lengths_s.append(part_s * (1 + back) / speed)
            time_s += lengths_s[-1]
            if pauses and rng.random() < 0.25:
                time_s += rng.uniform(0.5, 5)
        if LEAST_S <= time_s <= most_s:
            first_s, varied = rng.uniform(0, clip_s - part_s), bool(rng.random() < VARIED)
            return Loop(first_s, part_s, back, varied, tuple(starts_s), tuple(lengths_s), time_s)


def loop_pictures(clip: Clip, loop: Loop, rng: np.random.Generator) -> Iterator[Picture]:
    """Yield the pictures of a loop at `FPS`. Those of a varied one are zoomed, shifted and lit differently in each repetition."""
    looks = [_Look.drawn(rng) if loop.varied else _Look() for _ in range(loop.count)]
    starts_s = np.array(loop.starts_s)
    for number in range(round(loop.end_s * FPS)):
        time_s = (number + 0.5) / FPS
        repetition = int(np.searchsorted(starts_s, time_s, side="right")) - 1
        done = min(1.0, (time_s - starts_s[repetition]) / loop.lengths_s[repetition])
        source_s = loop.first_s + loop.part_s * ((1 - abs(2 * done - 1)) if loop.back else done)
        index = min(len(clip.pictures) - 1, int(source_s * clip.fps))
        yield looks[repetition].of(clip.pictures[index], rng)


@dataclass(frozen=True)
class _Look:
    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0
    light: float = 1.0
    noise: float = 0.0

    @staticmethod
    def drawn(rng: np.random.Generator) -> _Look:
        return _Look(rng.uniform(1, 1.06), rng.random(), rng.random(), rng.uniform(0.92, 1.08), rng.uniform(1, 4))

    def of(self, picture: Picture, rng: np.random.Generator) -> Picture:
        if self == _Look():
            return picture
        height, width = picture.shape[:2]
        w, h = width / self.zoom, height / self.zoom
        x, y = (width - w) * self.right, (height - h) * self.down
        image = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR, (x, y, x + w, y + h))
        lit = np.asarray(image, np.float32) * self.light + rng.normal(0, self.noise, (height, width, 1))
        return np.clip(lit, 0, 255).astype(np.uint8)


def write(path: Path, pictures: Iterator[Picture] | Pictures, rng: np.random.Generator) -> None:
    """Write pictures at `FPS` as H.264 of a drawn quality and distance of key frames; all have the size of the first."""
    rate, gop = int(rng.integers(20, 33)), int(rng.choice([12, 25, 50, 250]))
    with av.open(str(path), "w") as container:
        stream: VideoStream | None = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream("libx264", rate=FPS, options={"crf": str(rate), "preset": "veryfast"})
                stream.width, stream.height = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2
                stream.pix_fmt, stream.gop_size, stream.thread_count = "yuv420p", gop, 1
            fitted = picture[: stream.height, : stream.width]
            if fitted.shape[:2] != (stream.height, stream.width):
                fitted = np.asarray(Image.fromarray(picture).resize((stream.width, stream.height)))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(fitted), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        assert stream is not None
        container.mux(stream.encode())


def read_clip(path: Path, name: str, group: str) -> Clip:
    """Read a clip, reduced so that its longer side is at most `MOST_SIDE_PX`."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or FPS)
        pictures = []
        for frame in container.decode(stream):
            image = Image.fromarray(frame.to_ndarray(format="rgb24"))
            image.thumbnail((MOST_SIDE_PX, MOST_SIDE_PX))
            pictures.append(np.asarray(image))
    return Clip(name, group, pictures, fps)


# Films


@dataclass(frozen=True)
class Film:
    """A film and the number of repetitions in it, in one or two stretches."""

    name: str
    group: str
    loops: tuple[Loop, ...]

    @property
    def count(self) -> int:
        return sum(loop.count for loop in self.loops)

    def to_dict(self) -> dict[str, object]:
        return {
            "film": self.name,
            "group": self.group,
            "count": self.count,
            "stretches": [loop.count for loop in self.loops],
            "seconds": round(sum(loop.end_s for loop in self.loops), 1),
            "back": [loop.back for loop in self.loops],
            "varied": [loop.varied for loop in self.loops],
        }


def write_loops(path: Path, clip: Clip, other: Clip, rng: np.random.Generator) -> Film:
    """Write a film of a loop of a clip; some have another one, of another clip, after three seconds in which nothing moves."""
    stretches = 1 + (rng.random() < STRETCHES)
    loops = [draw_loop(own, rng, MOST_S / stretches) for own in (clip, other)[:stretches]]

    def pictures() -> Iterator[Picture]:
        for own, loop in zip((clip, other), loops, strict=False):
            last: Picture | None = None
            for last in loop_pictures(own, loop, rng):
                yield last
            if last is not None and own is clip and stretches == 2:
                yield from [last] * (3 * FPS)

    if not path.is_file():
        part = path.with_suffix(".part.mp4")
        write(part, pictures(), rng)
        part.rename(path)
    return Film(path.stem, clip.group, tuple(loops))


def write_still(path: Path, picture: Picture, rng: np.random.Generator, seconds: float = 20.0) -> None:
    """Write a film of one picture under a camera's noise."""
    noise = rng.uniform(0, 4)
    shown = (
        np.clip(picture + rng.normal(0, noise, (*picture.shape[:2], 1)), 0, 255).astype(np.uint8)
        for _ in range(round(seconds * FPS))
    )
    write(path, shown, rng)


# Drawn figures and shapes


def drawn_clip(number: int) -> Clip:
    """Draw a clip of two figures (examples/make_clips.py), or of a shape that moves; none is like another."""
    rng = np.random.default_rng([24, number])
    if number % 2 == 0:
        action = ACTIONS[number // 2 % len(ACTIONS)]
        return Clip(f"{action}-{number}", f"drawn{number}", clip_frames(action, rng), 25, cyclic=True)
    kind = SHAPES[number // 2 % len(SHAPES)]
    return Clip(f"{kind.__name__[1:]}-{number}", f"drawn{number}", list(_shapes(kind, rng)), 25)


def _shapes(
    kind: Callable[[ImageDraw.ImageDraw, float, Sequence[float]], None], rng: np.random.Generator
) -> Iterator[Picture]:
    """Yield three seconds of a shape over a ground of soft stains."""
    stains = Image.fromarray(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)).resize(
        (288, 208), Image.Resampling.BICUBIC
    )
    values = rng.random(6).tolist()
    for number in range(75):
        image = stains.copy()
        kind(ImageDraw.Draw(image), number / 75, values)
        noise = rng.normal(0, 2.5, (208, 288, 1))
        yield np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)


def _colour(values: Sequence[float]) -> tuple[int, int, int]:
    return int(255 * values[3]), int(255 * values[4]), int(255 * values[5])


def _falling(draw: ImageDraw.ImageDraw, done: float, values: Sequence[float]) -> None:
    x, y, r = 60 + 160 * values[0], 30 + 150 * done**2, 14 + 16 * values[1]
    draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(values))


def _turning(draw: ImageDraw.ImageDraw, done: float, values: Sequence[float]) -> None:
    x, y, r = 144 + 60 * (values[0] - 0.5), 104, 40 + 30 * values[1]
    angle = 2 * np.pi * done
    draw.line((x, y, x + r * np.cos(angle), y + r * np.sin(angle)), fill=_colour(values), width=int(8 + 8 * values[2]))


def _growing(draw: ImageDraw.ImageDraw, done: float, values: Sequence[float]) -> None:
    x, y, r = 80 + 120 * values[0], 104, 10 + 60 * done
    draw.rectangle((x - r, y - r / 2, x + r, y + r / 2), fill=_colour(values))


def _crossing(draw: ImageDraw.ImageDraw, done: float, values: Sequence[float]) -> None:
    x, y, side = 10 + 230 * done, 40 + 110 * values[0], 18 + 14 * values[1]
    draw.rectangle((x, y, x + side, y + side), fill=_colour(values))


SHAPES = (_falling, _turning, _growing, _crossing)
