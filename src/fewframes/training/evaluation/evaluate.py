"""Evaluate a model on labelled videos: how often it is right, how far to trust that figure, and what it costs.

Each video is scored in one pass over its uniform frames, or as the mean of several views. The same pass answers further questions:
what the order of the frames is worth, how well scores are calibrated, and what is gained when doubtful videos are left unanswered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import (
    Interval,
    MultiLabelReport,
    Report,
    calibration_error,
    fit_temperature,
    interval_of,
    rejection_curve,
    report_of,
)
from fewframes.core.settings import STRICT, Count
from fewframes.core.text import count_of
from fewframes.data.dataset import VideoSet
from fewframes.data.known_videos import known_facts
from fewframes.data.layouts import Sample
from fewframes.errors import ConfigError, DataError, nearest
from fewframes.inference.early_exit import ExitFigures, figures_of
from fewframes.inference.predictor import Predictor
from fewframes.models.cost import Cost, count_cost
from fewframes.models.devices import machine_name
from fewframes.models.exit_plan import ExitPlan
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS
from fewframes.models.token_merging import merge_tokens, merged_per_block
from fewframes.results import Failure
from fewframes.sampling import Views
from fewframes.training.evaluation.scoring import Scores, ScoringProgress, ScoringSpeed, score_videos
from fewframes.training.processes import ONLY_PROCESS, ProcessRank
from fewframes.video.decode.packets import SAME_S

Figure = Callable[[Tensor, Tensor], float]
NUM_SHUFFLES = 5
EXIT_CURVE = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
"""The confidences at which early exit is tried out."""
RELEASE_FPS = 1.6
"""Frames per second that the 2021 release's loader takes. It silently drops videos too short for all of them."""


