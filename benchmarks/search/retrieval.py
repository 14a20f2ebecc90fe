"""Retrieval of the same action by different embeddings.

    python -m benchmarks.search.retrieval ../shared/data > benchmarks/search/retrieval.json

Each video is a query; what it finds is ranked by cosine; its own sequence (UT-Interaction) or recording (daily movements) is
never among it. `mAP`: mean over queries of average precision in %, with a 95 % interval over groups; `chance`: the
same for vectors drawn at random, mean of 20 draws.

`y` is the video embedding of a head in the style of the preset `lite0-16`, taught by `training.steps.loop.fit` with the settings of
the package; `mean` the mean of the 16 frame embeddings (2288 numbers: pooled features and those of the middle over 3 x 3 cells);
`raw mean` the mean of the first 1280 of them, which are what EfficientNet-Lite0 of ImageNet gives (the packaged encoder is frozen,
so raw image embeddings are its own); `raw middle frame` those of frame 8 alone; `y + mean` both, each of length 1, in one vector.

Protocols: `ut`, UT-Interaction, heads taught without the query's fold of five (whole sequences); `set1_to_set2`, taught on set 1,
queries and archive set 2; `movements`, nine daily movements, five folds of whole recordings; `order`, those with a direction
and the same played backwards, labels up and down. Of these, `unseen` archives hold only videos that the head has not learned from
(the query's fold, or set 2); `taught` ones all videos, most of which the head has learned from, as where an archive is labelled.
`new labels`: the head has learned other actions at another place (interactions for an archive of movements, and the reverse).

`teaching`: y of set 2 by the head of set 1; for each of the six labels 20 draws of three videos that show it, and `named wrong` of
the three best wrong ones by the first; the others are ranked by similarity to the first, to the mean of the three, and by what
`fewframes search --teach` makes of them (mAP in %, mean over labels and draws).

Heads are stored in the folder, so that an interrupted run goes on. search_scale.py has what search costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import (
    PACKAGED,
    Videos,
    both_ways,
    embedded,
    interactions,
    numbered,
    over_seeds,
    taught,
    video_set,
    write_result,
)
from benchmarks.speed.early_exit import Fold, folds_of
from fewframes.core.cache import EmbeddingCache
from fewframes.core.metrics import interval_of
from fewframes.inference.predictor import Predictor, load
from fewframes.models.stam import STAM
from fewframes.search.teaching import taught_head
from fewframes.training.config import TrainConfig
from runs.packaged import DARK, rows_of

RAW_WIDTH = 1280


def movements(data: Path, predictor: Predictor, cache: EmbeddingCache) -> Videos:
    rows = [row for row in rows_of(data / "fir_rgb") if float(row["mean_luma"]) >= DARK]
    embeddings = embedded(video_set(data / "fir_rgb", rows), predictor, cache)
    return Videos(embeddings, numbered([row["label"] for row in rows]), tuple(row["recording"] for row in rows))


def head_of(videos: Videos, rows_B: Tensor, seed: int) -> STAM:
    num_classes = int(videos.targets.max()) + 1
    settings = TrainConfig(seed=seed)
    return taught(PACKAGED, videos.embeddings[rows_B], videos.targets[rows_B], num_classes, settings)


def y_of(model: STAM, videos: Videos) -> Tensor:
    with torch.inference_mode():
        return model.encode_video(videos.embeddings[:, 0]).embedding


def stored(path: Path, make: Callable[[], Tensor]) -> Tensor:
    if not path.is_file():
        began = time.process_time()
        torch.save(make(), path)
        print(f"{path.name} {time.process_time() - began:.0f} s of processor time", file=sys.stderr)
    found: Tensor = torch.load(path)
    return found


def embeddings_of(videos: Videos, y_BD: Tensor) -> dict[str, Tensor]:
    """Each kind of embedding (B, D), of length 1."""
    frames_BTD = videos.embeddings[:, 0]
    mean_BD = frames_BTD.mean(dim=1)
    kinds = {
        "y": y_BD,
        "mean": mean_BD,
        "raw mean": mean_BD[:, :RAW_WIDTH],
        "raw middle frame": frames_BTD[:, frames_BTD.shape[1] // 2, :RAW_WIDTH],
        "y + mean": torch.cat([F.normalize(y_BD, dim=1), F.normalize(mean_BD, dim=1)], dim=1),
    }
    return {name: F.normalize(vectors_BD, dim=1) for name, vectors_BD in kinds.items()}


def precisions(vectors_BD: Tensor, targets_B: Tensor, may_find_BB: Tensor) -> Tensor:
    """Average precision (B,) of each query over what it may find; NaN where none of that is right."""
    found = []
    for similarity_B, may_B, target in zip(vectors_BD @ vectors_BD.T, may_find_BB, targets_B, strict=True):
        order = similarity_B[may_B].argsort(descending=True, stable=True)
        right_N = (targets_B[may_B][order] == target).double()
        precision_N = right_N.cumsum(0) / torch.arange(1, len(right_N) + 1)
        found.append((precision_N * right_N).sum() / right_N.sum())
    return torch.stack(found)


def figures(precisions_SB: Tensor, groups: tuple[str, ...]) -> dict[str, float]:
    """Mean over seeds and queries in %, with an interval over groups, and the spread over seeds."""
    precision_B = precisions_SB.mean(dim=0)
    good = (~precision_B.isnan()).nonzero()[:, 0]
    interval = interval_of(
        lambda rows: float(precision_B[good][rows].mean()),
        [groups[row] for row in good.tolist()],
        np.random.default_rng(0),
    )
    seeds = over_seeds((100 * precisions_SB[:, good].mean(dim=1)).tolist())
    return {
        "mAP": round(100 * interval.value, 1),
        "low": round(100 * interval.low, 1),
        "high": round(100 * interval.high, 1),
        "seeds_min": round(seeds["min"], 1),
        "seeds_max": round(seeds["max"], 1),
    }


def report(videos: Videos, y_SBD: list[list[tuple[Fold, Tensor]]], *, unseen: bool) -> dict[str, Any]:
    """Every kind of embedding; `y_SBD` holds for each seed each fold's embeddings of all videos."""
    group_B = numbered(list(videos.groups))
    rows: dict[str, list[Tensor]] = {}
    held_B = torch.stack([fold.held for fold, _ in y_SBD[0]]).any(dim=0)
    for one_seed in y_SBD:
        whole: dict[str, Tensor] = {}
        for fold, y_BD in one_seed:
            may_find_BB = group_B[:, None] != group_B
            if unseen:
                may_find_BB = may_find_BB & fold.held
            for name, vectors_BD in embeddings_of(videos, y_BD).items():
                found_B = precisions(vectors_BD, videos.targets, may_find_BB)
                whole.setdefault(name, torch.full((len(group_B),), torch.nan).double())[fold.held] = found_B[fold.held]
        for name, found_B in whole.items():
            rows.setdefault(name, []).append(found_B[held_B])
    groups = tuple(group for group, held in zip(videos.groups, held_B.tolist(), strict=True) if held)
    return {
        "queries": int(held_B.sum()),
        "seeds": len(y_SBD),
        "chance": round(chance(videos, y_SBD[0], unseen=unseen), 1),
        "embeddings": {name: figures(torch.stack(found), groups) for name, found in rows.items()},
    }


