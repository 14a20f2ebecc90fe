"""What a grid of middle features (cells) is worth with each frame encoder, and which layer gives it best.

    python -m benchmarks.accuracy.encoders DATA --weights FOLDER --only lite0 vit-ti > benchmarks/accuracy/encoders.json

DATA is the folder of the real sets. FOLDER holds image weights named as in `WEIGHTS`. The read-out is solved from each video as it
is and mirrored; scored is the video as it is. Protocols: `set1_to_set2` and `set2_to_set1` of UT-Interaction; `ut`, its sequences
in five folds; `fights`, its sources in five folds; `order`, the daily movements with a direction, each also played backwards with
the label flipped, recordings in five folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.accuracy.ablations import fold_of
from benchmarks.accuracy.solved_head import set_of
from benchmarks.harness import and_backwards, embedded, write_result
from fewframes.core.cache import EmbeddingCache
from fewframes.data.dataset import VideoSet
from fewframes.inference.predictor import Predictor
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.moments import cross_entropy, moment_features, solve_moments
from fewframes.models.presets import PRESETS

WEIGHTS = {
    "lite0": ("lite0-16", "efficientnet-lite0-57934424.pth"),
    "lite1": ("lite1-16", "efficientnet-lite1-77cc7160.pth"),
    "lite2": ("lite2-16", "efficientnet-lite2-9656183e.pth"),
    "vit-ti": ("vit-ti-16", "vit_tiny_patch16_224.fp16.safetensors"),
}
LAYERS: dict[str, tuple[int | None, ...]] = {"vit-ti": (6, 8, 10)}
"""The layers that are compared. The default of ViT-Ti is 8."""
SETS = ("set1_to_set2", "set2_to_set1", "ut", "fights", "order")


def encoder_of(name: str, folder: Path, cells: int, layer: int | None) -> Predictor:
    preset = PRESETS[WEIGHTS[name][0]]
    config = replace(preset.model, cells=cells, cells_layer=layer, temporal="mean", motion_width=0, moment_head=False)
    model = start_model(config, preset.view, str(folder / WEIGHTS[name][1]))
    labels = tuple(f"class {index}" for index in range(config.num_classes))
    return Predictor(
        Checkpoint(model, preset.view, labels), device="cpu", dtype="float32", name=f"{name} {cells} {layer}"
    )


def held_out(videos: VideoSet, groups: tuple[str, ...]) -> Iterator[np.ndarray]:
    """Which rows are held out, once for each fold."""
    parts = [sample.split for sample in videos.samples]
    if "test" in parts:
        yield np.array([part == "test" for part in parts])
        return
    folds_B = fold_of(groups).numpy()
    for fold in np.unique(folds_B):
        yield folds_B == fold


def right_percent(data: Path, name: str, predictor: Predictor, cache: EmbeddingCache) -> dict[str, object]:
    """How many videos a read-out names rightly that was solved without their groups, and the same for each fold."""
    videos = set_of(data, name)
    frames, targets_B, groups = embedded(videos, predictor, cache), np.array(videos.targets()), tuple(videos.groups())
    if name == "order":
        frames = and_backwards(frames)
        targets_B, groups = np.concatenate([targets_B, 1 - targets_B]), groups * 2
    frames_BVTD, targets_BK = frames.numpy(), np.eye(len(videos.labels))[targets_B]
    right_B, scored_B, folds = np.zeros(len(targets_B)), np.zeros(len(targets_B), bool), []
    for held_B in held_out(videos, groups):
        numbers_B = np.unique(np.array(groups)[~held_B], return_inverse=True)[1]
        solved = solve_moments(frames_BVTD[~held_B], targets_BK[~held_B], cross_entropy, groups_B=numbers_B)
        logits_BK = moment_features(frames_BVTD[held_B, 0]) @ solved.weight.T + solved.bias
        right_B[held_B] = logits_BK.argmax(axis=1) == targets_B[held_B]
        scored_B |= held_B
        folds.append(round(100 * float(right_B[held_B].mean()), 1))
    return {"percent": round(100 * float(right_B[scored_B].mean()), 1), "videos": int(scored_B.sum()), "folds": folds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=WEIGHTS, default=list(WEIGHTS))
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--cache", type=Path, default=Path("build/encoders-cache"))
    options = parser.parse_args()
    cache, results = EmbeddingCache(options.cache), {}
    for name in options.only:
        for cells, layer in [(0, None), *((3, layer) for layer in LAYERS.get(name, (None,)))]:
            predictor = encoder_of(name, options.weights, cells, layer)
            title = f"{name}, cells {cells}" + ("" if layer is None else f" of layer {layer}")
            results[title] = {each: right_percent(options.data, each, predictor, cache) for each in options.sets}
    write_result(right_percent=results)


if __name__ == "__main__":
    main()
