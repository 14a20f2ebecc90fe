"""Videos that are dark but for flashes, and a model that takes the brightness of a window for an action."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from fewframes.inference.predictor import Predictor, load
from fewframes.runtime.protocol import Floats, Frames, WindowEncoding
from fewframes.video.live_settings import StreamConfig

LABELS = ("wave", "background", "kick")
RATE = 5
CONFIG = StreamConfig(window_s=0.8, smooth_s=0.0)
"""Four frames a window, one for each picture of these videos."""


def write_flashes(path: Path, seconds: int, flashes: dict[float, float], length_s: float = 2.0) -> Path:
    """Write a dark video of so many seconds; `flashes` has the brightness (0-1) of each by the second at which it begins."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "10"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 48, 48, "yuv420p", 100
        for number in range(seconds * RATE):
            now_s = number / RATE
            level = max((level for at_s, level in flashes.items() if at_s <= now_s < at_s + length_s), default=0.1)
            pixels = np.full((48, 48, 3), round(255 * level), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def watcher(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A model of four frames whose logit of `wave` is 16 (brightness - 0.5); that of `background` is 0."""
    predictor = load(tiny_model, device="cpu", dtype="float32", runtime="torch")
    width = predictor.runtime.frame_width

    def embed_frames(frames_TCHW: Frames) -> Floats:
        return np.repeat(frames_TCHW.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] / 255, width, axis=1)

    def encode_windows(windows_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:
        bright_B = windows_BTD[..., 0].mean(axis=1)
        logits_BK = np.stack([16 * (bright_B - 0.5), np.zeros_like(bright_B), np.full_like(bright_B, -9)], axis=1)
        attention_BT = np.full(windows_BTD.shape[:2], 1 / windows_BTD.shape[1], np.float32) if with_attention else None
        return WindowEncoding(logits_BK.astype(np.float32), windows_BTD.mean(axis=1), attention_BT)

    monkeypatch.setattr(predictor.runtime, "embed_frames", embed_frames)
    monkeypatch.setattr(predictor.runtime, "encode_windows", encode_windows)
    monkeypatch.setattr(predictor.runtime, "labels", LABELS)
    return predictor