@settings(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """The options of an evaluation."""

    views: Views = Views()
    """Clips and crops of each video."""
    sweep: tuple[Count, ...] = ()
    """Other numbers of frames to evaluate with."""
    order: bool = True
    """Also evaluate with the frames backwards and in random order."""
    early_exit: bool | float = False
    """Also evaluate stopping early: with the plan fitted for the model (True), or at this confidence."""
    official_subset: bool = False
    """Also give the figure over the videos that the 2021 release's loader keeps."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of random orders and confidence intervals."""


DEFAULTS = EvaluateConfig()


@dataclass(frozen=True)
class FrameOrder:
    """Top-1 (mAP for multi-label models) with the frames in order, backwards, and in random order (mean of five orders)."""

    forwards: float
    backwards: float
    shuffled: float


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error of a model as it is, and with logits divided by a temperature that was fitted on the other
    half of the groups. `temperature` is the one fitted on all groups."""

    error: float
    scaled_error: float
    temperature: float


@dataclass(frozen=True)
class OfficialSubset:
    """The figures over the videos that the 2021 release's loader keeps. It drops those that last less than `shortest_s`, because
    `num_frames` frames at 1.6 a second do not fit into them. `report` is None if no video is that long."""

    num_frames: int
    shortest_s: float
    num_videos: int
    num_all: int
    report: Report | MultiLabelReport | None

    def __str__(self) -> str:
        found = f"{self.num_videos} of {count_of(self.num_all, 'video')}"
        if self.report is None:
            return f"{found} (none lasts {self.shortest_s:.1f} s)"
        return f"{found}, {figure_name(self.report)} {figure_of(self.report):.1%}"

    def to_dict(self) -> dict[str, object]:
        """Return the subset's size and figures as plain values for JSON."""
        report = {} if self.report is None else self.report.to_dict()
        figures = {name: value for name, value in report.items() if isinstance(value, float)}
        return {"shortest_s": self.shortest_s, "num_videos": self.num_videos, **figures}


@dataclass(frozen=True)
class EarlyExit:
    """The effect of stopping early: `figures` at the plan's `threshold`, and a `curve` of (threshold, mean number of frames, top-1)
    at other confidences. A video that does not stop early takes `num_frames`."""

    threshold: float
    figures: ExitFigures
    num_frames: int
    curve: tuple[tuple[float, float, float], ...]

    def __str__(self) -> str:
        figures = self.figures
        return (
            f"{figures.top1:.1%} by {figures.mean_frames:.2f} of {self.num_frames} frames on average (from a confidence of "
            f"{self.threshold:.3g}); {figures.top1_all_frames:.1%} by all"
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        names = ("threshold", "mean_frames", "top1")
        curve = [dict(zip(names, (round(value, 4) for value in point), strict=True)) for point in self.curve]
        return {"threshold": round(self.threshold, 4), **self.figures.to_dict(), "curve": curve}


@dataclass(frozen=True)
class EvaluationCost:
    """The cost of scoring one video: `frames_read` frames, `num_views` passes of `view_cost` each. `pace` is the measured speed."""

    frames_read: int
    num_views: int
    view_cost: Cost
    pace: ScoringSpeed
    machine: str
    precision: str

    def lines(self) -> list[str]:
        """Return lines of text for people. Speeds are named only if something was computed, and not taken from the cache."""
        cost, pace = self.view_cost, self.pace
        a_view = cost.gmacs + cost.attention_gmacs
        multiplied = f"{self.num_views * a_view:.4g} billion multiply-adds"
        if self.num_views > 1:
            multiplied += f" ({self.num_views} views of {a_view:.4g} billion)"
        frames = count_of(self.frames_read, "frame")
        lines = [f"each video: {frames} read, {multiplied}; model: {cost.num_parameters / 1e6:.1f} million parameters"]
        if pace.num_videos:
            network = f"network alone {pace.num_videos / pace.network_s:.3g} videos/s"
            decoding = "" if pace.total_s is None else f"{pace.num_videos / pace.total_s:.3g} videos/s with decoding, "
            lines.append(f"{decoding}{network} ({pace.num_videos} computed; {self.machine}, {self.precision})")
        return lines

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON. GMACs are multiply-adds in units of 1e9; attention's products q k^T and (weights) v are
        counted apart."""
        cost, pace = self.view_cost, self.pace
        speed = (
            {
                "videos": pace.num_videos,
                "seconds": None if pace.total_s is None else round(pace.total_s, 3),
                "network_seconds": round(pace.network_s, 3),
                "videos_per_s": None if pace.total_s is None else round(pace.num_videos / pace.total_s, 2),
                "network_videos_per_s": round(pace.num_videos / pace.network_s, 2),
            }
            if pace.num_videos
            else None
        )
        return {
            "frames_read": self.frames_read,
            "views": self.num_views,
            "gmacs_a_view": round(cost.gmacs, 4),
            "attention_gmacs_a_view": round(cost.attention_gmacs, 4),
            "gmacs": round(self.num_views * cost.gmacs, 4),
            "attention_gmacs": round(self.num_views * cost.attention_gmacs, 4),
            "parameters": cost.num_parameters,
            "machine": self.machine,
            "precision": self.precision,
            "computed": speed,
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of a model on labelled videos. `samples` and the rows of `logits`, `targets` and `scores`, all (N, K), are the N
    videos that could be read; columns are the K labels of the model. `failures` are the other videos."""

    report: Report | MultiLabelReport
    interval: Interval
    order: FrameOrder | None
    calibration: Calibration | None
    rejection: list[tuple[float, float]]
    sweep: dict[int, float]
    official: OfficialSubset | None
    early_exit: EarlyExit | None
    work: EvaluationCost
    samples: tuple[Sample, ...]
    logits: Tensor
    targets: Tensor
    scores: Tensor
    failures: tuple[Failure, ...]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, object]:
        """Return all figures and the provenance as plain values for JSON, without the scores of single videos."""
        order, calibration, official = self.order, self.calibration, self.official
        return {
            **self.provenance,
            "evaluated": len(self.samples),
            "failed": [failure.to_dict() for failure in self.failures if not failure.missing],
            "missing": [failure.to_dict() for failure in self.failures if failure.missing],
            "report": self.report.to_dict(),
            "interval": vars(self.interval),
            "official_subset": None if official is None else official.to_dict(),
            "early_exit": None if self.early_exit is None else self.early_exit.to_dict(),
            "cost": self.work.to_dict(),
            "order": None if order is None else vars(order),
            "calibration": None if calibration is None else vars(calibration),
            "rejection": [{"answered": answered, "right": right} for answered, right in self.rejection],
            "frames_sweep": {str(frames): value for frames, value in self.sweep.items()},
        }

    def worst(self, count: int) -> list[int]:
        """Return the rows of the `count` wrong answers with the highest scores, highest first (one action per video)."""
        wrong_N = self.scores.argmax(dim=1) != self.targets.argmax(dim=1)
        order_N = self.scores.amax(dim=1).argsort(descending=True)
        return [row for row in order_N.tolist() if wrong_N[row]][:count]


def evaluate(
    data: VideoSet,
    predictor: Predictor,
    cache: EmbeddingCache | None = None,
    config: EvaluateConfig = DEFAULTS,
    *,
    process: ProcessRank = ONLY_PROCESS,
    progress: ScoringProgress = lambda stage, done, total: None,
) -> Evaluation:
    """Evaluate the model on labelled videos, whose labels are matched to its own by name. Nothing is written but the cache.

    Args:
        cache: Where frame embeddings are looked up and stored; None computes all of them.
        config: What to evaluate beside the main figure.
        process: This process among several that evaluate at the same time. Each gets the whole evaluation.

    Raises DataError if the model lacks a label or no video could be read, ConfigError for early exit with more than one view.
    """
    targets_BK = targets_for(data, predictor)
    generator = torch.Generator().manual_seed(config.seed)
    orders_BOT = _other_orders(len(data.samples), predictor.num_frames, generator) if config.order else None
    exits = predictor.exit_plan(config.early_exit)
    if exits is not None and len(config.views) > 1:
        raise ConfigError(
            f"early exit needs a single view of each video, but {config.views.describe(exits.num_frames)} are asked for"
        )
    began = time.perf_counter()
    scores = score_videos(
        data,
        predictor,
        cache,
        views=config.views,
        orders_BOT=orders_BOT,
        with_lengths=config.official_subset,
        exits=exits,
        process=process,
        progress=progress,
    )
    seconds = time.perf_counter() - began
    logits_NK, targets_NK = scores.logits, targets_BK[scores.indices]
    samples = tuple(data.samples[index] for index in scores.indices.tolist())
    groups = [sample.group or sample.path for sample in samples]

    def figure(logits: Tensor, targets: Tensor) -> float:
        return figure_of(report_of(predictor.runtime.task, logits, targets, predictor.labels))

    sweep = {}
    for num_frames in config.sweep:
        other = score_videos(
            data, predictor, cache, views=config.views, num_frames=num_frames, process=process, progress=progress
        )
        sweep[num_frames] = figure(other.logits, targets_BK[other.indices])
    single = predictor.runtime.task == "single"
    return Evaluation(
        report=report_of(predictor.runtime.task, logits_NK, targets_NK, predictor.labels),
        interval=interval_of(lambda rows: figure(logits_NK[rows], targets_NK[rows]), groups, generator),
        order=_order(figure, scores, targets_NK) if config.order else None,
        calibration=calibrated(logits_NK, targets_NK.argmax(dim=1), groups) if single else None,
        rejection=rejection_curve(logits_NK, targets_NK.argmax(dim=1)) if single else [],
        sweep=sweep,
        official=_official_subset(scores, targets_NK, predictor) if config.official_subset else None,
        early_exit=None if exits is None else _early_exit(exits, scores.stages, targets_NK.argmax(dim=1)),
        work=work_of(predictor, config.views, scores.pace),
        samples=samples,
        logits=logits_NK,
        targets=targets_NK,
        scores=predictor.torch.model.scores(logits_NK),
        failures=scores.failures,
        provenance={
            "model": predictor.name,
            "data": data.name,
            "data_fingerprint": data.fingerprint(),
            "num_data_videos": len(data.samples),
            "protocol": config.views.describe(predictor.num_frames),
            **known_facts(samples, predictor.torch.checkpoint.provenance, data.fingerprint()),
            "precision": str(predictor.torch.dtype).removeprefix("torch."),
            "num_cached": scores.num_cached,
            "seconds": round(seconds, 2),
        },
    )


def figure_of(report: Report | MultiLabelReport) -> float:
    """Return the main figure of a report: top-1, or mAP for multi-label models."""
    return report.top1 if isinstance(report, Report) else report.mean_ap


def figure_name(report: Report | MultiLabelReport) -> str:
    """Return the name of the figure that `figure_of` returns."""
    return "top-1" if isinstance(report, Report) else "mAP"


def work_of(predictor: Predictor, views: Views, pace: ScoringSpeed) -> EvaluationCost:
    """Return the cost of scoring one video in these views, counted without running the network; `pace` becomes part of it."""
    config = predictor.torch.config
    merged = merged_per_block(predictor.torch.model.frame_encoder)
    preset = next((preset for preset in PRESETS.values() if preset.model == config and not merged), None)
    if preset is not None:  # saves importing sympy, which torch's meta device needs: 2.5 s
        cost = Cost(preset.num_parameters, preset.gmacs, preset.attention_gmacs)
    else:
        with torch.device("meta"):
            model = build_model(config, predictor.runtime.view)
        if merged:
            merge_tokens(model.frame_encoder, merged)
        cost = count_cost(model.eval(), config.num_frames, config.image_size)
    return EvaluationCost(
        frames_read=views.num_clips * config.num_frames,
        num_views=len(views),
        view_cost=cost,
        pace=pace,
        machine=f"{predictor.torch.torch_device.type} {machine_name(predictor.torch.torch_device)}",
        precision=str(predictor.torch.dtype).removeprefix("torch."),
    )


def targets_for(data: VideoSet, predictor: Predictor) -> Tensor:
    """Return targets (B, K) in the order of the model's labels. Names are compared without case, and with _ for a space. Raises
    DataError if the model lacks a label, or differs from the data in how many actions a video may have."""
    if data.multilabel != (predictor.runtime.task == "multilabel"):
        kinds = {True: "any number of actions per video", False: "one action per video"}
        task = "multilabel" if data.multilabel else "single"
        raise DataError(
            f"{data.name}: the data have {kinds[data.multilabel]}, but the model names {kinds[not data.multilabel]}; use a model "
            f"trained with --task {task}"
        )
    targets_BK = torch.zeros(len(data.samples), len(predictor.labels))
    indices = torch.tensor(indices_of(data.labels, predictor.labels, f"{data.name}: the model"))
    return targets_BK.index_add(1, indices, data.multi_hot()).clamp(max=1)


def indices_of(labels: Sequence[str], known: Sequence[str], whose: str) -> list[int]:
    """Return the index of each label among the known ones. Names are compared without case, and with _ for a space.

    Raises DataError if a label is not known; its text begins with `whose`, such as `teacher 'x'`.
    """
    index = {plain(label): number for number, label in enumerate(known)}
    unknown = [label for label in labels if plain(label) not in index]
    if unknown:
        raise DataError(
            f"{whose} has no {unknown[0]!r} ({len(unknown)} of {len(labels)} labels are unknown to it); "
            f"{nearest(unknown[0], known)}"
        )
    return [index[plain(label)] for label in labels]


def plain(label: str) -> str:
    """Return a label in the form in which names are compared: lower case, with single spaces and no underscores."""
    return " ".join(label.replace("_", " ").casefold().split())


def calibrated(logits_NK: Tensor, targets_N: Tensor, groups: list[str]) -> Calibration:
    """Return the calibration before and after temperature scaling. Each half of the groups is scaled by what fits the other."""
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


def _other_orders(num_videos: int, num_frames: int, generator: torch.Generator) -> Tensor:
    """Return indices (B, O, T) that put frames backwards first, then in random orders, drawn for each video anew."""
    shuffled = [torch.rand(num_videos, num_frames, generator=generator).argsort(dim=1) for _ in range(NUM_SHUFFLES)]
    return torch.stack([torch.arange(num_frames).flip(0).expand(num_videos, -1), *shuffled], dim=1)


def _order(figure: Figure, scores: Scores, targets_NK: Tensor) -> FrameOrder:
    backwards, *shuffled = (figure(logits_NK, targets_NK) for logits_NK in scores.others.unbind(1))
    return FrameOrder(figure(scores.logits, targets_NK), backwards, sum(shuffled) / NUM_SHUFFLES)


def _early_exit(plan: ExitPlan, logits_SNK: Tensor, targets_N: Tensor) -> EarlyExit:
    others = {
        threshold: figures_of(replace(plan, threshold=threshold), logits_SNK, targets_N) for threshold in EXIT_CURVE
    }
    return EarlyExit(
        threshold=plan.threshold,
        figures=figures_of(plan, logits_SNK, targets_N),
        num_frames=plan.num_frames,
        curve=tuple((threshold, figures.mean_frames, figures.top1) for threshold, figures in others.items()),
    )


def _official_subset(scores: Scores, targets_NK: Tensor, predictor: Predictor) -> OfficialSubset:
    num_frames = predictor.num_frames
    shortest_s = num_frames / RELEASE_FPS
    rows = [
        row for row, length_s in enumerate(scores.lengths_s) if length_s is not None and length_s >= shortest_s - SAME_S
    ]
    return OfficialSubset(
        num_frames=num_frames,
        shortest_s=shortest_s,
        num_videos=len(rows),
        num_all=len(targets_NK),
        report=report_of(predictor.runtime.task, scores.logits[rows], targets_NK[rows], predictor.labels)
        if rows
        else None,
    )
