"""Where the time of a ViT with merged patches goes, and other schedules of merging: processor time in float32, one thread.

    python -m benchmarks.speed.merging_profile ../shared/data --vit ../shared/weights/vit_tiny_patch16_224.fp16.safetensors \
        > benchmarks/speed/merging_profile.json

16 frames as in runtimes.py: ViT-Ti eight at once, ViT-B (random weights) four. `parts`: milliseconds a frame by part, unmerged and
with 18 patches merged in each block but the first two, medians of five passes; `rest` is patches, norms, and the last block for the
class token. `schedules`: how many patches each of the first eleven blocks merges; times as fast as unmerged (interleaved, median of
five rounds) and, for ViT-Ti, how far embeddings are from unmerged ones, norm over norm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import interleaved, least_median_most, ratios, write_result
from benchmarks.speed.merging import predictor_of
from benchmarks.speed.runtimes import frames_of
from fewframes.models import token_merging
from fewframes.models.layers import pixels_of

ROUNDS = 5
SCHEDULES: dict[str, list[int]] = {
    "unmerged": [0] * 11,
    "18 from the third block on": [0, 0] + [18] * 9,
    "20 from the second block on": [0] + [20] * 9 + [0],
    "early: 40, 40, 30, 20, 20, 10 from the third": [0, 0, 40, 40, 30, 20, 20, 10, 0, 0, 0],
    "early: 60, 40, 20 from the third": [0, 0, 60, 40, 20, 0, 0, 0, 0, 0, 0],
    "early: 30, 30, 30, 20, 20, 20 from the second": [0, 30, 30, 30, 20, 20, 20, 0, 0, 0, 0],
    "early: 64, 48 from the first": [64, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0],
}
PARTS = ("_attention", "_mlp", "merged", "_strongest_edges")


class Scheduled:
    """A pass with a number of merged patches for each block, in the place of `OwnWalk`."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def __call__(self, blocks: nn.Module, tokens_MSD: Tensor) -> Tensor:
        *layers, last = blocks.children()
        sizes_MS = torch.ones(tokens_MSD.shape[:2])
        for layer, count in zip(layers, self.counts, strict=True):
            branch_MSD, features_MSd = token_merging._attention(layer, tokens_MSD, sizes_MS)
            tokens_MSD = tokens_MSD + branch_MSD
            if count:
                tokens_MSD, sizes_MS = token_merging.merged(tokens_MSD, sizes_MS, features_MSd, count, 1)
            tokens_MSD = tokens_MSD + token_merging._mlp(layer, tokens_MSD)
        return last.first_token(tokens_MSD, sizes_MS.log())  # type: ignore[operator]


def parts_of(encode: Callable[[], Tensor], num_frames: int) -> dict[str, float]:
    """Milliseconds a frame of each part of a pass, without those of the parts inside it."""
    spent: dict[str, float] = {}
    plain = {name: getattr(token_merging, name) for name in PARTS}

    def clocked(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.process_time()
            found = plain[name](*arguments)
            spent[name] += time.process_time() - began
            return found

        return call

    rows: list[dict[str, float]] = []
    try:
        for name in PARTS:
            setattr(token_merging, name, clocked(name))
        for _ in range(ROUNDS + 1):
            spent.update(dict.fromkeys(PARTS, 0.0))
            began = time.process_time()
            encode()
            rows.append({"whole": time.process_time() - began, **spent})
    finally:
        for name, function in plain.items():
            setattr(token_merging, name, function)
    found = {name: 1e3 * statistics.median(row[name] for row in rows[1:]) / num_frames for name in rows[0]}
    named = {
        "attention": found["_attention"],
        "mlp": found["_mlp"],
        "matching": found["_strongest_edges"],
        "moving": found["merged"] - found["_strongest_edges"],
        "rest": found["whole"] - found["_attention"] - found["_mlp"] - found["merged"],
        "whole": found["whole"],
    }
    return {name: round(value, 2) for name, value in named.items()}


def measured(encoder: nn.Module, pixels_MCHW: Tensor, *, has_weights: bool) -> dict[str, Any]:
    def at(counts: list[int]) -> Callable[[], Tensor]:
        def encode() -> Tensor:
            encoder.walk = Scheduled(counts)  # type: ignore[assignment]
            with torch.inference_mode():
                found: Tensor = encoder(pixels_MCHW)
            return found

        return encode

    ways = {name: at(counts) for name, counts in SCHEDULES.items()}
    true_MD = ways["unmerged"]()
    seconds = interleaved(ways, ROUNDS)
    schedules = {
        name: {
            "patches": counts,
            "times_as_fast": least_median_most(ratios(seconds["unmerged"], seconds[name])),
            **(
                {"embeddings_off": round(float((ways[name]() - true_MD).norm() / true_MD.norm()), 3)}
                if has_weights
                else {}
            ),
        }
        for name, counts in SCHEDULES.items()
    }
    names = ("unmerged", "18 from the third block on")
    return {"parts": {name: parts_of(ways[name], len(pixels_MCHW)) for name in names}, "schedules": schedules}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vit", required=True, help="weights of ViT-Ti under timm's names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pixels_MCHW = pixels_of(torch.from_numpy(frames_of(options.data)))
    found = {}
    for name, weights, at_once in (("vit-ti-16", options.vit, 8), ("vit-b-mean-16", "", 4)):
        model = predictor_of(name, weights).torch.checkpoint.model.float().eval()
        normalised_MCHW = (pixels_MCHW[:: len(pixels_MCHW) // at_once] - 0.5) / 0.5
        found[name] = measured(model.frame_encoder, normalised_MCHW, has_weights=bool(weights))
    write_result(**found)


if __name__ == "__main__":
    main()
