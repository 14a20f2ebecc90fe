"""What a budget of time gives: how often it is kept, how many frames are looked at, how often the answer is right and how sure.

    python -m benchmarks.speed.budget ../shared/data --cache CACHE > benchmarks/speed/budget.json

The videos and five folds are those of runs/packaged.py. For each fold a head is taught on the other folds (one seed), divided by
what calibrates it at 16 frames, and given divisors for few frames (`budget.fit_divisors`), both fitted on held-out logits of the
other folds. So no number behind an answer was fitted on the video or its group. (The heads behind the logits of the other folds
have learned from this fold's videos; its labels reach the divisors in no other way.) Frames are read from the files and encoded by
the packaged encoder, by ONNX Runtime on one core. Budgets take their turns video by video, and are measured in processor time of
this process. The first two videos of each fold are read once more before, uncounted, to warm up.

`within`: videos that took no more than the budget. `over_ms`: how much longer the others took. `error`: expected calibration error
with the divisors for few frames, and `error_undivided` without them. `by_frames`: the same if all videos had so many frames.
`none` is the plain answer of 16 frames.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import PACKAGED, embedded, least_median_most, runtime_of, taught, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import calibration_error, fit_temperature
from fewframes.data.dataset import VideoSet
from fewframes.inference.clips import ClipRequest
from fewframes.inference.predictor import Predictor, load
from fewframes.inference.stages.budget import STORED, Budget, BudgetReader, fit_divisors, stage_plan_of, stages_within
from fewframes.inference.stages.early_exit import stage_logits
from fewframes.runtime.protocol import Floats, Frames, WindowEncoding
from fewframes.sampling import ONE_PASS
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.config import TrainConfig
from runs.packaged import MOVEMENTS, folds_of, videos_of

BUDGETS_MS = (25.0, 50.0, 100.0, 200.0, 400.0)
STAGES = stages_within(16)
WARM_UP = 2


class FoldRuntime:
    """The packaged encoder with the head of one fold."""

    def __init__(self, encoder: Any, head: Any, temperature: float, divisors: Mapping[str, float]) -> None:
        self._encoder, self._head, self._temperature = encoder, head, np.float32(temperature)
        self.provenance = {STORED: dict(divisors)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_windows(self, embeddings_BTD: Floats, *, with_attention: bool = False) -> WindowEncoding:
        found = self._head.encode_windows(embeddings_BTD, with_attention=with_attention)
        return WindowEncoding(found.logits / self._temperature, found.embedding, found.frame_attention)

    def embed_frames(self, frames_TCHW: Frames) -> Floats:
        embeddings: Floats = self._encoder.embed_frames(frames_TCHW)
        return embeddings


@dataclass
class Figures:
    """What one budget gave, video by video."""

    took_ms: list[float] = field(default_factory=list)
    num_frames: list[int] = field(default_factory=list)
    logits: list[Floats] = field(default_factory=list)
    divisors: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    moved: int = 0

    def to_dict(self, budget_ms: float | None) -> dict[str, Any]:
        logits_NK, targets_N = np.stack(self.logits), np.array(self.targets)
        took_N, right_N = np.array(self.took_ms), np.stack(self.logits).argmax(axis=1) == np.array(self.targets)
        undivided_NK = logits_NK * np.array(self.divisors, np.float32)[:, None]
        confidence_N = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
        confidence_N = (confidence_N / confidence_N.sum(axis=1, keepdims=True)).max(axis=1)
        found: dict[str, Any] = {
            "videos": len(took_N),
            "took_ms": least_median_most(took_N.tolist()),
            "frames": {
                "mean": round(float(np.mean(self.num_frames)), 2),
                "videos": {str(size): self.num_frames.count(size) for size in sorted(set(self.num_frames))},
            },
            "top1": round(100 * float(right_N.mean()), 1),
            "mean_confidence": round(100 * float(confidence_N.mean()), 1),
            "error": round(100 * calibration_error(logits_NK, targets_N), 1),
            "error_undivided": round(100 * calibration_error(undivided_NK, targets_N), 1),
        }
        if budget_ms is not None:
            over = [took_ms - budget_ms for took_ms in self.took_ms if took_ms > budget_ms]
            found["within"] = round(100 * float((took_N <= budget_ms).mean()), 1)
            found["within_10_percent"] = round(100 * float((took_N <= 1.1 * budget_ms).mean()), 1)
            found["over_ms"] = least_median_most(over) if over else None
            found["moved"] = self.moved
        return found


def heads(
    videos: VideoSet, predictor: Predictor, cache: EmbeddingCache
) -> tuple[list[tuple[list[int], Any]], Floats, NDArray[np.int64]]:
    """The held-out rows and the head of each fold, the logits (S, B, K) of all stages from them, and the fold of each video."""
    embeddings_BVTD = embedded(videos, predictor, cache, augment=AugmentConfig())
    targets_B, groups = torch.tensor(videos.targets()), videos.groups()
    logits_SBK = np.zeros((len(STAGES), len(targets_B), len(videos.labels)), np.float32)
    found, folds_B = [], np.zeros(len(targets_B), np.int64)
    for number, (_, held) in enumerate(folds_of(videos)):
        rest = np.setdiff1d(np.arange(len(targets_B)), held)
        model = taught(
            PACKAGED,
            embeddings_BVTD[rest],
            targets_B[rest],
            len(videos.labels),
            TrainConfig(),
            [groups[row] for row in rest.tolist()],
        )
        head = runtime_of(model)
        logits_SBK[:, held], folds_B[held] = stage_logits(head, embeddings_BVTD[held, 0].numpy(), STAGES), number
        found.append((held, head))
        print(f"fold {number} taught", file=sys.stderr)
    return found, logits_SBK, folds_B


def measure(
    videos: VideoSet, predictor: Predictor, parts: list[tuple[list[int], Any]], logits_SBK: Floats, folds_B: Any
) -> tuple[dict[float | None, dict[str, Figures]], list[dict[str, float]]]:
    """The figures of each budget and set, and the divisors of each fold."""
    targets_B = np.array(videos.targets())
    sets = ("all", "interactions", "movements")
    figures: dict[float | None, dict[str, Figures]] = {
        budget_ms: {name: Figures() for name in sets} for budget_ms in (*BUDGETS_MS, None)
    }
    fits = []
    for number, (held, head) in enumerate(parts):
        others_B = folds_B != number
        temperature = fit_temperature(logits_SBK[-1][others_B], targets_B[others_B])
        divisors = fit_divisors(STAGES, logits_SBK[:, others_B], targets_B[others_B])
        fits.append({"all frames": round(temperature, 3), **divisors})
        runtime: Any = FoldRuntime(predictor.runtime, head, temperature, divisors)
        plan, request = stage_plan_of(runtime, early_exit=False), ClipRequest(ONE_PASS, 16)
        readers = {
            budget_ms: BudgetReader(runtime, predictor.reader, lambda windows: [None] * len(windows), time.process_time)
            for budget_ms in figures
        }
        for turn, row in enumerate([*held[:WARM_UP], *held]):
            sample = videos.samples[row]
            for budget_ms, reader in readers.items():
                budget = Budget(ms=1e9 if budget_ms is None else budget_ms)
                found = reader.encode(sample.path, request, plan, budget, threads=1)
                if turn < WARM_UP:
                    continue
                kind = "movements" if sample.labels[0] in MOVEMENTS.values() else "interactions"
                for name in ("all", kind):
                    own = figures[budget_ms][name]
                    own.took_ms.append(found.use.took_ms)
                    own.num_frames.append(found.use.num_frames)
                    own.logits.append(found.early.encoded.logits[0])
                    own.divisors.append(divisors.get(str(found.use.num_frames), 1.0))
                    own.targets.append(int(targets_B[row]))
                    own.moved += found.use.tolerance > 0
        print(f"fold {number} measured", file=sys.stderr)
    return figures, fits


def by_frames(
    logits_SBK: Floats, targets_B: NDArray[np.int64], folds_B: NDArray[np.int64], fits: list[dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Top-1 and calibration errors, without and with the divisors, if all videos had so many frames."""
    temperatures_B = np.array([fits[fold]["all frames"] for fold in folds_B.tolist()], np.float32)
    found = {}
    for stage, logits_BK in zip(STAGES, logits_SBK / temperatures_B[:, None], strict=True):
        divisors_B = np.array([fits[fold].get(str(len(stage)), 1.0) for fold in folds_B.tolist()], np.float32)
        errors = [calibration_error(rows, targets_B) for rows in (logits_BK, logits_BK / divisors_B[:, None])]
        top1 = float((logits_BK.argmax(axis=1) == targets_B).mean())
        values = zip(("top1", "error_undivided", "error"), (top1, *errors), strict=True)
        found[str(len(stage))] = {name: round(100 * value, 1) for name, value in values}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/budget"))
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    videos = videos_of(options.data)
    predictor = load("lite0-16", device="cpu", dtype="float32", unknown="off")
    parts, logits_SBK, folds_B = heads(videos, predictor, EmbeddingCache(options.cache))
    figures, fits = measure(videos, predictor, parts, logits_SBK, folds_B)
    targets_B = np.array(videos.targets())
    write_result(
        data=videos.name,
        runtime=repr(predictor),
        threads=1,
        divisors_of_folds=fits,
        by_frames=by_frames(logits_SBK, targets_B, folds_B, fits),
        budgets_ms={
            "none" if budget_ms is None else f"{budget_ms:g}": {
                name: own.to_dict(budget_ms) for name, own in by_set.items()
            }
            for budget_ms, by_set in figures.items()
        },
    )


if __name__ == "__main__":
    main()
