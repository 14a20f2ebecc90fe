"""What labels cost that are learned from windows of a timeline's frames, and not from 16 exact frames of their part.

    python -m benchmarks.training.label_windows DATA --cache FOLDER > benchmarks/training/label_windows.json

The clips of UT-Interaction, one film for each sequence: the frames of its clips at a timeline's rate, one clip after the other. A
label is a clip's part of the film. Each film is predicted from all other films, one pass. `exact` embeds 16 uniform frames of
each part; `windows` takes what a labelling session takes; `exact, asked windows` learns from exact frames and is asked about
windows, as a timeline would ask. Seconds of a click: solving with all labels there, their moments kept; and decoding and
embedding 16 frames of one part, which exact frames would add.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import difference, least_median_most, video_set, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import interval_of
from fewframes.inference.frame_features import FrameFeatures, features_key
from fewframes.inference.predictor import Predictor
from fewframes.label.archive import Archive, ArchivedVideo
from fewframes.label.learner import Learner
from fewframes.label.values import Segment
from fewframes.models.moments import SOLVED_MOMENTS, moment_features
from fewframes.models.read_out.solve import cross_entropy, solve_rows
from fewframes.runtime.open import open_runtime
from fewframes.sampling import steady_times
from fewframes.training.solved.features import embed_views
from fewframes.video.source import DEFAULT_FPS, open_video
from runs.packaged import rows_of

Floats = NDArray[np.float32]
WINDOWS_S, REPEATS = (2.0, 4.0), 5


def dense(path: Path, predictor: Predictor, cache: EmbeddingCache, interval_s: float) -> Floats:
    with closing(open_video(path)) as video:
        setting = features_key(predictor, path, DEFAULT_FPS, "", "")
        features = FrameFeatures(video, predictor, interval_s, cache, setting)
        return np.concatenate(list(features.chunks(steady_times(0.0, video.duration_s, interval_s))))


def films_of(
    folder: Path, rows: Sequence[dict[str, str]], predictor: Predictor, cache: EmbeddingCache, window_s: float
) -> tuple[Archive, list[Segment]]:
    """An archive of one film for each sequence, and the segment of each clip."""
    archive = Archive([str(folder / rows[0]["path"])], predictor, None, window_s, lambda words: None)
    interval_s = window_s / predictor.num_frames
    parts: dict[str, list[Floats]] = {}
    segments = []
    for row in rows:
        own = parts.setdefault(f"sequence {row['sequence']}", [])
        start_s = sum(map(len, own)) * interval_s
        own.append(dense(folder / row["path"], predictor, cache, interval_s))
        end_s = start_s + len(own[-1]) * interval_s
        segments.append(Segment(row["path"], f"sequence {row['sequence']}", start_s, end_s, row["label"], ""))
    archive.videos = {}
    for name, found in parts.items():
        film_ND = np.concatenate(found).astype(np.float16)
        archive.videos[name] = ArchivedVideo(
            name, name, "", len(film_ND) * interval_s, "ready", "", interval_s, film_ND
        )
    return archive, segments


def asked_windows(exact_BP: Floats, archive: Archive, segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """Which segments are right (B,) if exact frames of the other films are learned from, and windows are asked."""
    labels = sorted({segment.label for segment in segments})
    targets_BK = np.eye(len(labels))[[labels.index(segment.label) for segment in segments]]
    film_B = np.array([segment.video for segment in segments])
    right_B = np.zeros(len(segments), bool)
    for film in np.unique(film_B):
        rest = film_B != film
        groups = np.unique(film_B[rest], return_inverse=True)[1]
        solved = solve_rows(
            exact_BP[rest][:, None], targets_BK[rest], cross_entropy, groups_B=groups, moments=SOLVED_MOMENTS
        )
        for row in np.flatnonzero(~rest).tolist():
            moments_WP = archive.moments_of(archive.whole_windows_of(segments[row]))
            logits_K = (moments_WP @ solved.weight.T + solved.bias).mean(axis=0)
            right_B[row] = labels[int(logits_K.argmax())] == segments[row].label
    return right_B


def answers(exact_BP: Floats, archive: Archive, segments: Sequence[Segment]) -> dict[str, NDArray[np.bool_]]:
    labels = sorted({segment.label for segment in segments})
    label_B = np.array([labels.index(segment.label) for segment in segments])
    film_B = np.unique([segment.video for segment in segments], return_inverse=True)[1]
    targets_BK = np.eye(len(labels))[label_B]
    solved = solve_rows(exact_BP[:, None], targets_BK, cross_entropy, groups_B=film_B, moments=SOLVED_MOMENTS)
    exact_B = np.zeros(len(segments), bool)
    exact_B[solved.indices] = solved.left_out[:, 0].argmax(axis=1) == label_B[solved.indices]
    learned = Learner(archive).learn(segments)
    windows_B = np.array([learned.likeliest(segment)[0] == segment.label for segment in segments])
    return {"exact": exact_B, "windows": windows_B, "exact, asked windows": asked_windows(exact_BP, archive, segments)}


def percent_of(right_B: NDArray[np.bool_], films: Sequence[str]) -> dict[str, float]:
    interval = interval_of(lambda rows: float(right_B[rows].mean()), films, np.random.default_rng(0))
    ends = {"percent": interval.value, "low": interval.low, "high": interval.high}
    return {end: round(100 * value, 1) for end, value in ends.items()}


def seconds_of_clicks(archive: Archive, segments: Sequence[Segment]) -> list[float]:
    learner, seconds = Learner(archive), []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        learner.learn(segments)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]  # the first one computes the moments


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    folder, cache = options.data / "ut_interaction", EmbeddingCache(options.cache)
    rows, predictor = rows_of(folder), Predictor(open_runtime("lite0-16"))
    films = tuple(row["sequence"] for row in rows)
    clips = video_set(folder, rows)
    exact = embed_views(clips, predictor.runtime, cache, lambda *_: None)
    exact_BP = moment_features(exact.embeddings[:, 0], SOLVED_MOMENTS)
    embedding_s = []
    for number in range(REPEATS):
        began = time.perf_counter()
        embed_views(clips.subset([number]), predictor.runtime, None, lambda *_: None)
        embedding_s.append(time.perf_counter() - began)
    found: dict[str, object] = {}
    for window_s in WINDOWS_S:
        archive, segments = films_of(folder, rows, predictor, cache, window_s)
        right = answers(exact_BP, archive, segments)
        figures: dict[str, object] = {}
        for name, right_B in right.items():
            figures[name] = percent_of(right_B, films)
        figures["windows - exact"] = difference(right["windows"][None], right["exact"][None], films)
        figures["windows - exact, asked windows"] = difference(
            right["windows"][None], right["exact, asked windows"][None], films
        )
        figures["seconds of solving at a click"] = least_median_most(seconds_of_clicks(archive, segments))
        found[f"windows of {window_s:g} s"] = figures
    write_result(
        clips=len(rows),
        films=len(set(films)),
        model="lite0-16",
        **found,
        **{"seconds of 16 exact frames of a clip": least_median_most(embedding_s)},
    )


if __name__ == "__main__":
    main()
