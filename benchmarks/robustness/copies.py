"""Find copies of real videos that were changed on purpose: encoded anew, cut, mirrored, and so on.

Two copies are made of each video, of kinds that take turns. Features and thresholds were chosen on every second group (a recording,
a sequence, a source, by name) and looked at on the others. Groups that were not chosen on are "held back".

    python -m benchmarks.robustness.copies SHARED_DATA FOLDER > benchmarks/robustness/copies.json
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.harness import video_writer, write_result
from fewframes.core.metrics import NORMAL
from fewframes.data.copies.footprint import Footprint, footprint_of
from fewframes.data.copies.found import Copy
from fewframes.data.copies.matching import FOR_THE_REST, LEAST_LIKENESS, find_copies, moments_of
from fewframes.video.source import open_video

SETS = {
    "fights": ("list.csv", "group"),
    "ut_interaction": ("manifest.csv", "sequence"),
    "fir_rgb": ("manifest.csv", "recording"),
}
WIDTH_PX = 320
LEAST_S = 1.0
COPIES = 2
MANY, MANY_STEPS = 10_000, 50
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


@dataclass(frozen=True)
class Clip:
    """An original, or a copy of one: what it shows of it, in seconds."""

    path: Path
    original: int
    name: str
    kind: str = "original"
    start_s: float = 0.0
    end_s: float = float("inf")
    held_back: bool = False


def main(shared: Path, folder: Path) -> None:
    clips = clips_of(list(originals(shared)), folder)
    began = time.process_time()
    footprints = []
    for clip in clips:
        with closing(open_video(str(clip.path), threads=1)) as video:
            footprints.append(footprint_of(video, 0.0, video.duration_s))
    decode_s = time.process_time() - began
    began = time.process_time()
    found = find_copies(footprints, [str(clip.path) for clip in clips])
    compare_s = time.process_time() - began
    write_result(
        thresholds={"likeness": LEAST_LIKENESS, "for the rest": FOR_THE_REST},
        videos={
            "originals": sum(clip.kind == "original" for clip in clips),
            "copies": sum(clip.kind != "original" for clip in clips),
        },
        held_back=figures(clips, found, held_back=True),
        chosen_on=figures(clips, found, held_back=False),
        wrong=wrong_pairs(clips, found),
        originals_alone=among_originals(clips, found),
        processor_seconds={
            "footprint of a video": round(decode_s / len(clips), 4),
            f"comparing {len(clips)} videos": round(compare_s, 1),
            f"comparing {MANY} made footprints of {MANY_STEPS / 10:g} s": many(footprints),
        },
    )


def clips_of(given: Sequence[Original], folder: Path) -> list[Clip]:
    """The originals, then the copies, which are made."""
    groups = sorted({original.group for original in given})
    held_back = {group: bool(number % 2) for number, group in enumerate(groups)}
    kinds = list(KINDS)
    clips = [Clip(it.path, number, it.name, held_back=held_back[it.group]) for number, it in enumerate(given)]
    for number, original in enumerate(given):
        for turn in range(COPIES):
            kind = kinds[(number * COPIES + turn + number // 8) % len(kinds)]
            path = folder / f"{number:03d}_{turn}.{'webm' if 'VP9' in kind else 'mp4'}"
            part = write_copy(original.path, path, kind, np.random.default_rng(number * 10 + turn))
            clips.append(Clip(path, number, original.name, kind, *part, held_back[original.group]))
        if number % 50 == 0:
            print(f"{number}/{len(given)} copied", file=sys.stderr)
    return clips


def figures(clips: Sequence[Clip], found: Sequence[Copy], *, held_back: bool) -> dict[str, object]:
    """Precision of all pairs with a video of this half, and recall of the pairs within it, by the kind of the second."""
    reported = [copy for copy in found if held_back in (clips[copy.first].held_back, clips[copy.second].held_back)]
    right = {(copy.first, copy.second) for copy in reported if is_right(clips, copy)}
    wanted = [pair for pair in pairs_of(clips) if clips[pair[0]].held_back == held_back]
    of_originals = [pair for pair in wanted if clips[pair[0]].kind == "original"]
    return {
        "precision": proportion(len(right), len(reported)),
        "recall of original and copy": proportion(sum(pair in right for pair in of_originals), len(of_originals)),
        "recall of all pairs": proportion(sum(pair in right for pair in wanted), len(wanted)),
        "by set": {
            name: proportion(*counted(right, [pair for pair in of_originals if clips[pair[0]].name == name]))
            for name in SETS
        },
        "by kind": {
            kind: proportion(*counted(right, [pair for pair in of_originals if clips[pair[1]].kind == kind]))
            for kind in KINDS
        },
    }


def proportion(right: int, total: int) -> dict[str, float | int]:
    """A proportion in percent with its 95 % interval by Wilson, as if all pairs were independent."""
    square = NORMAL**2 / total
    middle = (right / total + square / 2) / (1 + square)
    half = (right / total * (1 - right / total) * square + square**2 / 4) ** 0.5 / (1 + square)
    low, high = (round(100 * value, 1) for value in (middle - half, middle + half))
    return {"percent": round(100 * right / total, 2), "low": low, "high": high, "right": right, "of": total}


def counted(right: set[tuple[int, int]], wanted: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(pair in right for pair in wanted), len(wanted)


def pairs_of(clips: Sequence[Clip]) -> list[tuple[int, int]]:
    """Pairs of clips that show a second or more of one original in common."""
    by_original: dict[int, list[int]] = {}
    for number, clip in enumerate(clips):
        by_original.setdefault(clip.original, []).append(number)
    return [
        (first, second)
        for same in by_original.values()
        for first in same
        for second in same
        if first < second
        and min(clips[first].end_s, clips[second].end_s) - max(clips[first].start_s, clips[second].start_s) >= LEAST_S
    ]


def is_right(clips: Sequence[Clip], copy: Copy) -> bool:
    return clips[copy.first].original == clips[copy.second].original


def wrong_pairs(clips: Sequence[Clip], found: Sequence[Copy]) -> list[dict[str, object]]:
    """The pairs of different originals that were called copies, with what they show."""
    return [
        {
            "originals": [
                f"{clips[clips[row].original].name}/{clips[clips[row].original].path.stem}"
                for row in (copy.first, copy.second)
            ],
            "kinds": [clips[copy.first].kind, clips[copy.second].kind],
            "length_s": copy.length_s,
            "likeness": copy.likeness,
        }
        for copy in found
        if not is_right(clips, copy)
    ]


def among_originals(clips: Sequence[Clip], found: Sequence[Copy]) -> int:
    """The number of pairs of originals that were called copies."""
    return sum(clips[copy.first].kind == clips[copy.second].kind == "original" for copy in found)


def many(footprints: Sequence[Footprint]) -> dict[str, float | int]:
    """The processor seconds to compare many footprints: real ones, each moved elsewhere in the picture and begun elsewhere."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(MANY):
        whole = footprints[int(rng.integers(len(footprints)))][:1]
        steps = np.arange(MANY_STEPS) % whole.shape[1]
        made.append(np.roll(whole[:, steps], tuple(rng.integers(whole.shape[-1], size=2)), (2, 3)))
    began = time.process_time()
    found = find_copies(made, [str(number) for number in range(MANY)])
    return {
        "seconds": round(time.process_time() - began, 1),
        "moments": len(moments_of(made).rows),
        "pairs found": len(found),
    }


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


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
