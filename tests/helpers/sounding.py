"""Videos with sound, made by the tests: it becomes louder in steps of a second."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from helpers.numbered import picture


def write_sounding(path: Path, codec: str, rate: int = 8000) -> Path:
    """A numbered video of 4 s with a tone that becomes louder in steps of a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "x264-params": "scenecut=0"})
        sound = container.add_stream(codec, rate=rate)
        assert isinstance(video, VideoStream)
        assert isinstance(sound, AudioStream)
        video.width, video.height, video.pix_fmt, video.gop_size = 160, 64, "yuv420p", 10
        sound.layout = "mono"
        for number in range(100):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
            steps = np.arange(rate // 25)
            tone = 8000 * (number // 25) * np.sin(2 * np.pi * 400 * steps / rate)
            piece = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = rate, number * rate // 25, Fraction(1, rate)
            container.mux(sound.encode(piece))
        container.mux(video.encode())
        container.mux(sound.encode())
    return path


def loudness(path: Path) -> dict[float, float]:
    """The mean level of the sound around each half second."""
    with av.open(str(path)) as container:
        levels: dict[float, list[float]] = {}
        for frame in container.decode(audio=0):
            levels.setdefault(round(2 * (frame.time or 0)) / 2, []).append(float(np.abs(frame.to_ndarray()).mean()))
    return {time_s: float(np.mean(found)) for time_s, found in levels.items()}
