"""Are words and a few examples better than either? On drawn shapes, with the tiny image-text model of the tests.

    python -m benchmarks.words.few_shot > benchmarks/words/few_shot.json

A model learns twelve shapes of colours and their names in seconds. Then they are shown in a haze and under noise that it has not
seen, as moving shapes in clips of eight frames. Words alone name some of them. Examples alone are solved in closed form. Both are
what `train --head solved` does when it starts from a model of words.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import describe
from fewframes.models.moments import SOLVED_MOMENTS, moment_features
from fewframes.models.read_out.solve import cross_entropy, solve_moments
from fewframes.models.words.image_text import open_image_text
from fewframes.models.words.model import words_checkpoint
from fewframes.models.words.phrases import word_labels
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.training.solved.words import with_words
from helpers.words import COLOURS, PHRASES, SHAPES, SIDE_PX, picture, write_image_text

SHOTS, SEEDS, NUM_TEST, NUM_FRAMES = (1, 2, 4, 8, 16), 5, 20, 8
HAZE, NOISE = 0.3, 10
NAMES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def clips(runtime: TorchRuntime, num: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Embed `num` clips of each name: (K, num, T, D)."""
    places = [(SIDE_PX / 2, 10 + (SIDE_PX - 20) * fraction) for fraction in np.linspace(0, 1, NUM_FRAMES)]
    frames = np.stack(
        [picture(name, draw, at, haze=HAZE, noise=NOISE) for name in NAMES for _ in range(num) for at in places]
    )
    embeddings_MD = runtime.embed_frames(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
    return embeddings_MD.reshape(len(NAMES), num, NUM_FRAMES, -1)


def right(logits_NK: NDArray[Any], num: int) -> float:
    """Return the percentage of clips that are named right; there are `num` of each name."""
    return 100 * float((logits_NK.argmax(axis=1) == np.arange(len(NAMES)).repeat(num)).mean())


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        encoder = open_image_text(str(write_image_text(Path(folder) / "model")))
    labels = word_labels([f"a {name}" for name in NAMES])
    checkpoint = words_checkpoint(labels, encoder, background=PHRASES[:2], num_frames=NUM_FRAMES)
    runtime = TorchRuntime(checkpoint, device="cpu", dtype="float32")
    vectors_KD = checkpoint.model.head.weight.detach().numpy()
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(SEEDS):
        draw = np.random.default_rng(seed)
        test_NTD = clips(runtime, NUM_TEST, draw).reshape(-1, NUM_FRAMES, vectors_KD.shape[1])
        alone = right(test_NTD.mean(axis=1) @ vectors_KD.T, NUM_TEST)
        for shots in SHOTS:
            train_BVTD = clips(runtime, shots, draw).reshape(-1, 1, NUM_FRAMES, vectors_KD.shape[1])
            targets_BK = np.eye(len(NAMES)).repeat(shots, axis=0)
            groups_B = np.arange(len(targets_BK))
            solved = solve_moments(train_BVTD, targets_BK, cross_entropy, groups_B=groups_B, moments=SOLVED_MOMENTS)
            both = with_words(solved, vectors_KD, train_BVTD, targets_BK, groups_B, cross_entropy)
            moments_NP = moment_features(test_NTD, SOLVED_MOMENTS)
            found.setdefault(str(shots), []).append(
                {
                    "words": alone,
                    "examples": right(moments_NP @ solved.weight.T + solved.bias, NUM_TEST),
                    "both": right(moments_NP @ both.weight.T + both.bias, NUM_TEST),
                    "share": both.share_of_text,
                }
            )
    rows = {
        shots: {
            name: {
                "mean": round(float(np.mean(values)), 2),
                "least": round(min(values), 2),
                "most": round(max(values), 2),
            }
            for name in runs[0]
            for values in [[run[name] for run in runs]]
        }
        for shots, runs in found.items()
    }
    protocol = (
        f"{len(NAMES)} names, {NUM_TEST} test clips of each, {SEEDS} seeds; haze {HAZE}, noise {NOISE}; % of clips named right by "
        "examples of each name"
    )
    print(json.dumps({**describe(), "protocol": protocol, "shots": rows}, indent=1))


if __name__ == "__main__":
    main()
