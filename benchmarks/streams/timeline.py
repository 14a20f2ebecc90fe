"""Finding actions in long videos composed of real segments: spans, frames, time and memory.

    python -m benchmarks.streams.timeline ../shared/data > benchmarks/streams/timeline.json

Films of 12 actions each, the central square of every clip at 240 px and 25 frames/s, cut one after the other in random order.
Between any two actions lies background: alternately the first frame of the next clip held still for 2 to 6 s, and a daily movement
that is none of the model's actions (sit, sleeping, active, falled). So half of the background does not move at all, and every
action begins with a cut: real films are harder.

Whole sequences of UT-Interaction and whole recordings of the daily movements are in one of three parts. `dev`: taught on the
first, films of the second; everything was chosen there (window lengths, division of logits, stillness, overlap, threshold 0.8, and
0.99 for consecutive windows, whose logits are not divided). `test`: taught on both, films of the third, set 2 of UT-Interaction
among them. The head is that of `lite0-16`, taught by `training.steps.loop.fit` with the settings of the package from each clip as
it is and mirrored, and calibrated as `train` does it, in three folds of whole groups; `background label` learns one label more: the
other daily movements of the taught part, and frames held still. `logits halved` is what timelines did before that. `without unknown
windows` is the default of the command: windows that the judge calls unknown get no span.

`mAP` is the mean over labels in % at each tIoU, spans from confidence 0.05 on; `frame_accuracy` the fraction of times (8 a second)
with the right label, background included, at the threshold. `seconds_an_hour` of video: everything, and with frames from the cache.
With --two-hours only a two-hour file is swept (window 4 s: 28,800 frames) and memory above the loaded model measured.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import PACKAGED, ROOT, Peak, embedded, taught, video_writer, write_result
from benchmarks.reading import long_video
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.inference.detection.spans import Span, mean_average_precision
from fewframes.inference.detection.window_spans import confidences, spans_of
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.timeline import Timeline, TimelineConfig, still_share_of, sweep
from fewframes.inference.unknowns import UnknownRule
from fewframes.models.rejection.fitting import fit_rejection
from fewframes.models.stam import STAM
from fewframes.runtime.protocol import scores_of
from fewframes.training.calibration import LeftOutLogits, calibration_folds, fit_calibration
from fewframes.training.config import TrainConfig
from fewframes.video.source import open_video
from runs.packaged import DARK, MOVEMENTS, rows_of

SIDE_PX, FPS = 240, 25
STILL_S = (2.0, 6.0)
ACTIONS_A_VIDEO = 12
LEAST = 0.05
RATE = 8
"""Times a second at which frame accuracy is counted."""
CONSECUTIVE_THRESHOLD = 0.99
LENGTHS, THRESHOLD = (1, 2), 0.8
WINDOWS = TimelineConfig(spans="windows", window_s=4.0, lengths=LENGTHS, threshold=THRESHOLD)
"""The defaults of timelines by windows when this was measured."""


def ways_of(temperature: float) -> dict[str, TimelineConfig]:
    """The settings that are compared, for a head whose logits were divided by this number."""
    return {
        "timeline": WINDOWS,
        "one length": replace(WINDOWS, lengths=(1,)),
        "logits halved": replace(WINDOWS, temperature=2 / temperature),
        "without stillness": replace(WINDOWS, still_share=0.0),
        "without stillness and calibration": replace(WINDOWS, still_share=0.0, temperature=1 / temperature),
    }


@dataclass(frozen=True)
class Segment:
    """A real clip: `label` is one the model knows, or empty for background."""

    path: str
    label: str
    group: str


def segments_of(data: Path) -> list[Segment]:
    interactions = [
        Segment(str(data / "ut_interaction" / row["path"]), row["label"], f"{int(row['sequence']):02d}")
        for row in rows_of(data / "ut_interaction")
    ]
    movements = [
        Segment(str(data / "fir_rgb" / row["path"]), MOVEMENTS.get(row["label"], ""), row["recording"])
        for row in rows_of(data / "fir_rgb")
        if float(row["mean_luma"]) >= DARK
    ]
    return interactions + movements


def parts_of(segments: list[Segment]) -> dict[str, list[Segment]]:
    """What teaches and what is composed, for choosing (`dev`) and for measuring (`test`): whole sequences and recordings."""
    recordings = sorted({segment.group for segment in segments if len(segment.group) > 2})

    def third(segment: Segment) -> int:
        if len(segment.group) > 2:
            return recordings.index(segment.group) % 3
        return 0 if segment.group <= "06" else 1 if segment.group <= "10" else 2

    thirds = [[segment for segment in segments if third(segment) == number] for number in range(3)]
    return {
        "dev_taught": thirds[0],
        "dev": thirds[1],
        "test_taught": thirds[0] + thirds[1],
        "test": thirds[2],
    }


def compose(segments: list[Segment], folder: Path, seed: int) -> list[dict[str, Any]]:
    """Long videos of these segments in random order, something that is no action between any two; and where the actions lie."""
    draw = random.Random(seed)
    actions = [segment for segment in segments if segment.label]
    others = [segment for segment in segments if not segment.label]
    draw.shuffle(actions)
    draw.shuffle(others)
    folder.mkdir(parents=True, exist_ok=True)
    films = []
    for number in range(0, len(actions), ACTIONS_A_VIDEO):
        path = folder / f"{number // ACTIONS_A_VIDEO:02d}.mp4"
        chosen = actions[number : number + ACTIONS_A_VIDEO]
        films.append({"path": str(path), **write_film(path, chosen, others, draw)})
    (folder / "films.json").write_text(json.dumps(films, indent=1))
    return films


def write_film(path: Path, actions: list[Segment], others: list[Segment], draw: random.Random) -> dict[str, Any]:
    spans: list[dict[str, Any]] = []
    kinds: list[dict[str, Any]] = []
    count = 0
    with video_writer(path, (SIDE_PX, SIDE_PX), FPS, 100, {"preset": "veryfast", "crf": "20"}) as add:

        def show(frames_THWC: Tensor, label: str) -> None:
            nonlocal count
            for frame in frames_THWC.numpy():
                add(av.VideoFrame.from_ndarray(frame, format="rgb24"))
            count += len(frames_THWC)
            entry = {"start_s": (count - len(frames_THWC)) / FPS, "end_s": count / FPS, "label": label}
            (kinds if label in ("still", "other") else spans).append(entry)

        for index, action in enumerate(actions):
            frames_THWC = square_frames(action.path)
            still_frames = round(draw.uniform(*STILL_S) * FPS)
            if index % 2 and others:
                show(square_frames(others[draw.randrange(len(others))].path), "other")
            else:
                show(frames_THWC[:1].expand(still_frames, -1, -1, -1), "still")
            show(frames_THWC, action.label)
        show(frames_THWC[-1:].expand(still_frames, -1, -1, -1), "still")
    return {"duration_s": count / FPS, "spans": spans, "background": kinds}


def write_joined(path: Path, clips: list[Segment], background: set[str]) -> dict[str, Any]:
    """A film of these clips one after the other, and where each lies; those of `background` labels are no actions."""
    parts: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    count = 0
    with video_writer(path, (SIDE_PX, SIDE_PX), FPS, 100, {"preset": "veryfast", "crf": "20"}) as add:
        for clip in clips:
            frames_THWC = square_frames(clip.path)
            for frame in frames_THWC.numpy():
                add(av.VideoFrame.from_ndarray(frame, format="rgb24"))
            entry = {"start_s": count / FPS, "end_s": (count + len(frames_THWC)) / FPS, "label": clip.label}
            parts[clip.label not in background].append(entry)
            count += len(frames_THWC)
    return {"duration_s": count / FPS, "spans": parts[True], "background": parts[False]}


def square_frames(path: str) -> Tensor:
    """The central square of each frame: (T, H, W, C) uint8, 25 a second."""
    with closing(open_video(path, threads=1)) as video:
        times_s = (torch.arange(int(video.duration_s * FPS)).double() + 0.5) / FPS
        frames_TCHW = torch.as_tensor(video.frames_at(times_s).frames)
    side = min(frames_TCHW.shape[-2:])
    top, left = (frames_TCHW.shape[-2] - side) // 2, (frames_TCHW.shape[-1] - side) // 2
    square = frames_TCHW[..., top : top + side, left : left + side].float()
    resized = F.interpolate(square, size=(SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def head_of(segments: list[Segment], embeddings_BVTD: Tensor, labels: list[str]) -> tuple[STAM, float]:
    """A calibrated head for these labels, and what its logits were divided by.

    With `background` among the labels it learns what is no action too.
    """
    groups = [segment.group for segment in segments]
    names = [segment.label or "background" for segment in segments]
    if "background" in labels:
        held = [row for row, segment in enumerate(segments) if segment.label][::2]
        still_BVTD = embeddings_BVTD[held][:, :, :1].expand(-1, -1, embeddings_BVTD.shape[2], -1)
        embeddings_BVTD = torch.cat([embeddings_BVTD, still_BVTD])
        names += ["background"] * len(held)
        groups += [groups[row] for row in held]
    known = [row for row, name in enumerate(names) if name in labels]
    targets_B = torch.tensor([labels.index(names[row]) for row in known])
    embeddings_BVTD, groups = embeddings_BVTD[known], [groups[row] for row in known]
    head = taught(PACKAGED, embeddings_BVTD, targets_B, len(labels), TrainConfig())
    temperature = temperature_for(embeddings_BVTD, targets_B, groups, len(labels))
    head.divide_logits(temperature)
    return head, temperature


def temperature_for(embeddings_BVTD: Tensor, targets_B: Tensor, groups: list[str], num_labels: int) -> float:
    """The number that suits left-out groups, as `train` finds it."""
    hot_BK = np.eye(num_labels)[targets_B.numpy()]
    logits_BK, fold_B = np.zeros(hot_BK.shape, np.float32), np.zeros(len(groups), np.int64)
    for number, left_B in enumerate(calibration_folds(hot_BK, groups, TrainConfig().calibration_folds)):
        rest_B = np.setdiff1d(np.arange(len(groups)), left_B)
        head = taught(PACKAGED, embeddings_BVTD[rest_B], targets_B[rest_B], num_labels, TrainConfig())
        with torch.inference_mode():
            logits_BK[left_B] = head.encode_video(embeddings_BVTD[left_B, 0]).logits.numpy()
        fold_B[left_B] = number
    return fit_calibration(LeftOutLogits(logits_BK, hot_BK, tuple(groups), fold_B), "single", "films").temperature


def embeddings_of(segments: list[Segment], predictor: Predictor, cache: EmbeddingCache) -> Tensor:
    samples = tuple(Sample(path=segment.path, labels=(segment.label or "background",)) for segment in segments)
    return embedded(VideoSet(samples, "segments"), predictor, cache)


def give_head(predictor: Predictor, head: STAM, labels: list[str]) -> None:
    predictor.torch.model.temporal_encoder, predictor.torch.model.head = head.temporal_encoder, head.head
    predictor.torch.model.moment_head = head.moment_head
    predictor.torch.labels = tuple(labels)


def judge_of(segments: list[Segment], embeddings_BVTD: Tensor, labels: list[str]) -> UnknownRule:
    """The judge of unknown windows, as `train` fits it: it learns background only if that is one of the labels."""
    actions = [label for label in labels if label != "background"]
    wanted = [row for row, one in enumerate(segments) if one.label or "background" in labels]
    hot_BK = np.array([[segments[row].label == label for label in actions] for row in wanted], float)
    rejection = fit_rejection(embeddings_BVTD[wanted].numpy(), hot_BK, [segments[row].group for row in wanted])
    assert rejection is not None
    return UnknownRule(rejection, rejection.threshold(), tuple(actions))


def spans_by(way: TimelineConfig, found: Timeline, predictor: Predictor, least_known: float = 0.0) -> list[Span]:
    windows = found.windows[: len(way.lengths or LENGTHS)]
    trusted = confidences(
        windows,
        predictor.runtime.task,
        least_known,
        temperature=way.temperature,
        still_share=still_share_of(predictor.runtime, way),
    )
    return list(spans_of(windows, trusted, predictor.labels, (found.start_s, found.end_s), LEAST))


def consecutive(found: Timeline, predictor: Predictor, temperature: float) -> list[Span]:
    """What `predict` says of one window after the other, its logits not divided."""
    one = found.windows[0]
    every = 8  # windows begin eight times while one lasts
    scores_WK = scores_of(temperature * one.logits[::every], predictor.runtime.task)
    return [
        Span(float(start_s), float(start_s) + one.length_s, predictor.labels[int(row.argmax())], float(row.max()))
        for start_s, row in zip(one.starts_s[::every], scores_WK, strict=True)
    ]


def scored(found: list[list[Span]], films: list[dict[str, Any]], threshold: float) -> dict[str, Any]:
    true = [[Span(entry["start_s"], entry["end_s"], entry["label"]) for entry in film["spans"]] for film in films]
    found = [[span for span in spans if span.label != "background"] for spans in found]
    precisions = mean_average_precision(found, true)
    right = total = 0
    for spans, actions, film in zip(found, true, films, strict=True):
        count = int(film["duration_s"] * RATE)
        sure = sorted((span for span in spans if span.confidence >= threshold), key=lambda span: span.confidence)
        right += sum(a == b for a, b in zip(painted(sure, count), painted(actions, count), strict=True))
        total += count
    return {
        "mAP": {str(tiou): round(100 * value, 1) for tiou, value in precisions.items()},
        "mAP_mean": round(100 * sum(precisions.values()) / len(precisions), 1),
        "frame_accuracy": round(100 * right / total, 1),
        "threshold": threshold,
    }


def painted(spans: list[Span], count: int) -> list[str]:
    """The label of each time, of the last span over it."""
    labels = [""] * count
    for span in spans:
        first, last = max(0, round(span.start_s * RATE)), min(count, round(span.end_s * RATE))
        labels[first:last] = [span.label] * (last - first)
    return labels


def measure(data: Path, folder: Path, part: str, most_films: int) -> dict[str, Any]:
    segments, cache = segments_of(data), EmbeddingCache(folder / "embeddings")
    parts = parts_of(segments)
    listed = folder / part / "films.json"
    films = json.loads(listed.read_text()) if listed.is_file() else compose(parts[part], listed.parent, seed=0)
    films = films[:most_films]
    predictor = load("lite0-16", device="cpu", dtype="float32", runtime="torch", unknown="off")
    teaching = parts[f"{part}_taught"]
    embeddings_BVTD = embeddings_of(teaching, predictor, cache)
    actions = sorted({segment.label for segment in teaching if segment.label})
    results: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    temperatures: dict[str, float] = {}
    for name, labels in (("", actions), (" with a background label", [*actions, "background"])):
        head, temperature = head_of(teaching, embeddings_BVTD, labels)
        temperatures[f"head{name}"] = round(temperature, 3)
        give_head(predictor, head, labels)
        predictor.unknown_rule = rule = judge_of(teaching, embeddings_BVTD, labels)
        began, encoded, timelines = time.perf_counter(), 0, []
        for film in films:
            timelines.append(sweep(predictor, film["path"], WINDOWS, cache=cache))
            encoded += timelines[-1].num_encoded
            print(f"{part}{name} {film['path']} {time.perf_counter() - began:.0f} s", file=sys.stderr)
        whole = all(one.num_encoded == len(one.times_s) for one in timelines)
        if whole or not encoded:
            seconds["encoding" if whole else "from the cache"] = time.perf_counter() - began
        by_one = [consecutive(found, predictor, temperature) for found in timelines]
        results[f"consecutive windows{name}"] = scored(by_one, films, CONSECUTIVE_THRESHOLD)
        for way, config in ways_of(temperature).items():
            spans = [spans_by(config, found, predictor) for found in timelines]
            results[way + name] = scored(spans, films, THRESHOLD)
        known = [spans_by(WINDOWS, found, predictor, rule.threshold) for found in timelines]
        results[f"timeline without unknown windows{name}"] = scored(known, films, THRESHOLD)
    results["nothing at all"] = scored([[] for _ in films], films, 1.0)
    length_s = sum(film["duration_s"] for film in films)
    background_s = length_s - sum(entry["end_s"] - entry["start_s"] for film in films for entry in film["spans"])
    return {
        "films": len(films),
        "actions": sum(len(film["spans"]) for film in films),
        "seconds": round(length_s, 1),
        "background_share": round(background_s / length_s, 3),
        "seconds_an_hour": {name: round(value * 3600 / length_s, 1) for name, value in seconds.items()},
        "logits_divided_by": temperatures,
        "ways": results,
    }


def two_hours(window_s: float) -> dict[str, Any]:
    size = (640, 360)
    with tempfile.TemporaryDirectory() as folder:
        whole, cache = long_video.two_hours(Path(folder), size), EmbeddingCache(Path(folder) / "cache")
        predictor = load("lite0-16", device="cpu", dtype="float32", runtime="torch")
        predictor.predict(ROOT / "examples" / "hug.mp4")

        def tell(stage: str, done: int, total: int) -> None:
            print(f"{stage} {done}/{total}", file=sys.stderr)

        began = time.perf_counter()
        with Peak() as peak:
            found = sweep(predictor, whole, TimelineConfig(window_s=window_s), cache=cache, progress=tell)
        seconds, again = time.perf_counter() - began, time.perf_counter()
        sweep(predictor, whole, TimelineConfig(window_s=window_s), cache=cache)
        return {
            "file": f"{size[0]}x{size[1]}, {found.duration_s:.0f} s",
            "window_s": window_s,
            "frames": len(found.times_s),
            "seconds": round(seconds, 1),
            "seconds from the cache": round(time.perf_counter() - again, 1),
            "MB above the model": peak.added_mb,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/timeline"))
    parser.add_argument("--parts", nargs="+", choices=["dev", "test"], default=["dev", "test"])
    parser.add_argument("--films", type=int, default=100, help="at most so many of each part")
    parser.add_argument("--two-hours", action="store_true")
    parser.add_argument("--window", type=float, default=4.0)
    options = parser.parse_args()
    if options.two_hours:
        result = {"two_hours": two_hours(options.window)}
    else:
        result = {part: measure(options.data, options.folder, part, options.films) for part in options.parts}
    write_result(**result)


if __name__ == "__main__":
    main()
