"""What merging alike patches inside the frame encoder costs in accuracy and gains in speed, ViT-Ti on real videos.

    python -m benchmarks.speed.merging ../shared/data --vit ../shared/weights/vit_tiny_patch16_224.fp16.safetensors \
        > benchmarks/speed/merging.json

Protocols: `ut` and `order` as in ablations.py, whole sequences or recordings in five folds; `set1_to_set2`, UT-Interaction, train
on the parking lot, test on the lawn. Each video as it is, 16 frames, 200 steps of the package's settings. `off_the_shelf`: heads
trained on unmerged embeddings score merged ones; `trained`: heads trained and scored on merged ones. `value` is the mean over
seeds; `difference` is paired with unmerged embeddings, in points, with a 95 % interval over groups.

Speed: the frame encoder on 16 frames, two passes of 8 as `Predictor` runs it in the precision that it finds fastest here, unmerged
and merged in turn; a ratio is of two neighbouring runs, in seconds of one thread's processor, which other jobs of the machine
disturb less than the clock. The encoder of ViT-B is random: no time depends on the weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.ablations import SETTINGS, TRANSFORMER, fold_of, protocols
from benchmarks.harness import (
    and_backwards,
    difference,
    interleaved,
    least_median_most,
    over_seeds,
    ratios,
    taught,
    write_result,
)
from fewframes.core.cache import EmbeddingCache, content_key, key_of
from fewframes.inference.predictor import Predictor
from fewframes.models.files.checkpoint import Checkpoint
from fewframes.models.files.image_weights import start_model
from fewframes.models.files.networks import build_model
from fewframes.models.presets import PRESETS
from fewframes.models.stam import STAM
from fewframes.models.token_merging import merge_tokens
from fewframes.runtime.protocol import Frames

PER_BLOCK = (0, 8, 13, 16, 18)
TURNS = 5


def predictor_of(preset: str, weights: str = "") -> Predictor:
    config, view = PRESETS[preset].model, PRESETS[preset].view
    model = start_model(config, view, weights) if weights else build_model(config, view)
    labels = tuple(f"class {index}" for index in range(config.num_classes))
    return Predictor(Checkpoint(model, view, labels), device="cpu", name=preset)


def embedded(
    folder: Path, rows: list[dict[str, str]], predictor: Predictor, cache: EmbeddingCache
) -> dict[int, Tensor]:
    """The frame embeddings (B, T, D) of a set at each number of patches merged in a block."""
    encoder = predictor.torch.model.frame_encoder
    weights, view = predictor.runtime.encoder_key(), asdict(predictor.runtime.view)
    found: dict[int, list[Tensor]] = {per_block: [] for per_block in PER_BLOCK}
    for number, row in enumerate(rows):
        path = str(folder / row["path"])
        frames_TCHW: Frames | None = None
        for per_block in PER_BLOCK:
            key = key_of(content_key(path), weights, view, {"merged_per_block": per_block})
            embeddings_TD = cache.get(key)
            if embeddings_TD is None:
                frames_TCHW = predictor.read_clip(path).frames if frames_TCHW is None else frames_TCHW
                merge_tokens(encoder, per_block)
                embeddings_TD = predictor.runtime.embed_frames(frames_TCHW)
                cache.put(key, embeddings_TD)
            found[per_block].append(torch.as_tensor(embeddings_TD))
        print(f"{folder.name}: {number + 1}/{len(rows)}", file=sys.stderr)
    merge_tokens(encoder, 0)
    return {per_block: torch.stack(tensors) for per_block, tensors in found.items()}


@dataclass(frozen=True, eq=False)
class Task:
    """One protocol: embeddings (B, T, D) by number merged, labels, groups, and which rows each fold leaves out."""

    protocol: str
    embeddings: dict[int, Tensor]
    targets: Tensor
    groups: tuple[str, ...]
    held: tuple[Tensor, ...]


def tasks_of(data: Path, predictor: Predictor, cache: EmbeddingCache) -> list[Task]:
    tasks = []
    for protocol, folder, rows, labels, groups in protocols(data):
        frames = embedded(folder, rows, predictor, cache)
        if protocol == "order":
            frames = {per_block: and_backwards(one) for per_block, one in frames.items()}
        folds_B = fold_of(groups)
        held = tuple(folds_B == fold for fold in range(int(folds_B.max()) + 1))
        tasks.append(Task(protocol, frames, labels, groups, held))
        if protocol == "ut":
            lawn_B = torch.tensor([int(sequence) > 10 for sequence in groups])
            tasks.append(Task("set1_to_set2", frames, labels, groups, (lawn_B,)))
    return tasks


def trained(frames_BTD: Tensor, targets_B: Tensor, seed: int) -> STAM:
    settings = replace(SETTINGS, seed=seed)
    return taught(TRANSFORMER, frames_BTD.unsqueeze(1), targets_B, int(targets_B.max()) + 1, settings)


def rights(task: Task, seed: int) -> dict[tuple[str, int], Tensor]:
    """Which left-out rows are right (B,), by how heads were trained and how many patches were merged."""
    right = {
        (how, per_block): torch.zeros(len(task.targets))
        for how in ("off_the_shelf", "trained")
        for per_block in PER_BLOCK
    }
    for held_B in task.held:
        plain = trained(task.embeddings[0][~held_B], task.targets[~held_B], seed)
        for per_block, frames_BTD in task.embeddings.items():
            own = trained(frames_BTD[~held_B], task.targets[~held_B], seed) if per_block else plain
            for how, model in (("off_the_shelf", plain), ("trained", own)):
                with torch.inference_mode():
                    named = model.encode_video(frames_BTD[held_B]).logits.argmax(1)
                right[how, per_block][held_B] = (named == task.targets[held_B]).float()
    return right


def accuracy(task: Task, num_seeds: int) -> dict[str, dict[str, object]]:
    began = time.perf_counter()
    seeds = []
    for seed in range(num_seeds):
        seeds.append(rights(task, seed))
        print(f"{task.protocol}: seed {seed}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    judged_B = torch.stack(task.held).any(dim=0)
    groups = [group for group, judged in zip(task.groups, judged_B.tolist(), strict=True) if judged]
    plain_SB = torch.stack([right["trained", 0][judged_B] for right in seeds])
    out: dict[str, dict[str, object]] = {"off_the_shelf": {}, "trained": {}}
    for how, per_block in seeds[0]:
        right_SB = torch.stack([right[how, per_block][judged_B] for right in seeds])
        entry: dict[str, object] = dict(over_seeds((100 * right_SB.mean(dim=1)).tolist()))
        if per_block:
            entry["difference"] = difference(right_SB, plain_SB, groups)
        out[how][str(per_block)] = entry
    return out


def speed(predictor: Predictor, turns: int) -> dict[str, object]:
    """How many times as many videos a second, by number merged, and milliseconds a video."""
    encoder = predictor.torch.model.frame_encoder
    frames_TCHW = np.random.default_rng(0).integers(0, 256, (16, 3, 224, 224), dtype=np.uint8)

    def encode(per_block: int) -> None:
        merge_tokens(encoder, per_block)
        predictor.runtime.embed_frames(frames_TCHW)

    out: dict[str, object] = {"precision": predictor.runtime.precision}
    for per_block in PER_BLOCK[1:]:
        seconds = interleaved({"plain": partial(encode, 0), "merged": partial(encode, per_block)}, turns)
        out[str(per_block)] = {
            "times_as_fast": least_median_most(ratios(seconds["plain"], seconds["merged"])),
            "ms_a_video": round(1000 * statistics.median(seconds["merged"]), 1),
            "ms_a_video_unmerged": round(1000 * statistics.median(seconds["plain"]), 1),
        }
        print(predictor.name, per_block, out[str(per_block)], file=sys.stderr)
    merge_tokens(encoder, 0)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--vit", required=True, help="weights of ViT-Ti under timm's names")
    parser.add_argument("--cache", type=Path, default=Path("build/merging-cache"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tiny = predictor_of("vit-ti-16", options.vit)
    tasks = tasks_of(options.data, tiny, EmbeddingCache(options.cache))
    write_result(
        protocol="ut: 120 videos, sequences in five folds; set1_to_set2: 60 train, 60 scored; order: 132 videos forwards and "
        "backwards, recordings in five folds; one view, 16 frames, no mirror image; patches merged in each block but the first 2",
        train={name: value for name, value in asdict(SETTINGS).items() if name != "seed"},
        seeds=options.seeds,
        top1_percent={task.protocol: accuracy(task, options.seeds) for task in tasks},
        **{
            "speed, 16 frames": {
                "vit-ti": speed(tiny, TURNS),
                "vit-b": speed(predictor_of("vit-b-mean-16"), TURNS),
            }
        },
    )


if __name__ == "__main__":
    main()
