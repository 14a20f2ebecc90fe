"""A model and labelled videos -> how often it is right, how far to trust that, and what it gets wrong.

Each video is judged in one pass over its uniform frames. The same embeddings answer the other questions: what the order of frames
is worth, how well scores are calibrated, what happens when doubtful videos are left unanswered.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewframes.cache import EmbeddingCache
from fewframes.data import VideoSet
from fewframes.embed import Embedded, embed_videos
from fewframes.errors import ConfigError, DataError, nearest
from fewframes.layouts import Sample
from fewframes.metrics import (
    Interval,
    MultiLabelReport,
    Report,
    bootstrap,
    calibration_error,
    fit_temperature,
    rejection_curve,
    report_of,
)
from fewframes.predictor import Failure, Predictor

NUM_SHUFFLES = 5
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Order:
    """Top-1 (mAP for multi-label models) with the frames as they are, backwards, and in random order (mean of five)."""

    forwards: float
    backwards: float
    shuffled: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error as the model is and with its logits divided by a temperature, which was fitted on the other
    half of the groups; `temperature` is that of all."""

    error: float
    scaled_error: float
    temperature: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model does on labelled videos. `samples` and the rows of `logits` (N, K) and `targets` (N, K) are the videos that
    could be read, labels those of the model."""

    report: Report | MultiLabelReport
    interval: Interval
    order: Order
    calibration: Calibration | None
    rejection: list[tuple[float, float]]
    sweep: dict[int, float]
    samples: tuple[Sample, ...]
    logits: Tensor
    targets: Tensor
    scores: Tensor
    failures: tuple[Failure, ...]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        calibration = self.calibration
        return {
            **self.provenance,
            "evaluated": len(self.samples),
            "failed": [failure.to_dict() for failure in self.failures if not failure.missing],
            "missing": [failure.to_dict() for failure in self.failures if failure.missing],
            "report": self.report.to_dict(),
            "interval": {"value": self.interval.value, "low": self.interval.low, "high": self.interval.high},
            "order": vars(self.order),
            "calibration": None if calibration is None else vars(calibration),
            "rejection": [{"answered": answered, "right": right} for answered, right in self.rejection],
            "frames_sweep": {str(frames): value for frames, value in self.sweep.items()},
        }

    def worst(self, count: int) -> list[int]:
        """Rows of the wrong answers that the model was surest of (one action a video), surest first."""
        wrong_N = self.scores.argmax(dim=1) != self.targets.argmax(dim=1)
        order_N = self.scores.amax(dim=1).argsort(descending=True)
        return [row for row in order_N.tolist() if wrong_N[row]][:count]


def evaluate(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None,
    *,
    sweep: tuple[int, ...] = (),
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> Evaluation:
    """Judge the model on these videos; `sweep` judges it with these numbers of frames as well.

    Labels are matched to the model's by name. Raises DataError for labels the model has not.
    """
    if predictor.config.layout != "factorised":
        raise ConfigError(f"layout {predictor.config.layout!r} has no embeddings of single frames to judge by")
    targets_BK = targets_for(data, predictor)
    began = time.perf_counter()
    embedded = _embedded(data, predictor, cache, predictor.config.num_frames, progress)
    seconds = time.perf_counter() - began
    frames_NTD, targets_NK = embedded.embeddings[:, 0], targets_BK[embedded.places]
    samples = tuple(data.samples[place] for place in embedded.places.tolist())
    groups = [sample.group or sample.path for sample in samples]
    generator = torch.Generator().manual_seed(seed)
    logits_NK = logits_of(predictor, frames_NTD)

    def figure(logits: Tensor, targets: Tensor) -> float:
        report = report_of(predictor.config.task, logits, targets, predictor.labels)
        return report.top1 if isinstance(report, Report) else report.mean_ap

    shuffled = []
    for _ in range(NUM_SHUFFLES):
        orders_NT = torch.rand(frames_NTD.shape[:2], generator=generator).argsort(dim=1)
        mixed_NTD = frames_NTD.gather(1, orders_NT[..., None].expand_as(frames_NTD))
        shuffled.append(figure(logits_of(predictor, mixed_NTD), targets_NK))
    forwards = figure(logits_NK, targets_NK)
    order = Order(forwards, figure(logits_of(predictor, frames_NTD.flip(1)), targets_NK), sum(shuffled) / NUM_SHUFFLES)
    counts = {}
    for num_frames in sweep:
        other = _embedded(data, predictor, cache, num_frames, progress)
        counts[num_frames] = figure(logits_of(predictor, other.embeddings[:, 0]), targets_BK[other.places])
    single = predictor.config.task == "single"
    return Evaluation(
        report=report_of(predictor.config.task, logits_NK, targets_NK, predictor.labels),
        interval=bootstrap(lambda rows: figure(logits_NK[rows], targets_NK[rows]), groups, generator),
        order=order,
        calibration=calibrated(logits_NK, targets_NK.argmax(dim=1), groups) if single else None,
        rejection=rejection_curve(logits_NK, targets_NK.argmax(dim=1)) if single else [],
        sweep=counts,
        samples=samples,
        logits=logits_NK,
        targets=targets_NK,
        scores=predictor.model.scores(logits_NK),
        failures=embedded.failures,
        provenance={
            "model": predictor.name,
            "data": data.name,
            "data_fingerprint": data.fingerprint(),
            "num_data_videos": len(data.samples),
            "protocol": f"one pass over {predictor.config.num_frames} uniform frames",
            "trained_on_these": predictor.checkpoint.provenance.get("data_fingerprint") == data.fingerprint(),
            "precision": str(predictor.dtype).removeprefix("torch."),
            "num_cached": embedded.num_cached,
            "seconds": round(seconds, 2),
        },
    )


def targets_for(data: VideoSet, predictor: Predictor) -> Tensor:
    """Targets (B, K) in the model's labels; names are matched whatever their case, and with _ for a space."""
    if data.multilabel != (predictor.config.task == "multilabel"):
        kinds = {True: "any number of actions a video", False: "one action a video"}
        task = "multilabel" if data.multilabel else "single"
        raise DataError(
            f"{data.name}: its videos have {kinds[data.multilabel]}, the model names "
            f"{kinds[not data.multilabel]}; take a model trained with --task {task}"
        )
    index = {plain(label): number for number, label in enumerate(predictor.labels)}
    unknown = [label for label in data.labels if plain(label) not in index]
    if unknown:
        raise DataError(
            f"{data.name}: the model has no {unknown[0]!r} ({len(unknown)} of {len(data.labels)} labels are unknown to it); "
            f"{nearest(unknown[0], predictor.labels)}"
        )
    targets_BK = torch.zeros(len(data.samples), len(index))
    for row, sample in enumerate(data.samples):
        targets_BK[row, [index[plain(label)] for label in sample.labels]] = 1
    return targets_BK


