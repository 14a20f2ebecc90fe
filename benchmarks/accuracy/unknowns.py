"""Which videos show none of a model's actions: how well that is told, and by which evidence.

    python -m benchmarks.accuracy.unknowns DATA > benchmarks/accuracy/unknowns.json

DATA is the folder of the real sets (its README has their origin), with `ut_interaction`, `fir_rgb`, `fights` and `clips`. All
videos are embedded once by the packaged frame encoder (16 uniform frames, float32, as they are and mirrored); the rest is numpy.

- `near`: each action of a source is left out in turn, and is unknown. Known videos are those of the other actions in left-out
  groups: five folds of whole groups, drawn with each of three seeds. `ut`: six interactions, a group is a sequence. `daily`: five
  movements, a group is a recording. `both`: all eleven together, as the packaged model learns them.
- `far`: a model of all actions of one source; known videos are those of left-out groups, unknown ones are another source.
- `places`: a model of set 1 of UT-Interaction (a parking lot); known are the videos of set 2 (a lawn, the same actions), unknown
  are strangers: another source. And the reverse. With `background`, the model has also learned from videos of a third source.
- `clips`: six single clips, and `examples`: the two of this repository, by the judge of the packaged model: of both sources and of
  drawn clips (runs/packaged.py). `without_drawn`: the same without the drawn clips.

AUROC and false alarms are in %. A false alarm is an unknown video that is answered. It is counted at the threshold that keeps 95 %
of the known videos of the test (`at_95_kept`), and at the model's own threshold, with the known videos that this keeps.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.data.layouts import Sample
from fewframes.models.moments import moment_features
from fewframes.models.read_out.solve import cross_entropy, solve_moments
from fewframes.models.rejection.fitting import fit_rejection
from fewframes.models.rejection.rejection import EVIDENCE, Rejection, reason_of
from fewframes.training.config import RunConfig
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.model import SolvedStart
from runs.packaged import drawn_clips, rows_of, videos_of

Floats = NDArray[np.float32]
SEEDS, FOLDS = 3, 5
Scores = dict[str, NDArray[np.floating]]
"""For each kind of evidence, and for their combination, a number for each video (B,): higher for known videos."""


@dataclass(frozen=True, eq=False)
class Videos:
    """Embedded videos (B, V, T, D) with their labels and groups."""

    embeddings: Floats
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]

    def part(self, chosen: NDArray[np.bool_]) -> Videos:
        return Videos(self.embeddings[chosen], self.labels[chosen], self.groups[chosen])

    def joined(self, other: Videos) -> Videos:
        return Videos(
            np.concatenate([self.embeddings, other.embeddings]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.groups, other.groups]),
        )


class Model:
    """A rejection, and the other ways of telling unknown videos that it is compared with, of some videos."""

    def __init__(self, videos: Videos, background: Videos | None = None) -> None:
        self.labels, targets_B = np.unique(videos.labels, return_inverse=True)
        targets_BK = np.eye(len(self.labels))[targets_B]
        none = {} if background is None else {"background_BVTD": background.embeddings}
        names = None if background is None else list(background.groups)
        rejection = fit_rejection(videos.embeddings, targets_BK, list(videos.groups), **none, background_groups=names)
        assert rejection is not None
        self.rejection: Rejection = rejection
        groups_B = np.unique(videos.groups, return_inverse=True)[1]
        self.solved = solve_moments(videos.embeddings, targets_BK, cross_entropy, groups_B=groups_B)

    def scores(self, embeddings_BTD: Floats) -> Scores:
        moments_BP = moment_features(embeddings_BTD)
        logits_BK = moments_BP @ self.solved.weight.T + self.solved.bias
        energy_B = np.logaddexp.reduce(logits_BK, axis=1)
        found = self.rejection.judge(embeddings_BTD)
        return {
            "top score": logits_BK.max(axis=1) - energy_B,
            "energy": energy_B,
            **{name: -found.evidence.values[:, number] for number, name in enumerate(EVIDENCE)},
            "combined": found.known,
            "unfamiliar": found.unfamiliar.astype(np.float32),
            "answered": (found.known >= self.rejection.threshold()).astype(np.float32),
        }


def figures(known: Scores, unknown: Scores) -> dict[str, object]:
    """AUROC and false alarms at 95 % kept for each way; what the model's own threshold does; who gets the warning."""
    ways = [name for name in known if name not in ("answered", "unfamiliar") and np.ptp(known[name]) > 0]
    return {
        "auroc": {name: round(100 * auroc(known[name], unknown[name]), 1) for name in ways},
        "at_95_kept": {
            name: round(100 * float((unknown[name] >= np.quantile(known[name], 0.05)).mean()), 1) for name in ways
        },
        "own_threshold": {
            "known answered": round(100 * float(known["answered"].mean()), 1),
            "unknown answered": round(100 * float(unknown["answered"].mean()), 1),
        },
        "unfamiliar": {
            "known": round(100 * float(known["unfamiliar"].mean()), 1),
            "unknown": round(100 * float(unknown["unfamiliar"].mean()), 1),
        },
    }


