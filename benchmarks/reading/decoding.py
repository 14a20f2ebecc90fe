"""What 16 uniform frames of a video cost to read, beside other readers: seconds by length, key frames, size and codec.

    pip install opencv-python-headless decord torchcodec
    python -m benchmarks.reading.decoding --videos FOLDER --threads 1 --real ../shared/data > benchmarks/reading/FILE.json
    python -m benchmarks.reading.decoding --table benchmarks/reading/FILE.json  # as in docs/explanation/performance.md

Readers: `fewframes` (exact), `fewframes-0.1` and `fewframes-0.5` (timestamps may move by that fraction of the interval);
`pyav-all` (PyAV decodes everything up to the last wanted frame), `opencv` (position set, frame read), `decord` (get_batch),
`torchcodec` (get_frames_played_at, seek_mode exact). torchcodec needs FFmpeg's libraries, for which those inside PyAV serve when
`--ffmpeg` names a folder that has them under their plain names. Each opens the file, reads 16 frames as uint8 RGB at full size
and closes it; each lives in a process of its own; turns are interleaved; files lie in the system's cache.

Videos are made once: a picture of noise that drifts under grain, 30 frames/s, encoded as 10 s and joined to longer files without
encoding again. `floor` is the time that decoding alone takes, of the packets that must be decoded for the exact frames.
Figures: median seconds over turns (processor time with one thread, by the clock with two), and of ours the median over turns of
the ratio to the best exact peer of the same turn.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import torch
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from torch.nn import functional as F

from benchmarks.harness import least_median_most, repeat_video, video_writer, write_result
from fewframes.core.text import count_of
from fewframes.video.source import VIDEO_SUFFIXES

NUM_FRAMES, FPS, SEGMENT_S = 16, 30, 10
SIZES = {256: (340, 256), 1080: (1920, 1080)}
GRAIN = {256: 0.03, 1080: 0.015}
"""So that files are as large as people's: 0.3 to 0.8 MB for 10 s in H.264 at 256p, 1 to 2 MB at 1080p."""
ENCODERS = {
    "h264": ("libx264", ".mp4", {"preset": "medium", "crf": "23"}),
    "hevc": ("libx265", ".mp4", {"preset": "fast", "crf": "28", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "6", "crf": "35", "b": "0"}),
    "av1": ("libsvtav1", ".mp4", {"preset": "8", "crf": "40"}),
    "mpeg4": ("mpeg4", ".mp4", {"bf": "2", "qscale": "5"}),
}
OURS = {"fewframes": 0.0, "fewframes-0.1": 0.1, "fewframes-0.5": 0.5}
PEERS = ("pyav-all", "opencv", "decord", "torchcodec")
CLOCKS = {1: time.process_time, 2: time.perf_counter}
"""By number of threads. With one, processor time of the whole process says the same as the clock on an idle machine, and does
not count the neighbours on one that is not."""
REAL_SETS = {
    "UT-Interaction": "ut_interaction",
    "daily movements": "fir_rgb",
    "fights": "fights",
    "single clips": "clips",
}
NUM_REAL = 6
"""The number of videos of each real set."""
SLOW_S = 20.0
"""A reader that takes longer than this is not asked again in that cell."""


@dataclass(frozen=True)
class Cell:
    codec: str
    seconds: int
    gop: int
    height: int

    @property
    def name(self) -> str:
        return f"{self.codec} {self.height}p {self.seconds} s gop {self.gop}"


def cells() -> Iterator[Cell]:
    for height in SIZES:
        for gop in (12, 30, 250):
            for seconds in (10, 60, 600):
                if height == 256 or seconds < 600 or gop == 12:  # others decode for minutes, and say what these say
                    yield Cell("h264", seconds, gop, height)
    for codec in ("hevc", "vp9", "av1", "mpeg4"):
        for seconds, gop, height in ((10, 30, 256), (10, 250, 256), (600, 30, 256), (10, 30, 1080)):
            yield Cell(codec, seconds, gop, height)


