"""Videos made by the tests: each frame carries its own number in its pixels, as black and white bars; and fading ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import ArrayLike, NDArray

NUM_BARS = 10
BAR_PX = 16
WIDTH_PX, HEIGHT_PX = NUM_BARS * BAR_PX, 64
CLOCK = 1000  # ticks a second of `times_ms`


@contextmanager
def own_priority() -> Iterator[None]:
    """This thread is scheduled as before: where it may (as root), SVT-AV1 makes it a real-time one, and so all that is started
    from it; a browser then takes the whole machine."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """How to write a numbered video."""

    codec: str = "libx264"
    suffix: str = ".mp4"
    format: str | None = None
    pix_fmt: str = "yuv420p"
    gop: int = 12
    bframes: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    mux_options: dict[str, str] = field(default_factory=dict)
    times_ms: Sequence[int] = tuple(range(0, 2400, 40))
    width: int = WIDTH_PX
    height: int = HEIGHT_PX

    def write(self, path: Path) -> Path:
        """Write the video beside `path` with this format's ending, and say where."""
        path = path.with_suffix(self.suffix)
        with own_priority(), av.open(str(path), "w", format=self.format, options=self.mux_options) as container:
            stream = container.add_stream(self.codec, rate=25, options=self.options)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.pix_fmt
            stream.gop_size = self.gop
            if self.bframes is not None:
                stream.codec_context.max_b_frames = self.bframes
            steady = set(np.diff(self.times_ms)) <= {40}
            clock = Fraction(1, 25) if steady else Fraction(1, CLOCK)
            stream.codec_context.time_base = clock
            for number, time_ms in enumerate(self.times_ms):
                frame = av.VideoFrame.from_ndarray(picture(number, self.width, self.height), format="rgb24")
                frame.pts, frame.time_base = int(Fraction(time_ms, CLOCK) / clock), clock
                container.mux(stream.encode(frame.reformat(format=self.pix_fmt)))
            container.mux(stream.encode())
        return path


def picture(number: int, width: int = WIDTH_PX, height: int = HEIGHT_PX) -> NDArray[np.uint8]:
    """(H, W, 3) with the binary digits of `number` as bars, the lowest at the left."""
    bits = np.array([number >> bit & 1 for bit in range(NUM_BARS)], dtype=np.uint8) * 255
    row = np.repeat(bits, width // NUM_BARS)
    row = np.pad(row, (0, width - len(row)))
    return np.repeat(np.broadcast_to(row, (height, width))[..., None], 3, axis=2).copy()


def numbers(frames: ArrayLike) -> list[int]:
    """The numbers that frames carry; fails when a bar is neither black nor white."""
    frames_TCHW = np.asarray(frames)
    bar_px = frames_TCHW.shape[-1] // NUM_BARS
    inner = frames_TCHW.mean(axis=1)[:, :, : NUM_BARS * bar_px]
    inner = inner.reshape(*inner.shape[:2], NUM_BARS, bar_px)
    levels = inner[..., bar_px // 4 : -(bar_px // 4)].mean(axis=(1, 3))
    assert ((levels < 64) | (levels > 192)).all(), f"bars of unclear brightness: {levels.tolist()}"
    return [sum(int(level > 128) << bit for bit, level in enumerate(row)) for row in levels.tolist()]


def write_fading(path: Path, num_frames: int, *, turned: bool) -> None:
    """A clip whose colour goes from blue to red, or back."""
    shares = np.linspace(0, 1, num_frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for share in shares[::-1] if turned else shares:
            pixels = np.full((48, 64, 3), [255 * share, 60, 255 * (1 - share)], dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def drifting(
    path: Path,
    codec: str,
    num_frames: int,
    *,
    gop: int,
    options: dict[str, str],
    size: int = 96,
    pix_fmt: str = "yuv420p",
    mux_options: dict[str, str] | None = None,
) -> Path:
    """Write a video of 25 frames/s in which a picture of noise drifts under grain: all kinds of pictures are worth coding."""
    noise = np.random.default_rng(0)
    scene = noise.integers(0, 255, (size // 8, size, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with own_priority(), av.open(str(path), "w", options=mux_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = size, size, pix_fmt, gop
        for number in range(num_frames):
            part = scene[:size, 3 * number % (6 * size) :][:, :size].astype(np.int16)
            pixels = np.clip(part + noise.integers(-9, 9, part.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path