def chance(videos: Videos, folds: list[tuple[Fold, Tensor]], *, unseen: bool) -> float:
    group_B, generator = numbered(list(videos.groups)), torch.Generator().manual_seed(0)
    found = []
    for _ in range(20):
        random_BD = F.normalize(torch.randn(len(group_B), 64, generator=generator), dim=1)
        for fold, _ in folds:
            may_find_BB = (group_B[:, None] != group_B) & (fold.held if unseen else torch.ones_like(fold.held))
            found.append(precisions(random_BD, videos.targets, may_find_BB)[fold.held])
    return 100 * float(torch.cat(found).nanmean())


def retrieval(data: Path, folder: Path, cache: EmbeddingCache, seeds: int, protocols: list[str]) -> dict[str, Any]:
    predictor = load("lite0-16", device="cpu", dtype="float32")
    folder.mkdir(parents=True, exist_ok=True)
    people, home, both = (read(data, predictor, cache) for read in (interactions, movements, both_ways))
    results: dict[str, Any] = {}

    def y_stored(name: str, lessons: Videos, rows_B: Tensor, videos: Videos, seed: int) -> Tensor:
        return stored(folder / f"{name} {seed}.pt", lambda: y_of(head_of(lessons, rows_B, seed), videos))

    def tell(name: str, found: dict[str, Any]) -> None:
        results[name] = found
        print(json.dumps({name: found}), file=sys.stderr)

    for name, lessons, videos in (("movements", people, home), ("interactions", home, people)):
        every_B = torch.ones(len(lessons.groups)).bool()
        whole = Fold(name, name, torch.zeros(len(videos.groups)).bool(), torch.ones(len(videos.groups)).bool())
        heads = [[(whole, y_stored(f"new {name}", lessons, every_B, videos, seed))] for seed in range(seeds)]
        tell(f"new labels, {name}", {"unseen": report(videos, heads, unseen=True)})
    for protocol, videos in (("set1_to_set2", people), ("ut", people), ("movements", home), ("order", both)):
        if protocol not in protocols:
            continue
        folds = [fold for fold in folds_of(protocol, videos) if not fold.inner]
        heads = [
            [(fold, y_stored(f"{protocol} {fold.name}", videos, fold.learned, videos, seed)) for fold in folds]
            for seed in range(seeds)
        ]
        found = {"unseen": report(videos, heads, unseen=True)}
        if protocol != "set1_to_set2":
            found["taught"] = report(videos, heads, unseen=False)
        else:
            fold, y_BD = heads[0][0]
            found["teaching"] = teaching(y_BD[fold.held], videos.targets[fold.held])
        tell(protocol, found)
    return results