def write(folder: Path, cell: Cell) -> Path:
    """The cell's file, made when it is not there yet."""
    encoder, suffix, options = ENCODERS[cell.codec]
    path = folder / f"{cell.codec}-{cell.height}p-gop{cell.gop}-{cell.seconds}s{suffix}"
    if path.exists():
        return path
    part = path.with_stem(path.stem + ".part")
    if cell.seconds > SEGMENT_S:
        segment = write(folder, Cell(cell.codec, SEGMENT_S, cell.gop, cell.height))
        repeat_video(segment, part, SEGMENT_S, cell.seconds // SEGMENT_S)
    else:
        encode(part, encoder, options, cell)
    return part.rename(path)


def encode(path: Path, encoder: str, options: dict[str, str], cell: Cell) -> None:
    width, height = SIZES[cell.height]
    generator = torch.Generator().manual_seed(0)
    scene = torch.rand(1, 3, 24, 48, generator=generator)
    scene_CHW = F.interpolate(scene, size=(height, 3 * width), mode="bicubic")[0]
    grains = [GRAIN[cell.height] * torch.randn(3, height, width, generator=generator) for _ in range(5)]
    with video_writer(path, (width, height), FPS, cell.gop, options, encoder) as add:
        for number in range(FPS * cell.seconds):
            left = round(number * 2 * width / (FPS * cell.seconds))
            frame_CHW = scene_CHW[:, :, left : left + width] + grains[number % len(grains)]
            pixels_HWC = (255 * frame_CHW.clamp(0, 1)).byte().permute(1, 2, 0).contiguous()
            add(av.VideoFrame.from_ndarray(pixels_HWC.numpy(), format="rgb24"))


def read(reader: str, path: str, threads: int) -> tuple[float, str, dict[str, int]]:
    """Seconds, a checksum of the frames, and for ours what it took."""
    if reader == "floor":
        return floor_s(path, threads), "", {}
    torch.set_num_threads(1)
    clock = CLOCKS[threads]
    began = clock()
    frames, extra = READERS[reader.partition("-0.")[0]](path, threads, OURS.get(reader, 0.0))
    seconds = clock() - began
    return seconds, str(int(frames.long().sum())), extra


def read_ours(path: str, threads: int, tolerance: float) -> tuple[torch.Tensor, dict[str, int]]:
    from fewframes.sampling import Views
    from fewframes.video.source import open_video

    views = Views(tolerance=tolerance)
    with closing(open_video(path, threads=threads)) as video:
        times_T = views.times(video.duration_s, NUM_FRAMES)[0]
        clip = video.frames_at(times_T, lambda frame: frame, views.tolerance_s(video.duration_s, NUM_FRAMES))
    return torch.as_tensor(clip.frames), vars(clip.reading)


def read_all(path: str, threads: int, _: float) -> tuple[torch.Tensor, dict[str, int]]:
    frames: list[torch.Tensor] = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert container.duration is not None
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        wanted = wanted_frames(round(container.duration / av.time_base * FPS))
        for number, frame in enumerate(container.decode(stream)):
            if number == wanted[len(frames)]:
                # HD that does not name its colours is read as players do, as ours is: frames can be compared then.
                colours = Colorspace.ITU709 if frame.height > 576 else None
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24", src_colorspace=colours)))
                if len(frames) == NUM_FRAMES:
                    break
    return torch.stack(frames), {}


def read_opencv(path: str, threads: int, _: float) -> tuple[torch.Tensor, dict[str, int]]:
    import cv2

    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    frames = []
    for number in wanted_frames(int(video.get(cv2.CAP_PROP_FRAME_COUNT))):
        video.set(cv2.CAP_PROP_POS_FRAMES, number)
        frames.append(torch.from_numpy(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB)))
    video.release()
    return torch.stack(frames), {}


def read_decord(path: str, threads: int, _: float) -> tuple[torch.Tensor, dict[str, int]]:
    import decord

    video = decord.VideoReader(path, num_threads=threads)
    return torch.from_numpy(video.get_batch(wanted_frames(len(video))).asnumpy()), {}


