"""Find copies of real videos that were changed on purpose: encoded anew, cut, mirrored, and so on.

Thresholds were chosen on the copies of every second group (a recording, a sequence, a source); the others are reported. Two kinds
of copies of each original are made, in turn. A pair counts as wrong unless both are of one original.

    python -m benchmarks.robustness.copies SHARED_DATA FOLDER > benchmarks/robustness/copies.json
"""

from __future__ import annotations

import csv
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.harness import video_writer, write_result
from fewframes.data.copies.footprint import Footprint, footprint_of
from fewframes.data.copies.found import Copy
from fewframes.data.copies.matching import LEAST_STEPS, find_copies
from fewframes.video.source import open_video

SETS = {
    "fights": ("list.csv", "group"),
    "ut_interaction": ("manifest.csv", "sequence"),
    "fir_rgb": ("manifest.csv", "recording"),
}
WIDTH_PX = 320
LEAST_S = 1.0
PER_ORIGINAL = 2
LEAST_IN_COMMON_S = 1.2
NUM_MADE = 10_000
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
        pictures = list(container.decode(stream))
    first, last = kept(len(pictures), rate, ways, rng)
    new_rate = 12 if "rate" in ways else rate
    count = round((last - first) / rate * new_rate)
    width = min(WIDTH_PX, pictures[0].width) // (2 if "half" in ways else 1) // 2 * 2
    height = round(pictures[0].height * width / pictures[0].width / 2) * 2
    gain, more = rng.choice([0.7, 1.3]), rng.choice([-25, 25])
    corner = int(rng.integers(4))
    encoder, options = CODECS[next((way for way in ways if way in CODECS), "good h264")]
    with video_writer(
        path, bordered(np.zeros((height, width, 3), np.uint8), ways).shape[1::-1], new_rate, 250, options, encoder
    ) as add:
        for number in range(count):
            picture = pictures[min(first + int(number / new_rate * rate), last - 1)]
            pixels = np.asarray(picture.to_ndarray(format="rgb24", width=width, height=height), np.uint8)
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
    ImageDraw.Draw(image).text(
        at, "CHANNEL 7", fill=(255, 255, 255), font_size=size, stroke_width=1, stroke_fill=(0, 0, 0)
    )
    return np.asarray(image)


@dataclass(frozen=True)
class Video:
    path: Path
    original: int
    kind: str
    start_s: float
    end_s: float


def make(found: Sequence[Original], folder: Path) -> list[Video]:
    """Write the copies; return the originals, then the copies."""
    kinds = list(KINDS)
    videos = []
    for number, original in enumerate(found):
        with closing(open_video(original.path, threads=1)) as video:
            videos.append(Video(original.path, number, "original", 0.0, video.duration_s))
    for number, original in enumerate(found):
        for turn in range(PER_ORIGINAL):
            kind = kinds[(PER_ORIGINAL * number + turn + number // 8) % len(kinds)]
            path = folder / f"{number:03d}_{turn}.{'webm' if 'VP9' in kind else 'mp4'}"
            span = write_copy(original.path, path, kind, np.random.default_rng(number * 10 + turn))
            videos.append(Video(path, number, kind, *span))
    return videos


def footprints_of(videos: Sequence[Video]) -> list[Footprint]:
    footprints = []
    for item in videos:
        with closing(open_video(item.path, threads=1)) as video:
            footprints.append(footprint_of(video, 0, video.duration_s))
    return footprints


def ratio(right: int, total: int) -> dict[str, float | int]:
    """A fraction in %, with Wilson's interval of 95 %. Pairs are taken as independent, which those of one original are not."""
    share, square = right / max(total, 1), 1.96**2 / max(total, 1)
    middle = (share + square / 2) / (1 + square)
    half = (share * (1 - share) * square + square**2 / 4) ** 0.5 / (1 + square)
    return {
        "%": round(100 * share, 2),
        "from": round(100 * (middle - half), 2),
        "to": round(100 * (middle + half), 2),
        "right": right,
        "of": total,
    }


def measured(videos: Sequence[Video], found: Sequence[Original], copies: Sequence[Copy]) -> dict[str, object]:
    of_original: dict[int, list[int]] = defaultdict(list)
    for row, video in enumerate(videos):
        of_original[video.original].append(row)
    true = {
        (first, second)
        for rows in of_original.values()
        for first in rows
        for second in rows
        if first < second
        and min(videos[first].end_s, videos[second].end_s) - max(videos[first].start_s, videos[second].start_s)
        >= LEAST_IN_COMMON_S
    }
    reported = {(copy.first, copy.second): copy for copy in copies}
    wrong = [copy for copy in copies if videos[copy.first].original != videos[copy.second].original]
    direct = {pair for pair in true if videos[pair[0]].kind == "original"}

    def recall(pairs: set[tuple[int, int]]) -> dict[str, float | int]:
        return ratio(len(pairs & set(reported)), len(pairs))

    names = [found[video.original].name for video in videos]
    return {
        "videos": len(videos),
        "precision": ratio(len(copies) - len(wrong), len(copies)),
        "recall, original and copy": recall(direct),
        "recall, all pairs": recall(true),
        "recall by set": {name: recall({pair for pair in direct if names[pair[0]] == name}) for name in SETS},
        "recall by kind": {kind: recall({pair for pair in direct if videos[pair[1]].kind == kind}) for kind in KINDS},
        "wrong pairs": [
            {
                "videos": [
                    f"{found[videos[row].original].path.name} ({videos[row].kind})" for row in (copy.first, copy.second)
                ],
                "length_s": copy.length_s,
                "likeness": copy.likeness,
            }
            for copy in wrong
        ],
        "not found": [
            f"{found[videos[second].original].path.name} ({videos[second].kind})"
            for first, second in sorted(direct - set(reported))
        ],
    }


def many(footprints: Sequence[Footprint]) -> list[Footprint]:
    """Footprints of as many made videos: real ones, with their pixels in another order and other times first."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(NUM_MADE):
        views = footprints[number % len(footprints)][:1]
        side = views.shape[-1]
        moved = np.roll(views, rng.integers(0, side, 2), (2, 3)) if number >= len(footprints) else views
        made.append(np.roll(moved, int(rng.integers(views.shape[1])), 1) if number >= len(footprints) else moved)
    return made


def main() -> None:
    shared, folder = Path(sys.argv[1]), Path(sys.argv[2])
    found = list(originals(shared))
    halves = {group: number % 2 for number, group in enumerate(sorted({original.group for original in found}))}
    held_out = [original for original in found if halves[original.group] == 1]
    videos = make(held_out, folder)
    began = time.process_time()
    footprints = footprints_of(videos)
    looked = time.process_time()
    copies = find_copies(footprints, [str(row) for row in range(len(videos))])
    compared = time.process_time()
    made = many(footprints)
    before = time.process_time()
    num_made = len(find_copies(made, [str(row) for row in range(NUM_MADE)]))
    write_result(
        least_s=LEAST_STEPS / 10,
        held_out=measured(videos, held_out, copies),
        processor_s={
            "footprint of a video": round((looked - began) / len(videos), 4),
            "mean length of a video": round(sum(footprint.shape[1] for footprint in footprints) / len(videos) / 10, 2),
            "comparing all": round(compared - looked, 2),
            f"comparing {NUM_MADE} made footprints": round(time.process_time() - before, 1),
            "pairs among these": num_made,
        },
    )


if __name__ == "__main__":
    main()