def teaching(y_BD: Tensor, targets_B: Tensor) -> dict[str, float]:
    y_BD, generator = F.normalize(y_BD, dim=1), torch.Generator().manual_seed(0)
    found: dict[str, list[float]] = {}
    for label in targets_B.unique().tolist():
        right, wrong = (targets_B == label).nonzero()[:, 0], (targets_B != label).nonzero()[:, 0]
        for _ in range(20):
            yes = right[torch.randperm(len(right), generator=generator)[:3]]
            no = wrong[(y_BD[wrong] @ y_BD[yes[0]]).topk(3).indices]
            others = y_BD[[row for row in range(len(y_BD)) if row not in {*yes.tolist(), *no.tolist()}]].tolist()
            left_B = torch.ones(len(y_BD)).bool()
            left_B[torch.cat([yes, no])] = False

            def rated(name: str, scores_B: Tensor, left_B: Tensor = left_B, label: int = label) -> None:
                right_N = (targets_B[left_B][scores_B[left_B].argsort(descending=True)] == label).double()
                precision_N = right_N.cumsum(0) / torch.arange(1, len(right_N) + 1)
                found.setdefault(name, []).append(100 * float((precision_N * right_N).sum() / right_N.sum()))

            rated("like one", y_BD @ y_BD[yes[0]])
            rated("like the mean of three", y_BD @ y_BD[yes].mean(dim=0))
            rows, wrongs = y_BD[yes].tolist(), y_BD[no].tolist()
            rated("taught, three", y_BD @ torch.from_numpy(taught_head(rows, [], [*others, *wrongs])[0]))
            rated("taught, three and three named wrong", y_BD @ torch.from_numpy(taught_head(rows, wrongs, others)[0]))
    return {name: round(sum(values) / len(values), 1) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--protocols", nargs="+", default=["set1_to_set2", "ut", "movements", "order"])
    parser.add_argument("--folder", type=Path, default=Path("build/retrieval"))
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    cache = EmbeddingCache(options.cache or options.folder / "embeddings")
    results = retrieval(options.data, options.folder, cache, options.seeds, options.protocols)
    write_result(retrieval=results)


if __name__ == "__main__":
    main()