def auroc(known_N: NDArray[np.floating], unknown_N: NDArray[np.floating]) -> float:
    """How often a known video has the higher number, of all pairs; equal ones count half."""
    both = np.sort(unknown_N)
    below = np.searchsorted(both, known_N, side="left") + np.searchsorted(both, known_N, side="right")
    return float(below.mean() / 2 / len(both))


def folds_of(groups: NDArray[np.str_], seed: int) -> Iterator[NDArray[np.bool_]]:
    names = np.unique(groups)
    np.random.default_rng(seed).shuffle(names)
    for number in range(FOLDS):
        yield np.isin(groups, names[number::FOLDS])


def cross_scored(videos: Videos, is_known: NDArray[np.bool_], seed: int, others: Sequence[Videos] = ()) -> list[Scores]:
    """Scores of all videos, each by a model of the known videos of other folds; and of others, each by the model of one fold."""
    parts: list[tuple[NDArray[np.bool_], Scores]] = []
    far: list[list[Scores]] = [[] for _ in others]
    for number, fold in enumerate(folds_of(videos.groups, seed)):
        model = Model(videos.part(is_known & ~fold))
        parts.append((fold, model.scores(videos.embeddings[fold, 0])))
        for scores, other in zip(far, others, strict=True):
            scores.append(model.scores(other.embeddings[number::FOLDS, 0]))
    own = {name: np.empty(len(is_known), np.float64) for name in parts[0][1]}
    for fold, found in parts:
        for name, values in found.items():
            own[name][fold] = values
    return [own, *({name: np.concatenate([part[name] for part in scores]) for name in scores[0]} for scores in far)]


def chosen(scores: Scores, rows: NDArray[np.bool_]) -> Scores:
    return {name: values[rows] for name, values in scores.items()}


def near(videos: Videos, actions: Sequence[str] = ()) -> dict[str, object]:
    rows = []
    for action in actions or sorted(set(videos.labels)):
        for seed in range(SEEDS):
            is_known = videos.labels != action
            scores = cross_scored(videos, is_known, seed)[0]
            print(f"without {action}, seed {seed}", file=sys.stderr, flush=True)
            rows.append(
                {"unknown": action, "seed": seed, **figures(chosen(scores, is_known), chosen(scores, ~is_known))}
            )
    return summary(rows)


def far(videos: Videos, others: dict[str, Videos]) -> dict[str, object]:
    rows = []
    for seed in range(SEEDS):
        own, *found = cross_scored(videos, np.ones(len(videos.labels), bool), seed, list(others.values()))
        rows += [
            {"unknown": name, "seed": seed, **figures(own, scores)} for name, scores in zip(others, found, strict=True)
        ]
    return summary(rows)


def places(
    learned: Videos, known: Videos, strangers: dict[str, Videos], background: dict[str, Videos]
) -> dict[str, object]:
    rows: list[dict[str, object]] = []
    for name, unknown in strangers.items():
        for other in ["none", *(other for other in background if other != name)]:
            model = Model(learned, background.get(other))
            found = figures(model.scores(known.embeddings[:, 0]), model.scores(unknown.embeddings[:, 0]))
            rows.append({"unknown": name, "background": other, **found})
    return {"rows": rows}


