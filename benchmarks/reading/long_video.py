"""Memory and time while labelling a two-hour full-HD file.

    python benchmarks/long_video.py > benchmarks/results/long_video.json

Makes the file first (about 2 GB in a temporary folder): 20 s of moving noise and shapes, encoded once as H.264 1920x1080
at 30 frames/s with a key frame every 250, its packets repeated to two hours. Resident memory is read by a thread
every 5 ms; "above the model" is the peak while labelling less what was resident after the model had labelled a short clip.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import machine
import numpy as np
from av.video.stream import VideoStream

import fewframes

WIDTH, HEIGHT, FPS, PART_S, HOURS = 1920, 1080, 30, 20, 2


def write_part(path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "30"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", 250
        for number in range(PART_S * FPS):
            pixels = np.roll(noise // 2, number * 3, axis=1)
            x = number * 5 % (WIDTH - 300)
            pixels[300:700, x : x + 300] = (200, 120, 60)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def repeat_part(part: Path, whole: Path) -> None:
    with av.open(str(part)) as source:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        length = sum(packet.duration or 0 for packet in packets)
        with av.open(str(whole), "w") as target:
            out = target.add_stream_from_template(stream)
            for repeat in range(HOURS * 3600 // PART_S):
                for packet in packets:
                    copy = av.Packet(bytes(packet))
                    assert packet.pts is not None
                    assert packet.dts is not None
                    copy.pts, copy.dts = packet.pts + repeat * length, packet.dts + repeat * length
                    copy.duration, copy.time_base, copy.stream = packet.duration, packet.time_base, out
                    copy.is_keyframe = packet.is_keyframe
                    target.mux(copy)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Peak(threading.Thread):
    """Watches resident memory until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.stop = 0, threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.005):
            self.bytes = max(self.bytes, resident_bytes())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        part, whole = Path(folder) / "part.mp4", Path(folder) / "whole.mp4"
        write_part(part)
        repeat_part(part, whole)
        predictor = fewframes.load()
        predictor.predict(machine.ROOT / "examples" / "hug.mp4")
        results = []
        for num_frames in (16, 16, 64):
            before = resident_bytes()
            peak = Peak()
            peak.start()
            began = time.perf_counter()
            prediction = predictor.predict(whole, num_frames=num_frames)
            seconds = time.perf_counter() - began
            peak.stop.set()
            peak.join()
            results.append(
                {
                    "frames": num_frames,
                    "seconds": round(seconds, 2),
                    "decode_s": round(prediction.timing.decode_s, 2),
                    "MB above the model": round((peak.bytes - before) / 1e6, 1),
                    "MB in all": round(peak.bytes / 1e6, 1),
                    "last frame at_s": round(float(prediction.times_s[-1]), 2),
                }
            )
        size = whole.stat().st_size
    print(json.dumps({"machine": machine.describe(), "file MB": round(size / 1e6), "runs": results}, indent=1))


if __name__ == "__main__":
    main()