def read_torchcodec(path: str, threads: int, _: float) -> tuple[torch.Tensor, dict[str, int]]:
    video = importlib.import_module("torchcodec.decoders").VideoDecoder(path, num_ffmpeg_threads=threads)
    duration_s = float(video.metadata.duration_seconds)
    return video.get_frames_played_at([(n + 0.5) * duration_s / NUM_FRAMES for n in range(NUM_FRAMES)]).data, {}


def floor_s(path: str, threads: int) -> float:
    """Seconds of decoding alone, of the packets that ours decodes."""
    from fewframes.video.decode.packets import Feed

    runs: list[list[Packet[VideoStream] | None]] = []
    plain = Feed.__iter__

    def recording(feed: Feed) -> Iterator[Packet[VideoStream] | None]:
        runs.append([])
        for packet in plain(feed):
            runs[-1].append(packet)
            yield packet

    Feed.__iter__ = recording  # type: ignore[method-assign]
    read_ours(path, 1, 0.0)
    Feed.__iter__ = plain  # type: ignore[method-assign]
    with av.open(path) as container:
        given = container.streams.video[0].codec_context
        context = av.CodecContext.create(given.name, "r")
        assert isinstance(context, VideoCodecContext)
        context.extradata, context.thread_type, context.thread_count = given.extradata, "AUTO", threads
        clock = CLOCKS[threads]
        began = clock()
        for run in runs:
            for packet in run:
                context.decode(packet)
            if run and run[-1] is not None and run[-1].size:  # else the decoder was emptied by it
                context.decode(None)
            context.flush_buffers()
        return clock() - began


READERS: dict[str, Callable[[str, int, float], tuple[torch.Tensor, dict[str, int]]]] = {
    "fewframes": read_ours,
    "pyav-all": read_all,
    "opencv": read_opencv,
    "decord": read_decord,
    "torchcodec": read_torchcodec,
}


def wanted_frames(count: int) -> list[int]:
    return [int((number + 0.5) * count / NUM_FRAMES + 1e-6) for number in range(NUM_FRAMES)]


