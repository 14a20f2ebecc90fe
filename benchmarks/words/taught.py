"""Is a head that is taught from words and a few examples better than from the examples alone? On drawn shapes, as few_shot.py.

    python -m benchmarks.words.taught > benchmarks/words/taught.json

What `fewframes teach` solves from the same examples, with the words of the model that it started from and without them.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import describe
from benchmarks.words.few_shot import HAZE, NAMES, NOISE, NUM_FRAMES, NUM_TEST, SEEDS, clips, right
from fewframes.data.samples import Sample
from fewframes.models.files.hub import load_checkpoint
from fewframes.models.files.model_file import read_model_file
from fewframes.models.moments import SOLVED_MOMENTS, moment_features
from fewframes.models.words.files import words_model
from fewframes.runtime.torch_runtime import TorchRuntime
from fewframes.training.augment_config import AugmentConfig
from fewframes.training.teaching.solving import solve_examples
from fewframes.training.teaching.state import new_state
from helpers.words import PHRASES, write_image_text

SHOTS = (1, 2, 4, 8)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        encoder = write_image_text(Path(folder) / "model")
        path = words_model(
            "; ".join(f"a {name}" for name in NAMES),
            Path(folder) / "words.safetensors",
            encoder=str(encoder),
            background="; ".join(PHRASES[:2]),
            num_frames=NUM_FRAMES,
        )
        file = read_model_file(path)
        runtime = TorchRuntime(load_checkpoint(path), device="cpu", dtype="float32")
    width = file.tensors["head.weight"].shape[1]
    found: dict[int, dict[str, list[float]]] = {shots: {} for shots in SHOTS}
    for seed in range(SEEDS):
        draw = np.random.default_rng(seed)
        test_NTD = clips(runtime, NUM_TEST, draw).reshape(-1, NUM_FRAMES, width)
        moments_NP = moment_features(test_NTD, SOLVED_MOMENTS)
        for shots in SHOTS:
            embeddings_BVTD = clips(runtime, shots, draw).reshape(-1, 1, NUM_FRAMES, width)
            samples = [
                Sample(path=f"{name} {number}", labels=(f"a {name}",)) for name in NAMES for number in range(shots)
            ]
            state = new_state(samples, embeddings_BVTD, file, "single", mirror=False, augment=AugmentConfig(views=0))
            assert state.words is not None
            for way, begun in (("with words", state), ("without", replace(state, words=None))):
                taught = solve_examples(begun)
                order = [taught.labels.index(f"a {name}") for name in NAMES]
                logits_NK = (moments_NP @ taught.solved.weight.T + taught.solved.bias)[:, order]
                found[shots].setdefault(way, []).append(right(logits_NK, NUM_TEST))
                if way == "with words":
                    found[shots].setdefault("share", []).append(taught.solved.share_of_text)
    rows = {
        shots: {
            way: {
                "mean": round(float(np.mean(values)), 2),
                "least": round(min(values), 2),
                "most": round(max(values), 2),
            }
            for way, values in ways.items()
        }
        for shots, ways in found.items()
    }
    protocol = (
        f"{len(NAMES)} names, {NUM_TEST} test clips of each, {SEEDS} seeds; haze {HAZE}, noise {NOISE}; % of clips named right by "
        "examples of each name; solved as fewframes teach does, from moments kept as float16"
    )
    print(json.dumps({**describe(), "protocol": protocol, "shots": rows}, indent=1))


if __name__ == "__main__":
    main()
