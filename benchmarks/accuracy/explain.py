"""Whether the packaged model's attention tells which frames its answers rest on: attention against occlusion.

    python -m benchmarks.accuracy.explain ../shared/data > benchmarks/accuracy/explain.json

Every video of UT-Interaction (120) and every one of the daily movements with a direction and light (132): 16 frames, and for each
frame how much the score of the likeliest label falls when that frame is filled in from its neighbours (`explain.score_drops`).
Spearman's correlation of these with the frame attention, for each video; the median, the quartiles, and the share above 0.

Beside it: the same for the transformer's own answer, without the read-out of moments, whose logits do not go through the
attention; with the size of each change whatever its sign; with the frame before repeated instead of filling in (the first frame:
the one after it); and, instead of the attention, how much each frame's embedding differs from what lies between its neighbours.
The packaged model has learned these videos, so they say how it works and not how good it is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import directed_rows, video_set, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.inference.explain import correlations, score_drops, without
from fewframes.inference.predictor import load
from fewframes.runtime.protocol import Floats, Runtime, scores_of
from fewframes.training.features import VideoFeatures, extract_features
from runs.packaged import rows_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/explain-cache"))
    options = parser.parse_args()
    whole, part = (load("lite0-16", device="cpu", dtype="float32", runtime="torch") for _ in range(2))
    part.torch.model.moment_head = None
    sets = {
        "UT-Interaction": video_set(options.data / "ut_interaction", rows_of(options.data / "ut_interaction")),
        "daily movements": video_set(options.data / "fir_rgb", directed_rows(options.data)),
    }
    results = {}
    for name, data in sets.items():
        videos = []
        for number, seen in enumerate(extract_features(data, whole, EmbeddingCache(options.cache))):
            assert isinstance(seen, VideoFeatures)
            videos.append(seen.features[0])
            if number % 20 == 0:
                print(f"{name}: {number}", file=sys.stderr)
        results[name] = measured(whole.runtime, part.runtime, videos)
    write_result(
        model="lite0-16, packaged, float32; it has learned these videos",
        protocol="16 uniform frames, likeliest label, Spearman over the frames of each video",
        **results,
    )


def measured(whole: Runtime, part: Runtime, videos: list[Floats]) -> dict[str, object]:
    def attention(runtime: Runtime, frames_TD: Floats) -> Floats:
        found = runtime.encode_windows(frames_TD[None], with_attention=True).frame_attention
        assert found is not None
        return found[0]

    def drops(runtime: Runtime, frames_TD: Floats) -> Floats:
        label = int(runtime.encode_windows(frames_TD[None]).logits.argmax())
        return score_drops(runtime, frames_TD, np.empty((0, 0, 0, 0), np.uint8), label)

    def repeated(frames_TD: Floats) -> Floats:
        label = int(whole.encode_windows(frames_TD[None]).logits.argmax())
        windows_BTD = np.repeat(frames_TD[None], len(frames_TD) + 1, axis=0)
        for frame in range(len(frames_TD)):
            windows_BTD[frame + 1, frame] = frames_TD[frame - 1 if frame else 1]
        scores_B = scores_of(whole.encode_windows(windows_BTD).logits.astype(np.float64), "single")[:, label]
        return scores_B[0] - scores_B[1:]

    def novelty(frames_TD: Floats) -> Floats:
        return np.stack([np.linalg.norm(frames_TD[t] - without(frames_TD, t)[t]) for t in range(len(frames_TD))])

    pairs: dict[str, Callable[[Floats], tuple[Floats, Floats]]] = {
        "attention against score falls": lambda frames: (attention(whole, frames), drops(whole, frames)),
        "of the transformer's answer alone": lambda frames: (attention(part, frames), drops(part, frames)),
        "attention against size of score changes": lambda frames: (
            attention(whole, frames),
            np.abs(drops(whole, frames)),
        ),
        "frame before repeated instead of filling in": lambda frames: (attention(whole, frames), repeated(frames)),
        "how new a frame is, against score falls": lambda frames: (novelty(frames), drops(whole, frames)),
        "how new a frame is, against attention": lambda frames: (novelty(frames), attention(whole, frames)),
    }
    figures: dict[str, object] = {"videos": len(videos)}
    for name, pair in pairs.items():
        found = [correlations(*pair(frames_TD)) for frames_TD in videos]
        figures[name] = {
            "spearman": described([value for value, _ in found if value is not None]),
            "pearson": described([value for _, value in found if value is not None]),
        }
    falls = [(attention(whole, frames_TD), drops(whole, frames_TD)) for frames_TD in videos]
    figures["the frame with most attention is the one whose loss costs most, share of videos"] = round(
        statistics.fmean(float(shares.argmax() == fall.argmax()) for shares, fall in falls), 3
    )
    greatest = [100 * float(fall.max()) for _, fall in falls]
    figures["greatest fall of a video, points"] = {
        "median": float(f"{statistics.median(greatest):.2g}"),
        "most": round(max(greatest), 2),
        "share of videos with 1 point or more": round(statistics.fmean(fall >= 1 for fall in greatest), 3),
    }
    return figures


def described(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {
        "quarter below": round(low, 3),
        "median": round(middle, 3),
        "quarter above": round(high, 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
        "share above 0": round(statistics.fmean(value > 0 for value in values), 3),
        "num_videos": len(values),
    }


if __name__ == "__main__":
    main()
