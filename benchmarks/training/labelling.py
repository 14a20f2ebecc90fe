"""How many labels the next moment saves, against labelling in random order: simulated labelling of real videos.

    python -m benchmarks.training.labelling DATA > benchmarks/training/labelling.json

An oracle labels one window after another. After each label the read-out of motion moments is solved anew from what is labelled, by
the ridge of `models/moments.py` in its dual form (moments standardised over the pool), and measured on groups that are in no pool.
Windows are chosen from their compressed features (`label/choosing.py`), and from the scores of a read-out of these features.

- `fights`, `daily`: half of the surveillance set, and the daily movements; a clip is a window. Rules were compared on these two,
  and on a film of four daily movements (not kept: no rule learned them), before the others were looked at.
- `ut`: UT-Interaction without 4 of its 20 sequences. `ut_rare`: the same, each action half as often as the one before.
- `film`: frames at 8/s of interactions, 3 clips an action in random order, between daily movements and streets without a fight,
  which are `none`. Windows of 2 s, one a second; a label closes the windows beside it. Measured on a film of other sequences,
  recordings and sources: mean F1 of the actions over windows.

`daily` and `ut_rare` are measured by the mean over actions, `fights` and `ut` by the fraction that is right. `labels_needed`: the
fewest labels with which the mean curve of a rule reaches the mean curve of the random order at so many labels, and their ratio,
with its 95 % interval over draws (a target that was not reached counts as one label more than there are). `all_labels_seen`: the
median number of labels until every label of the pool was given once.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.solved_head import set_of
from benchmarks.harness import interleaved, least_median_most, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.core.settings import cache_dir
from fewframes.data.dataset import VideoSet
from fewframes.label.choosing import NOISE, Compression, likeness_order, next_windows
from fewframes.models.moments import MOMENT_WEIGHTS, SOLVED_MOMENTS, STD_FLOOR, moment_features
from fewframes.models.read_out.problem import RIDGE
from fewframes.models.read_out.solve import GAINS, cross_entropy, solve_moments
from fewframes.runtime.protocol import scores_of
from fewframes.training.config import RunConfig
from fewframes.training.solved.features import embed_views
from fewframes.training.solved.model import SolvedStart
from fewframes.video.view import ViewConfig
from runs.packaged import rows_of

DRAWS, MOST, SEED = 10, 80, 0
MARKS = (20, 40, 60, 80)
RATE, WINDOW, STEP = 8, 16, 8
MOST_FRAMES, CLIPS = 48, 3
NONE = "none"
Array = NDArray[Any]


# The learner


def scaled(moments_NP: Array, pool: Array) -> Array:
    weights_M = np.array(MOMENT_WEIGHTS[SOLVED_MOMENTS])
    spread_MD = moments_NP[pool].std(axis=0, ddof=1).reshape(len(weights_M), -1)
    spread_MD += STD_FLOOR * spread_MD.mean(axis=1, keepdims=True)
    scale_P = (np.sqrt(weights_M)[:, None] / np.maximum(1e-6, spread_MD)).ravel()
    return np.asarray((moments_NP - moments_NP[pool].mean(axis=0)) * scale_P, np.float32)


def solved(products: Array, rows: Array, numbers: Array, wanted: Array | slice) -> Array:
    """Logits of the wanted windows, by the ridge regression on the labelled rows."""
    among = products[np.ix_(rows, rows)].astype(np.float64)
    mean, whole = among.mean(axis=0), among.mean()
    among += whole - mean - mean[:, None]
    targets = np.eye(numbers.max() + 1)[numbers]
    prior = targets.mean(axis=0)
    ridge = RIDGE * max(1e-6, among.diagonal().mean())
    inverse = np.linalg.inv(among + ridge * np.eye(len(rows)))
    dual = inverse @ (targets - prior)
    own = inverse.diagonal() - 1 / (len(rows) * ridge)
    left_out = targets - 0.5 - dual / np.maximum(1e-9, own)[:, None]
    gain = min(GAINS, key=lambda gain: cross_entropy(gain * left_out, targets))
    others = products[:, rows][wanted]
    return np.asarray(
        gain * ((others - others.mean(axis=1, keepdims=True) - mean + whole) @ dual + prior - 0.5), np.float64
    )


# The rules


@dataclass
class State:
    """What a rule may look at."""

    features: Array
    scores: Array | None
    labelled: list[int]
    open: Array
    rng: np.random.Generator


def next_moment(state: State) -> int:
    scores, examples = state.scores, state.features[state.labelled]
    return next_windows(state.features, scores, examples, state.open, 1)[0].index


def random_order(state: State) -> int:
    return int(state.rng.choice(np.flatnonzero(state.open)))


def largest_entropy(state: State) -> int:
    if state.scores is None:
        return next_moment(state)
    return best(state, -(state.scores * np.log(state.scores + 1e-9)).sum(axis=1))


def weighted_variance(state: State) -> int:
    """The window whose label lowers the variance of all windows most, each weighted by its entropy."""
    if state.scores is None:
        return next_moment(state)
    singles = state.features.astype(np.float32)
    known = singles[state.labelled]
    precision = known.T @ known / NOISE + np.eye(singles.shape[1], dtype=np.float32)
    covariance = singles @ np.linalg.solve(precision, singles.T)
    doubt = -(state.scores * np.log(state.scores + 1e-9)).sum(axis=1)
    return best(state, np.square(covariance) @ doubt / (covariance.diagonal() + NOISE))


def best(state: State, value: Array) -> int:
    return int(np.where(state.open, value, -np.inf).argmax())


RULES: dict[str, Callable[[State], int]] = {
    "random": random_order,
    "next moment": next_moment,
    "largest entropy": largest_entropy,
    "weighted variance": weighted_variance,
}


# The simulation


@dataclass(frozen=True)
class Task:
    """The moments of windows, their labels, which of them are the pool, and how answers are measured."""

    moments: Array
    labels: Array
    pool: Array
    measure: Callable[[Array, Array], float]
    beside: int
    """The windows on each side that a label closes too."""
    frames: Array
    """The frame embeddings (N, T, D) of clips; empty for a film."""


def simulate(task: Task, rule: str, seed: int, products: Array) -> tuple[list[float], int]:
    """The measure after each label, and the number of labels until all were seen."""
    pool, tested = task.pool, np.setdiff1d(np.arange(len(task.labels)), task.pool)
    features = Compression.fit(task.moments[pool]).compress(task.moments[pool])
    likeness = features.astype(np.float32) @ features.astype(np.float32).T
    state = State(features, None, [], np.ones(len(pool), bool), np.random.default_rng(seed))
    given, names = task.labels[pool], []
    curve: list[float] = []
    all_seen = MOST + 1
    for number in range(1, MOST + 1):
        index = RULES[rule](state)
        state.open[max(0, index - task.beside) : index + task.beside + 1] = False
        state.labelled.append(index)
        if given[index] not in names:
            names.append(given[index])
            if len(names) == len(set(given)):
                all_seen = number
        answers = np.repeat(names[0], len(tested))
        if len(names) > 1:
            rows, numbers = np.array(state.labelled), np.array([names.index(given[one]) for one in state.labelled])
            state.scores = scores_of(solved(likeness, rows, numbers, slice(None)), "single")
            answers = np.array(names)[solved(products, pool[rows], numbers, tested).argmax(axis=1)]
        curve.append(task.measure(answers, task.labels[tested]))
        if not state.open.any():
            break
    return curve, all_seen


def right(answers: Array, labels: Array) -> float:
    return float(np.mean(answers == labels))


def mean_over_labels(answers: Array, labels: Array) -> float:
    return float(np.mean([np.mean(answers[labels == label] == label) for label in np.unique(labels)]))


def mean_f1(answers: Array, labels: Array) -> float:
    actions = [label for label in np.unique(labels) if label != NONE]
    hits = [2 * np.sum((answers == action) & (labels == action)) for action in actions]
    counts = [np.sum(answers == action) + np.sum(labels == action) for action in actions]
    return float(np.mean(np.array(hits) / counts))


# The sets


class Dense:
    """A frame encoder that is asked for another number of frames."""

    def __init__(self, start: SolvedStart, num_frames: int) -> None:
        self.embed_frames, self.encoder_key = start.embed_frames, start.encoder_key
        self._view, self._num_frames = start.view, num_frames

    @property
    def view(self) -> ViewConfig:
        return self._view

    @property
    def num_frames(self) -> int:
        return self._num_frames


@dataclass(frozen=True)
class Clips:
    """Frame embeddings (T, D) of each clip, its label and group."""

    frames: list[Array]
    labels: list[str]
    groups: list[str]

    @classmethod
    def of(cls, data: VideoSet, cache: EmbeddingCache, num_frames: Sequence[int]) -> Clips:
        start = SolvedStart(RunConfig(), data.labels, "single", "cpu", "float32")
        frames: dict[int, Array] = {}
        for number in sorted(set(num_frames)):
            rows = [row for row, count in enumerate(num_frames) if count == number]
            some = replace(data, samples=tuple(data.samples[row] for row in rows))
            embedded = embed_views(some, Dense(start, number), cache, lambda *_: None)
            assert not embedded.failures
            frames |= dict(zip(rows, embedded.embeddings[:, 0], strict=True))
        print(data.name, len(frames), file=sys.stderr)
        groups = [f"{data.name} {sample.group}" for sample in data.samples]
        return cls([frames[row] for row in range(len(frames))], [one.labels[0] for one in data.samples], groups)


def dense_counts(folder: Path, data: VideoSet) -> list[int]:
    seconds = {str(folder / row["path"]): float(row["frames"]) / float(row["fps"]) for row in rows_of(folder)}
    return [round(RATE * seconds[sample.path]) for sample in data.samples]


def held_out(groups: Sequence[str], share: float, draw: np.random.Generator) -> Array:
    names = np.unique(groups)
    return np.isin(groups, draw.permutation(names)[: round(share * len(names))])


def clip_task(name: str, clips: Clips, seed: int) -> Task:
    draw = np.random.default_rng(100 + seed)
    labels = np.array(clips.labels)
    pool = draw.permutation(np.flatnonzero(~held_out(clips.groups, 0.25 if name == "fights" else 0.2, draw)))
    if name == "ut_rare":
        ordered = draw.permutation(np.unique(labels)).tolist()
        kept = [pool[labels[pool] == one] for one in ordered]
        pool = draw.permutation(np.concatenate([rows[: max(1, len(rows) >> rank)] for rank, rows in enumerate(kept)]))
    measure = mean_over_labels if name in ("daily", "ut_rare") else right
    frames = np.stack(clips.frames)
    return Task(moment_features(frames, SOLVED_MOMENTS), labels, pool, measure, 0, frames)


def windows_of(actions: list[tuple[Array, str]], others: list[tuple[Array, str]], draw: np.random.Generator) -> Any:
    """The moments and labels of the windows of a film of these pieces in random order."""
    pieces = [*actions, *((frames, NONE) for frames, _ in others)]
    shuffled = [pieces[row] for row in draw.permutation(len(pieces))]
    frames_ND = np.concatenate([frames[:MOST_FRAMES] for frames, _ in shuffled])
    labels_N = np.concatenate([np.repeat(label, len(frames[:MOST_FRAMES])) for frames, label in shuffled])
    firsts = range(0, len(frames_ND) - WINDOW + 1, STEP)
    labels = []
    for first in firsts:
        found, counts = np.unique(labels_N[first : first + WINDOW], return_counts=True)
        labels.append(str(found[counts.argmax()]) if counts.max() > WINDOW / 2 else NONE)
    windows_NTD = np.stack([frames_ND[first : first + WINDOW] for first in firsts])
    return moment_features(windows_NTD, SOLVED_MOMENTS), labels


def film_task(sets: Mapping[str, Clips], seed: int) -> Task:
    draw = np.random.default_rng(1000 + seed)
    parts: dict[bool, tuple[list[tuple[Array, str]], list[tuple[Array, str]]]] = {True: ([], []), False: ([], [])}
    for name in ("ut dense", "daily dense", "fights"):
        clips = sets[name]
        is_held = held_out(clips.groups, 0.25, draw)
        for frames, label, held in zip(clips.frames, clips.labels, is_held, strict=True):
            if label != "fight":
                parts[bool(held)][0 if name == "ut dense" else 1].append((frames, label))
    actions, others = parts[False]
    chosen: list[tuple[Array, str]] = []
    for label in sorted({label for _, label in actions}):
        rows = [one for one in actions if one[1] == label]
        chosen += [rows[row] for row in draw.permutation(len(rows))[:CLIPS]]
    moments_NP, labels = windows_of(chosen, others, draw)
    tested_MP, tested = windows_of(*parts[True], draw)
    every = np.array([*labels, *tested])
    return Task(np.concatenate([moments_NP, tested_MP]), every, np.arange(len(labels)), mean_f1, 1, np.empty(0))


def task_of(name: str, sets: Mapping[str, Clips], seed: int) -> Task:
    return film_task(sets, seed) if name == "film" else clip_task(name, sets[name.removesuffix("_rare")], seed)


def draw_of(job: tuple[str, int]) -> dict[str, Any]:
    name, seed = job
    task = task_of(name, SETS, seed)
    scaled_NP = scaled(task.moments, task.pool)
    products = scaled_NP @ scaled_NP.T
    found = {rule: simulate(task, rule, seed, products) for rule in RULES}
    none = float(np.mean(task.labels[task.pool] == NONE))
    return {"rules": found, "windows": len(task.pool), "none": none, "solvers": both_solvers(task, products)}


def both_solvers(task: Task, products: Array) -> list[float]:
    """The measure from 40 labels at random by the dual form, and by `solve_moments` itself. Films have no single frames left."""
    if not len(task.frames):
        return []
    rows, tested = task.pool[:40], np.setdiff1d(np.arange(len(task.labels)), task.pool)
    names, numbers = np.unique(task.labels[rows], return_inverse=True)
    dual = solved(products, rows, numbers, tested)
    targets = np.eye(len(names))[numbers]
    one = solve_moments(task.frames[rows][:, None], targets, cross_entropy, moments=SOLVED_MOMENTS)
    package = task.moments[tested] @ one.weight.T + one.bias
    return [task.measure(names[logits.argmax(axis=1)], task.labels[tested]) for logits in (dual, package)]


SETS: dict[str, Clips] = {}
"""The sets, which forked processes share."""


# The figures


def needed(curve: Array, target: float) -> int:
    reached = np.flatnonzero(curve >= target - 1e-9)
    return int(reached[0]) + 1 if len(reached) else len(curve) + 1


def labels_needed(curves: Array, orders: Array) -> dict[str, Any]:
    """Curves (draws, labels) of a rule against those of the random order."""
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(len(curves), size=(1000, len(curves)))
    rows: dict[str, Any] = {}
    for mark in (mark for mark in MARKS if mark <= curves.shape[1]):
        ratios = [needed(curves[some].mean(0), orders[some].mean(0)[mark - 1]) / mark for some in drawn]
        count = needed(curves.mean(0), orders.mean(0)[mark - 1])
        rows[str(mark)] = {
            "labels": count,
            "ratio": round(count / mark, 2),
            "interval": [round(float(one), 2) for one in np.percentile(ratios, [2.5, 97.5])],
        }
    return rows


def figures(draws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    length = min(len(curve) for one in draws for curve, _ in one["rules"].values())
    curves = {rule: np.array([one["rules"][rule][0][:length] for one in draws]) for rule in RULES}
    rows = {}
    for rule, values in curves.items():
        gains = (values - curves["random"]).mean(axis=1)
        some = np.random.default_rng(SEED).integers(len(gains), size=(1000, len(gains)))
        low, high = np.percentile(gains[some].mean(axis=1), [2.5, 97.5])
        rows[rule] = {
            "percent": {str(n): round(100 * float(values[:, n - 1].mean()), 1) for n in (10, *MARKS) if n <= length},
            "points above random, mean of the curve": {
                name: round(100 * float(one), 1)
                for name, one in (("value", gains.mean()), ("low", low), ("high", high))
            },
            "all_labels_seen": float(np.median([one["rules"][rule][1] for one in draws])),
            **({} if rule == "random" else {"labels_needed": labels_needed(values, curves["random"])}),
        }
    return {
        "draws": len(draws),
        "windows": least_median_most([one["windows"] for one in draws]),
        "share that is none": round(float(np.mean([one["none"] for one in draws])), 3),
        "percent from 40 labels, dual form and solve_moments": (
            100 * np.mean([one["solvers"] for one in draws], axis=0)
        )
        .round(1)
        .tolist(),
        "rules": rows,
    }


def speed() -> dict[str, object]:
    """Milliseconds of the processor: an answer for 100 hours, 1,000 examples and 20 labels, and the order of 2,000 tiles."""
    rng = np.random.default_rng(SEED)
    features = np.concatenate([unit_rows(rng, 10_000) for _ in range(36)])
    scores = rng.dirichlet(np.ones(20), len(features)).astype(np.float32)
    is_open = np.arange(len(features)) >= 1000
    ways = {
        "next of 360,000 windows": lambda: next_windows(features, scores, features[:1000], is_open, 1),
        "the same without scores": lambda: next_windows(features, None, features[:1000], is_open, 1),
        "likeness of 2,000 tiles": lambda: likeness_order(features[:2000]),
    }
    seconds = interleaved(ways, 7)
    return {name: least_median_most([1000 * one for one in found]) for name, found in seconds.items()}


def unit_rows(rng: np.random.Generator, count: int) -> Array:
    rows = rng.standard_normal((count, 256), dtype=np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def everything(data: Path, cache: EmbeddingCache) -> Iterator[tuple[str, Clips]]:
    for name, folder in (("ut", "ut_interaction"), ("daily", "fir_rgb"), ("fights", "fights")):
        videos = set_of(data, name)
        yield name, Clips.of(videos, cache, [WINDOW] * len(videos.samples))
        if name != "fights":
            yield f"{name} dense", Clips.of(videos, cache, dense_counts(data / folder, videos))


def main() -> None:
    answers = speed()
    SETS.update(everything(Path(sys.argv[1]), EmbeddingCache(cache_dir())))
    jobs = [(name, seed) for name in ("film", "ut", "ut_rare", "daily", "fights") for seed in range(DRAWS)]
    found: dict[str, list[dict[str, Any]]] = {}
    with multiprocessing.get_context("fork").Pool(2) as pool:  # numpy alone, which survives a fork
        for (name, seed), result in zip(jobs, pool.imap(draw_of, jobs), strict=True):
            print(name, seed, file=sys.stderr)
            found.setdefault(name, []).append(result)
    write_result(processor_milliseconds=answers, sets={name: figures(draws) for name, draws in found.items()})


if __name__ == "__main__":
    main()