def real_files(folder: Path) -> dict[str, str]:
    """Some videos of each real set, spread over it, by the name of their cell."""
    files: dict[str, str] = {}
    for name, part in REAL_SETS.items():
        found = sorted(path for path in (folder / part).rglob("*") if path.suffix in VIDEO_SUFFIXES)
        files |= {f"{name}: {path.stem}": str(path) for path in found[:: max(1, len(found) // NUM_REAL)][:NUM_REAL]}
    return files


@contextmanager
def library_path(folder: str | None) -> Iterator[None]:
    """Processes that start meanwhile look for shared libraries there too."""
    before = os.environ.get("LD_LIBRARY_PATH")
    if folder:
        os.environ["LD_LIBRARY_PATH"] = folder
    yield
    if folder:
        del os.environ["LD_LIBRARY_PATH"]
        if before is not None:
            os.environ["LD_LIBRARY_PATH"] = before


def measure(cell_path: str, threads: int, pools: dict[str, ProcessPoolExecutor], turns: int) -> dict[str, object]:
    """All readers in turns on one file."""
    seconds: dict[str, list[float]] = {reader: [] for reader in pools}
    failed: dict[str, str] = {}
    sums, took = {}, {}
    for _ in range(turns):
        for reader, pool in pools.items():
            if reader in failed or (seconds[reader] and max(seconds[reader]) > SLOW_S):
                continue
            try:
                taken_s, sums[reader], took[reader] = pool.submit(read, reader, cell_path, threads).result()
                seconds[reader].append(taken_s)
            except Exception as error:
                failed[reader] = str(error).strip().splitlines()[0][:120] if str(error).strip() else repr(error)
    medians = {reader: statistics.median(values) for reader, values in seconds.items() if values}
    peers = [reader for reader in PEERS if reader in medians]
    result: dict[str, object] = {
        "threads": threads,
        "ms": {reader: round(1e3 * median, 2) for reader, median in medians.items()},
        "best_peer": min(peers, key=medians.__getitem__),
        "equal_to_decoding_all": sums["fewframes"] == sums["pyav-all"] if "pyav-all" in sums else None,
        "took": {reader: took[reader] for reader in OURS},
        "failed": failed,
    }
    for reader in (*OURS, "floor"):
        ratios = [
            min(seconds[peer][min(turn, len(seconds[peer]) - 1)] for peer in peers) / taken_s
            for turn, taken_s in enumerate(seconds[reader])
        ]
        result[f"times_faster_than_best_peer: {reader}"] = {
            "median": round(statistics.median(ratios), 2),
            "least": round(min(ratios), 2),
            "most": round(max(ratios), 2),
        }
    return result


def table(cells: dict[str, Any]) -> Iterator[str]:
    """The lines of a table in Markdown of the cells of a result."""
    yield "| video | best other, ms | ours, ms | exact (least-most) | floor | tolerance 0.1 | 0.5 | pictures, exact / 0.1 / 0.5 |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, cell in cells.items():
        ratio = {reader: cell[f"times_faster_than_best_peer: {reader}"] for reader in (*OURS, "floor")}
        exact, best = ratio["fewframes"], cell["best_peer"]
        pictures = " / ".join(str(cell["took"][reader]["frames_decoded"]) for reader in OURS)
        yield (
            f"| {name.partition(',')[0]} | {best} {cell['ms'][best]:.1f} | {cell['ms']['fewframes']:.1f} "
            f"| {exact['median']} ({exact['least']}-{exact['most']}) | {ratio['floor']['median']} "
            f"| {ratio['fewframes-0.1']['median']} | {ratio['fewframes-0.5']['median']} | {pictures} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="where made videos are kept")
    parser.add_argument("--table", type=Path, help="print the table of a result, and measure nothing")
    parser.add_argument("--real", type=Path, help="folder of the real sets: their first files are read too")
    parser.add_argument("--ffmpeg", help="folder with FFmpeg's shared libraries for torchcodec")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", choices=CLOCKS, default=[1, 2])
    parser.add_argument("--only", nargs="*", default=[""], help="cells whose name begins with one of these")
    parser.add_argument("--make", action="store_true", help="make the videos and stop")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(*table(json.loads(arguments.table.read_text())["cells"]), sep="\n")
        return
    if arguments.videos is None:
        parser.error("--videos is missing")
    arguments.videos.mkdir(parents=True, exist_ok=True)
    files = {
        cell.name: str(write(arguments.videos, cell)) for cell in cells() if cell.name.startswith(tuple(arguments.only))
    }
    if arguments.make:
        return
    if arguments.real is not None:
        files |= real_files(arguments.real)
    pools: dict[str, ProcessPoolExecutor] = {}
    with library_path(arguments.ffmpeg):
        for reader in (*OURS, "floor", *PEERS):
            pools[reader] = ProcessPoolExecutor(1, get_context("spawn"))
            pools[reader].submit(os.getpid).result()  # starts it, under this library path
    results = {}
    for name, path in files.items():
        for threads in arguments.threads:
            cell = f"{name}, {count_of(threads, 'thread')}"
            results[cell] = measure(path, threads, pools, arguments.turns)
            print(cell, json.dumps(results[cell]), file=sys.stderr)
    for pool in pools.values():
        pool.shutdown()
    made = [value for name, value in results.items() if not name.startswith(tuple(REAL_SETS))]

    def summary(key: str, cells: list[dict[str, object]] = made) -> dict[str, float]:
        values = [value[f"times_faster_than_best_peer: {key}"]["median"] for value in cells]  # type: ignore[index]
        return least_median_most(values) if values else {}

    write_result(
        versions={reader: version(reader) for reader in ("opencv-python-headless", "decord", "torchcodec")},
        turns=arguments.turns,
        times_faster_than_best_peer_over_cells={reader: summary(reader) for reader in (*OURS, "floor")},
        times_faster_than_best_peer_of_real_sets={
            f"{kind}, {count_of(threads, 'thread')}": summary(
                "fewframes",
                [one for name, one in results.items() if name.startswith(kind) and one["threads"] == threads],
            )
            for kind in REAL_SETS
            for threads in arguments.threads
        },
        cells=results,
    )


if __name__ == "__main__":
    main()
