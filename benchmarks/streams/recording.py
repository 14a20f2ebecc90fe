"""Clips of events: what it costs to keep a stream's packets, what a clip costs, and the memory over hours of stream.

    python -m benchmarks.streams.recording ../shared/data > benchmarks/streams/recording.json

The stream: a minute of joined clips of fights and of peaceful footage, scaled to 640x360 px, in MPEG-TS (H.264, 25 pictures a
second, two B-pictures, a key frame each two seconds).

`reading`: the minute through `LiveReader`, five frames a second made ready for the network, without and with a recorder that keeps
25 s; interleaved, in one process. Processor time counts, for others use the machine too.

`clip`: 15 s cut out of what is kept, and the same seconds decoded and encoded again (libx264, veryfast), interleaved.

`memory`: the minute again and again through a pipe, as fast as it is decoded; its clock jumps back with each minute. A clip of 12 s
is cut in each minute. The resident memory of the process is looked at after each ten minutes of stream.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from benchmarks.harness import interleaved, least_median_most, ratios, resident_bytes, write_result
from fewframes.core.process import keep_memory
from fewframes.video.live import LiveReader
from fewframes.video.live_queue import WAITING, LiveFrame
from fewframes.video.live_settings import StreamConfig
from fewframes.video.live_source import LiveSource, Recorded
from fewframes.video.recording.recorder import Recorder
from fewframes.video.transforms import fit_frame
from fewframes.video.view import ViewConfig

MINUTE_S, FPS, SIZE = 60, 25, (640, 360)
KEEP_S = 25.0
INTERVAL_S = 0.2
ROUNDS = 7
VIEW = ViewConfig()


class Repeated:
    """A file again and again, as a pipe gives it."""

    def __init__(self, path: Path, times: int) -> None:
        self._content, self._left, self._at = path.read_bytes(), times, 0
        self.name = "repeated"

    def read(self, size: int, /) -> bytes:
        if self._at == len(self._content):
            self._left, self._at = self._left - 1, 0
        if self._left == 0:
            return b""
        piece = self._content[self._at : self._at + size]
        self._at += len(piece)
        return piece


def write_minute(data: Path, path: Path) -> None:
    """Join clips to a minute."""
    clips = sorted((data / "fights").glob("*/*.mp4"))
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "x264-params": "scenecut=0"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.gop_size, stream.codec_context.max_b_frames = "yuv420p", 2 * FPS, 2
        num_frames = 0
        for clip in np.random.default_rng(0).permutation(np.array(clips, dtype=object)):
            with av.open(str(clip)) as source:
                for frame in source.decode(video=0):
                    if num_frames < MINUTE_S * FPS:
                        made = frame.reformat(*SIZE, format="yuv420p")
                        made.pts, made.time_base = num_frames, Fraction(1, FPS)
                        container.mux(stream.encode(made))
                        num_frames += 1
        container.mux(stream.encode(None))


def read(source: LiveSource, each: Callable[[LiveFrame], None] = lambda frame: None) -> int:
    """Read a source to its end. Return the number of frames."""
    num_frames = 0
    with closing(
        LiveReader(source, StreamConfig(), INTERVAL_S, lambda frame_CHW: fit_frame(frame_CHW, VIEW))
    ) as reader:
        while (items := reader.take(WAITING, 0.05)) is not None:
            for item in items:
                if isinstance(item, LiveFrame):
                    num_frames += 1
                    each(item)
    return num_frames


def reading(minute: Path) -> dict[str, object]:
    taken = interleaved(
        {"without": lambda: read(str(minute)), "with": lambda: read(Recorded(str(minute), Recorder(KEEP_S)))}, ROUNDS
    )
    return {
        "rounds": ROUNDS,
        "processor s": {name: least_median_most(values) for name, values in taken.items()},
        "with over without": least_median_most(ratios(taken["with"], taken["without"])),
    }


def encoded_again(minute: Path, path: Path) -> None:
    with av.open(str(minute)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        source.streams.video[0].codec_context.thread_count = 1
        source.seek(int(40 * av.time_base))
        for number, frame in enumerate(source.decode(video=0)):
            if number == 15 * FPS:
                break
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def clip(minute: Path, folder: Path) -> dict[str, object]:
    """The cost of a clip. A recorder whose source has ended cuts it at once."""

    def ready() -> Recorder:
        recorder = Recorder(KEEP_S)
        read(Recorded(str(minute), recorder))
        return recorder

    waiting = [ready() for _ in range(ROUNDS + 1)]

    def cut() -> None:
        recorder = waiting.pop()
        found = recorder.cut(folder / "cut", 41.0, 1.0, end_s=55.0)
        recorder.close()
        assert not found.error
        assert not found.shortened

    taken = interleaved({"cut": cut, "encoded": lambda: encoded_again(minute, folder / "encoded.mp4")}, ROUNDS)
    return {
        "processor ms": {name: least_median_most([1e3 * value for value in values]) for name, values in taken.items()}
    }


def memory(minute: Path, folder: Path, minutes: int) -> dict[str, object]:
    recorder, due = Recorder(KEEP_S), [30.0]
    held: list[dict[str, float]] = []
    clips = []

    def look(frame: LiveFrame) -> None:
        if frame.time_s < due[0]:
            return
        due[0] += MINUTE_S
        clips.append(recorder.cut(folder / "one", frame.time_s, 5.0, end_s=frame.time_s + 7.0))
        del clips[:-2]
        if round(frame.time_s / MINUTE_S - 0.5) % 10 == 0:
            held.append(
                {
                    "minutes": round(frame.time_s / 60),
                    "resident MB": round(resident_bytes() / 1e6, 1),
                    "kept MB": round(recorder.num_bytes / 1e6, 2),
                }
            )

    num_frames = read(Recorded(Repeated(minute, minutes), recorder), look)
    recorder.close()
    return {"frames": num_frames, "minutes of stream": minutes, "over time": held}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=int, default=181)
    given = parser.parse_args()
    keep_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minute = folder / "minute.ts"
        write_minute(given.data, minute)
        over_time = memory(minute, folder, given.minutes)  # before videos are encoded, which leaves memory behind
        write_result(
            stream={"seconds": MINUTE_S, "size": list(SIZE), "MB": round(minute.stat().st_size / 1e6, 2)},
            reading=reading(minute),
            clip=clip(minute, folder),
            memory=over_time,
        )


if __name__ == "__main__":
    main()
