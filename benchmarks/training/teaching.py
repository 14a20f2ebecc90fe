"""How long it takes from an example to a usable label, how good it is, and what it does to the other labels.

    python -m benchmarks.training.teaching DATA > benchmarks/training/teaching.json

`--only` does one part: time, coordinates or accuracy. Cached embeddings are in the user's cache (`FEWFRAMES_CACHE`).

Time: models of 100 labels with 100, 1,000 and 10,000 examples in groups of ten, whose embeddings are drawn at random around a
centre for each label; eight views of each example, and one of 10,000. A label is taught by one clip whose embeddings are cached,
each time from the same model into a new folder. Seconds by the clock and of the processors: of the whole call of
`fewframes.teach` until the model is written and until its judge of unknown videos is too, and of the whole command in a process of
its own. `load` is the number of processes that wanted a processor.

Coordinates: all of UT-Interaction, two views of each clip, sequences left out. 240 views span 240 directions, which say what the
moments say. Then half and a quarter of the views span the directions.

Accuracy: UT-Interaction, leave one sequence out, two views of each clip (as it is and mirrored). Five actions are learned from 19
sequences, and the sixth is taught by 1, 2, 5, 10 and all 19 of its clips; the sequences take
turns in which action is the sixth. In `all anew` all six are
learned together. The clips of the sequence that was left out are answered. The scores of the clips of the five actions before and
after: among the old labels themselves, that is, without the part that the new label takes, and that part.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import embedded, least_median_most, video_set, video_writer, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import Report
from fewframes.core.settings import cache_dir
from fewframes.data.samples import Sample
from fewframes.inference.predictor import load
from fewframes.models.files.model_file import MODEL_FILE, read_model_file
from fewframes.models.files.names import find_model
from fewframes.models.moments import SOLVED_MOMENTS, moment_features
from fewframes.models.read_out.solve import SolvedMoments
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.run_files import TEACHING_FILE
from fewframes.training.teaching import features
from fewframes.training.teaching.changes import TeachChanges
from fewframes.training.teaching.features import views_kept
from fewframes.training.teaching.solving import TaughtReadOut, solve_examples
from fewframes.training.teaching.state import TeachingState, new_state, write_state
from fewframes.training.teaching.teach import TeachOptions, teach
from runs.packaged import rows_of

START, WIDTH, NUM_LABELS, NUM_VIEWS, FEW_VIEWS = "lite0-16", 2288, 100, 8, 2
SIZES, REPEATS = (100, 1000, 10_000), 3
SHOTS = (1, 2, 5, 10, 19)
Floats = NDArray[np.float32]


class Made:
    """Embeddings drawn at random around a centre for each label: the frames of a video, its views and other videos differ."""

    def __init__(self, num_labels: int) -> None:
        self.rng = np.random.default_rng(0)
        self.centres_KD = self.rng.standard_normal((num_labels, WIDTH), np.float32)

    def embeddings(self, labels_B: NDArray[Any], num_views: int, num_frames: int = 4, spread: float = 4.0) -> Floats:
        shape = (len(labels_B), num_views, num_frames, WIDTH)
        found_BVTD = self.rng.standard_normal(shape, np.float32)
        found_BVTD += spread * self.rng.standard_normal((len(labels_B), 1, 1, WIDTH), np.float32)
        found_BVTD += self.centres_KD[labels_B][:, None, None]
        return np.asarray(0.3 * found_BVTD, np.float32)


def samples_of(labels_B: NDArray[Any]) -> list[Sample]:
    return [
        Sample(path=f"{number}.mp4", labels=(f"label {label:03d}",), group=f"group {number // 10}")
        for number, label in enumerate(labels_B.tolist())
    ]


def state_of(samples: Sequence[Sample], embeddings_BVTD: Floats, num_views: int = NUM_VIEWS) -> TeachingState:
    augment = AugmentConfig(views=max(0, num_views - 2))
    file = read_model_file(find_model(START))
    return new_state(samples, embeddings_BVTD, file, "single", mirror=num_views > 1, augment=augment)


# Time


def times(work: Path) -> dict[str, object]:
    clip, cache = work / "clip.mp4", EmbeddingCache(work / "cache" / "embeddings")
    rng = np.random.default_rng(1)
    with video_writer(clip, (320, 240), 25, 25, {"crf": "30"}) as add:
        for _ in range(50):
            add(av.VideoFrame.from_ndarray(rng.integers(0, 255, (240, 320, 3), np.uint8), format="rgb24"))
    changes = TeachChanges(yes={"new": [str(clip)]})
    found: dict[str, object] = {}
    for size in SIZES:
        made, labels_B = Made(NUM_LABELS), np.arange(size) % NUM_LABELS
        folder, num_views = work / f"model{size}", views_kept(size, NUM_VIEWS)
        folder.mkdir()
        write_state(folder / TEACHING_FILE, state_of(samples_of(labels_B), made.embeddings(labels_B, num_views)))
        shutil.copy(find_model(START), folder / MODEL_FILE)
        found[f"{size} examples"] = {"views of each": num_views, **timed(folder, changes, cache, work)}
        print(size, found[f"{size} examples"], file=sys.stderr)
    return found


def timed(folder: Path, changes: TeachChanges, cache: EmbeddingCache, work: Path) -> dict[str, object]:
    calls: dict[str, list[float]] = {}

    def add(name: str, seconds: float) -> None:
        calls.setdefault(name, []).append(seconds)

    for number in range(REPEATS + 1):
        output = work / "taught"
        began, used = time.perf_counter(), time.process_time()
        result = teach(folder, changes, TeachOptions(output=output, cache=cache))
        whole, processors = time.perf_counter() - began, time.process_time() - used
        state_mb = (output / TEACHING_FILE).stat().st_size / 1e6
        shutil.rmtree(output)
        if number:  # the first one embeds the clip
            add("until the model is written", whole - result.judging_s)
            add("the judge of unknown videos, after that", result.judging_s)
            add("the whole call, of the processors", processors)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.perf_counter()
            words = ["teach", str(folder), "--label", "new", "--yes", str(changes.yes["new"][0]), "-o", str(output)]
            cached = ["--cache", str(cache.folder)]
            subprocess.run([sys.executable, "-m", "fewframes.cli", *words, *cached], check=True, capture_output=True)
            add("the command", time.perf_counter() - began)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            add("the command, of the processors", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            shutil.rmtree(output)
    return {
        **{name: least_median_most(seconds) for name, seconds in calls.items()},
        "state in MB": round(state_mb, 1),
        "load": os.getloadavg()[0],
    }


# Coordinates in a part of the directions


def coordinates(data: Path) -> dict[str, object]:
    """Left-out sequences of UT-Interaction, with all moments and with coordinates in half and a quarter of the directions."""
    samples, embeddings_BVTD = interactions(data)
    num_rows, usual = len(samples) * FEW_VIEWS, features.DIRECT_ROWS
    found: dict[str, object] = {}
    for part in (1, 2, 4):
        features.DIRECT_ROWS = num_rows // part
        report = solve_examples(state_of(samples, embeddings_BVTD, FEW_VIEWS)).report
        assert isinstance(report, Report)
        found[f"{num_rows // part} directions of {num_rows}, right in %"] = round(100 * report.top1, 1)
    features.DIRECT_ROWS = usual
    return found


def interactions(data: Path) -> tuple[list[Sample], Floats]:
    folder = data / "ut_interaction"
    rows = sorted(rows_of(folder), key=lambda row: (int(row["sequence"]), row["label"]))
    cache = EmbeddingCache(cache_dir() / "embeddings")
    embeddings = embedded(video_set(folder, rows), load(START, device="cpu", dtype="float32"), cache)
    samples = [Sample(path=row["path"], labels=(row["label"],), group=row["sequence"]) for row in rows]
    return samples, embeddings.numpy()


def logits_of(solved: SolvedMoments, embeddings_BTD: Floats) -> Floats:
    return np.asarray(moment_features(embeddings_BTD, SOLVED_MOMENTS) @ solved.weight.T + solved.bias, np.float32)


# Accuracy, and the scores of old labels


def accuracy(data: Path) -> dict[str, object]:
    samples, embeddings_BVTD = interactions(data)
    labels = sorted({sample.labels[0] for sample in samples})
    sequences = sorted({sample.group for sample in samples})
    folds = [
        fold(samples, embeddings_BVTD, labels[number % len(labels)], sequence)
        for number, sequence in enumerate(sequences)
    ]
    anew = [value for found in folds for value in found["anew"]]
    result: dict[str, object] = {"all anew, right in %": percent(anew)}
    for shots in SHOTS:
        parts = [found for fold_found in folds for found in fold_found["taught"] if found["shots"] == shots]
        result[f"taught by {shots}"] = {
            "right in %": percent([value for part in parts for value in part["right"]]),
            "right of the sixth action in %": percent([value for part in parts for value in part["sixth"]]),
            "right of the old actions in %": percent([value for part in parts for value in part["old"]]),
            "old scores among themselves, mean change": round(float(np.mean([part["mean"] for part in parts])), 4),
            "old scores among themselves, largest change": round(max(part["largest"] for part in parts), 4),
            "part that the new label takes of an old one's clip, mean": round(
                float(np.mean([part["taken"] for part in parts])), 4
            ),
            "clips of old labels with another answer in %": percent(
                [value for part in parts for value in part["moved"]]
            ),
        }
    return result


def percent(values: Sequence[bool]) -> float:
    return round(100 * float(np.mean(values)), 1)


def fold(samples: Sequence[Sample], embeddings_BVTD: Floats, sixth: str, sequence: str) -> dict[str, Any]:
    """Answers to the clips of one sequence, of read-outs that did not learn from it."""
    learned = [row for row, sample in enumerate(samples) if sample.group != sequence]
    tested = [row for row, sample in enumerate(samples) if sample.group == sequence]
    names = [samples[row].labels[0] for row in tested]
    tests_BTD = embeddings_BVTD[tested, 0]
    whole = solve_examples(state_of([samples[row] for row in learned], embeddings_BVTD[learned], FEW_VIEWS))
    print("sequence", sequence, file=sys.stderr)
    return {
        "anew": [found == name for found, name in zip(answers(whole, tests_BTD), names, strict=True)],
        "taught": list(taught_by(sixth, samples, embeddings_BVTD, learned, (tests_BTD, names))),
    }


def taught_by(
    sixth: str,
    samples: Sequence[Sample],
    embeddings_BVTD: Floats,
    learned: Sequence[int],
    tests: tuple[Floats, Sequence[str]],
) -> Iterator[dict[str, Any]]:
    tests_BTD, names = tests
    others = [row for row in learned if samples[row].labels != (sixth,)]
    own = [row for row in learned if samples[row].labels == (sixth,)]
    state = state_of([samples[row] for row in others], embeddings_BVTD[others], FEW_VIEWS)
    before = solve_examples(state)
    is_old = np.array([name != sixth for name in names])
    old_BK = scores(before, tests_BTD)[is_old]
    for shots in SHOTS:
        chosen = np.random.default_rng(0).permutation(own)[:shots].tolist()
        after = solve_examples(state.added([samples[row] for row in chosen], embeddings_BVTD[chosen]))
        found = answers(after, tests_BTD)
        new = after.labels.index(sixth)
        after_BK = scores(after, tests_BTD)[is_old]
        among_BK = np.delete(after_BK, new, axis=1)
        among_BK = among_BK / among_BK.sum(axis=1, keepdims=True)
        same = [one == name for one, name in zip(found, names, strict=True)]
        yield {
            "shots": shots,
            "right": same,
            "sixth": [value for value, old in zip(same, is_old, strict=True) if not old],
            "old": [value for value, old in zip(same, is_old, strict=True) if old],
            "mean": float(np.abs(among_BK - old_BK).mean()),
            "largest": float(np.abs(among_BK - old_BK).max()),
            "taken": float(after_BK[:, new].mean()),
            "moved": [
                one != other for one, other, old in zip(found, answers(before, tests_BTD), is_old, strict=True) if old
            ],
        }


def answers(found: TaughtReadOut, embeddings_BTD: Floats) -> list[str]:
    return [found.labels[index] for index in logits_of(found.solved, embeddings_BTD).argmax(axis=1)]


def scores(found: TaughtReadOut, embeddings_BTD: Floats) -> Floats:
    logits_BK = logits_of(found.solved, embeddings_BTD)
    powers_BK = np.exp(logits_BK - logits_BK.max(axis=1, keepdims=True))
    return np.asarray(powers_BK / powers_BK.sum(axis=1, keepdims=True), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=("time", "coordinates", "accuracy"))
    given = parser.parse_args()
    found: dict[str, object] = {}
    if given.only in (None, "time"):
        with tempfile.TemporaryDirectory() as folder:
            found["time"] = times(Path(folder))
    if given.only in (None, "coordinates"):
        found["coordinates"] = coordinates(given.data)
    if given.only in (None, "accuracy"):
        found["accuracy"] = accuracy(given.data)
    write_result(**found)


if __name__ == "__main__":
    main()
