"""Films of several actions: a bar that rises, a square that crosses, a picture that blinks, and stillness between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

WIDTH_PX, HEIGHT_PX, FPS = 96, 72, 25
ACTION_S, STILL_S = 3.0, 1.0
ACTIONS = ("rise", "cross", "blink")
ORDER = ACTIONS * 4
"""The actions of `write_film` by default, one after the other."""


def write_film(path: Path, actions: Sequence[str] = ORDER, codec: str = "libx264") -> Path:
    """Write a film in which each action takes `ACTION_S` seconds, with `STILL_S` of stillness before each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        noise = np.random.default_rng(len(actions))
        for action in actions:
            for part, seconds in (("", STILL_S), (action, ACTION_S)):
                for fraction in np.linspace(0, 1, int(FPS * seconds), endpoint=False):
                    pixels = picture(part, float(fraction)).astype(np.int16) + noise.integers(
                        -4, 5, (HEIGHT_PX, WIDTH_PX, 1)
                    )
                    frame = av.VideoFrame.from_ndarray(np.clip(pixels, 0, 255).astype(np.uint8), format="rgb24")
                    container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def picture(action: str, fraction: float) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of an action at a fraction of its time; of stillness if it is empty."""
    pixels = np.full((HEIGHT_PX, WIDTH_PX, 3), (120, 120, 120), np.uint8)
    if action == "rise":
        pixels[int(HEIGHT_PX * (1 - fraction)) :] = (200, 40, 40)
    elif action == "cross":
        left = int((WIDTH_PX - 24) * fraction)
        pixels[24:48, left : left + 24] = (40, 60, 220)
    elif action == "blink":
        pixels[:] = (240, 230, 90) if int(6 * fraction) % 2 else (30, 110, 40)
    return pixels


def span(number: int) -> tuple[float, float]:
    """Start and end of the action with this number, in seconds."""
    start_s = number * (ACTION_S + STILL_S) + STILL_S
    return start_s, start_s + ACTION_S