def singles(model: Model, videos: Videos) -> list[dict[str, object]]:
    found, threshold = model.rejection.judge(videos.embeddings[:, 0]), model.rejection.threshold()
    return [
        {
            "video": name,
            "known": round(float(found.known[row]), 4),
            "unknown below": round(threshold, 4),
            "unfamiliar": bool(found.unfamiliar[row]),
            "nearest action": str(model.labels[found.evidence.answers[row, : len(model.labels)].argmax()]),
            "reason": reason_of(found, row, tuple(model.labels), unknown=bool(found.known[row] < threshold)),
        }
        for row, name in enumerate(videos.labels)
    ]


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """The rows of single trials, and for each figure its mean over unknown actions: the mean over seeds, the least and the most."""

    def over(pick: Callable[[dict[str, object]], float]) -> dict[str, float]:
        seeds = sorted({row["seed"] for row in rows})  # type: ignore[type-var]
        means = [statistics.mean(pick(row) for row in rows if row["seed"] == seed) for seed in seeds]
        return {"mean": round(statistics.mean(means), 1), "min": round(min(means), 1), "max": round(max(means), 1)}

    def table(part: str) -> dict[str, dict[str, float]]:
        names: list[str] = [name for name in rows[0][part] if all(name in row[part] for row in rows)]  # type: ignore[attr-defined, operator]
        return {name: over(lambda row, name=name: row[part][name]) for name in names}  # type: ignore[misc, index]

    return {
        "mean": {part: table(part) for part in ("auroc", "at_95_kept", "own_threshold", "unfamiliar")},
        "rows": rows,
    }


def embedded(data: VideoSet, cache: EmbeddingCache) -> Videos:
    start = SolvedStart(RunConfig(), data.labels, "single", "cpu", "float32")
    views = embed_views(data, start, cache, lambda *_: None, mirror=True)
    assert not views.failures, views.failures[0]
    print(f"{data.name}: {len(data.samples)} videos", file=sys.stderr, flush=True)
    return Videos(views.embeddings, np.array([sample.labels[0] for sample in data.samples]), np.array(data.groups()))


def files_of(folder: Path) -> VideoSet:
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".avi", ".mkv"))
    return VideoSet(tuple(Sample(path=str(path), labels=(path.stem,)) for path in paths), folder.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/unknowns-cache"))
    options = parser.parse_args()
    data, cache = options.data, EmbeddingCache(options.cache)
    both = embedded(videos_of(data), cache)
    rows = rows_of(data / "fights", "list.csv")
    samples = (Sample(path=str(data / "fights" / row["path"]), labels=("fight",), group=row["group"]) for row in rows)
    fights = embedded(VideoSet(tuple(samples), "fights"), cache)
    clips, examples = embedded(files_of(data / "clips"), cache), embedded(files_of(ROOT / "examples"), cache)
    is_ut = np.char.startswith(both.groups, "ut ")
    ut, daily = both.part(is_ut), both.part(~is_ut)
    sequences = np.array([int(group.split()[-1]) for group in ut.groups])
    one, two = ut.part(sequences <= 10), ut.part(sequences > 10)
    strangers = {"daily": daily, "fights": fights}
    drawn = embedded(drawn_clips(options.cache.parent / "drawn"), cache)
    whole, without = Model(both.joined(drawn)), Model(both)
    write_result(
        near={"ut": near(ut), "daily": near(daily), "both": near(both)},
        far={
            "ut": far(ut, strangers),
            "daily": far(daily, {"ut": ut, "fights": fights}),
            "both": far(both, {"fights": fights}),
        },
        places={"set 1": places(one, two, strangers, strangers), "set 2": places(two, one, strangers, strangers)},
        clips=singles(whole, clips),
        examples=singles(whole, examples),
        without_drawn={"clips": singles(without, clips), "examples": singles(without, examples)},
    )


if __name__ == "__main__":
    main()
