"""Memory and time while labelling a two-hour full-HD file.

    python -m benchmarks.reading.long_video > benchmarks/reading/long_video.json

Makes the file first (about 2 GB in a temporary folder): 20 s of moving noise and shapes, encoded once as H.264 1920x1080
at 30 frames/s with a key frame every 250, its packets repeated to two hours. Resident memory is read by a thread
every 5 ms; "above the model" is the peak while labelling less what was resident after the model had labelled a short clip.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import av
import numpy as np

import fewframes
from benchmarks.harness import ROOT, Peak, repeat_video, video_writer, write_result

FULL_HD, FPS, PART_S, HOURS = (1920, 1080), 30, 20, 2


def two_hours(folder: Path, size: tuple[int, int] = FULL_HD) -> Path:
    """A file of this width and height, of one part again and again."""
    part, whole = folder / "part.mp4", folder / "whole.mp4"
    write_part(part, size)
    repeat_video(part, whole, PART_S, HOURS * 3600 // PART_S)
    return whole


def write_part(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    with video_writer(path, size, FPS, 250, {"preset": "veryfast", "crf": "30"}) as add:
        for number in range(PART_S * FPS):
            pixels = np.roll(noise // 2, number * 3, axis=1)
            x = number * 5 % (width - 300)
            pixels[300:700, x : x + 300] = (200, 120, 60)
            add(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = two_hours(Path(folder))
        predictor = fewframes.load()
        predictor.predict(ROOT / "examples" / "hug.mp4")
        results = []
        for num_frames in (16, 16, 64):
            began = time.perf_counter()
            with Peak() as peak:
                prediction = predictor.predict(whole, num_frames=num_frames)
            results.append(
                {
                    "frames": num_frames,
                    "seconds": round(time.perf_counter() - began, 2),
                    "decode_s": round(prediction.timing.decode_s, 2),
                    "MB above the model": peak.added_mb,
                    "MB in all": round(peak.bytes / 1e6, 1),
                    "last frame at_s": round(float(prediction.times_s[-1]), 2),
                }
            )
        size = whole.stat().st_size
    write_result(**{"file MB": round(size / 1e6)}, runs=results)


if __name__ == "__main__":
    main()