def plain(label: str) -> str:
    """A label without what spelling alone decides."""
    return " ".join(label.replace("_", " ").casefold().split())


def logits_of(predictor: Predictor, frames_NTD: Tensor) -> Tensor:
    """Logits (N, K) on the CPU from frame embeddings."""
    with torch.inference_mode():
        parts = [
            predictor.model.encode_video(part_NTD.to(predictor.device)).logits.cpu()
            for part_NTD in frames_NTD.split(256)
        ]
    return torch.cat(parts)


def calibrated(logits_NK: Tensor, targets_N: Tensor, groups: list[str]) -> Calibration:
    """Calibration before and after temperature scaling, each half of the groups scaled by what fits the other."""
    halves = {group: number % 2 for number, group in enumerate(sorted(set(groups)))}
    half_N = torch.tensor([halves[group] for group in groups])
    scaled_NK = logits_NK.clone()
    for half in (0, 1):
        if (half_N != half).any():
            scaled_NK[half_N == half] /= fit_temperature(logits_NK[half_N != half], targets_N[half_N != half])
    return Calibration(
        error=calibration_error(logits_NK, targets_N),
        scaled_error=calibration_error(scaled_NK, targets_N),
        temperature=fit_temperature(logits_NK, targets_N),
    )


def write_predictions(evaluation: Evaluation, labels: tuple[str, ...], path: Path) -> None:
    """A CSV row for each video: its labels, the model's, and every score; failed ones with their reason."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source", "start_s", "end_s", "labels", "predicted", "score", "error", *labels])
        for sample, scores_K in zip(evaluation.samples, evaluation.scores, strict=True):
            score, index = scores_K.max(dim=0)
            part = [sample.start_s, "" if sample.end_s is None else sample.end_s]
            named = [";".join(sample.labels), labels[int(index)], f"{score:.6f}", ""]
            writer.writerow([sample.path, *part, *named, *(f"{value:.6f}" for value in scores_K.tolist())])
        for failure in evaluation.failures:
            writer.writerow([failure.source, "", "", "", "", "", failure.error, *[""] * len(labels)])


def write_metrics(evaluation: Evaluation, path: Path) -> None:
    """`to_dict` as JSON."""
    path.write_text(json.dumps(evaluation.to_dict(), indent=1) + "\n", encoding="utf-8")


def _embedded(
    data: VideoSet, predictor: Predictor, cache: EmbeddingCache | None, num_frames: int, progress: Progress
) -> Embedded:
    for result in embed_videos(data, predictor, cache, mirror=False, num_frames=num_frames):
        if isinstance(result, Embedded):
            return result
        progress(f"embedding {num_frames} frames", result, len(data.samples))
    raise AssertionError("embed_videos ends with its result")
