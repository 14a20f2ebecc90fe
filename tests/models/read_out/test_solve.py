"""The solved read-out, compared with solving anew without each group."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch.nn import functional as F

from fewframes.models.moments import MOMENT_WEIGHTS, MomentSet, moment_features
from fewframes.models.read_out import problem
from fewframes.models.read_out.solve import binary_cross_entropy, cross_entropy, solve_moments

Array = NDArray[np.float64]
WIDTH = 6  # 36 moments


def embeddings(num_videos: int, num_views: int = 2) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(num_videos, num_views, 5, WIDTH)).cumsum(axis=2).astype(np.float32) + 2


def by_refitting(
    videos: NDArray[np.float32], targets_BK: Array, groups_B: NDArray[np.int64], of: MomentSet = "slow"
) -> Array:
    """Return the scores (B, V, K) for each video before scaling, from a ridge regression without its group's videos at all."""
    num_views = videos.shape[1]
    moments_MP = moment_features(videos.reshape(-1, *videos.shape[2:]), of).astype(np.float64)
    weights = np.array(MOMENT_WEIGHTS[of])[:, None]
    spread = moments_MP.std(axis=0, ddof=1).reshape(len(weights), -1)
    moments_MP *= (np.sqrt(weights) / (spread + 0.3 * spread.mean(axis=1, keepdims=True))).ravel()
    ridge = 0.1 * (moments_MP - moments_MP.mean(axis=0)).var(axis=0).sum()
    targets_MK, groups_M = targets_BK.repeat(num_views, axis=0), groups_B.repeat(num_views)
    scores_MK = np.zeros_like(targets_MK)
    for group in np.unique(groups_B):
        rest, own = groups_M != group, groups_M == group
        mean_P, mean_K = moments_MP[rest].mean(axis=0), targets_MK[rest].mean(axis=0)
        rest_MP = moments_MP[rest] - mean_P
        weights_PK = np.linalg.solve(
            rest_MP.T @ rest_MP + ridge * np.eye(rest_MP.shape[1]), rest_MP.T @ (targets_MK[rest] - mean_K)
        )
        scores_MK[own] = (moments_MP[own] - mean_P) @ weights_PK + mean_K
    return scores_MK.reshape(len(videos), num_views, -1)


@pytest.mark.parametrize(
    "num_videos", [12, 40]
)  # 24 views of 36 moments, and 80: by the products of views, or of moments
@pytest.mark.parametrize("num_groups", [3, 7, 12])
@pytest.mark.parametrize("of", ["slow", "motion"])
@pytest.mark.parametrize("at_once", [2048, 9])  # with 9 views at once, most groups are large and solved anew
def test_left_out_groups_are_those_of_solving_without_them(
    num_videos: int, of: MomentSet, num_groups: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problem, "MAX_AT_ONCE", at_once)
    monkeypatch.setattr(problem, "BLOCK_SIDE", 10)
    monkeypatch.setattr(problem, "TRIANGLE_SIDE", 8)
    rng = np.random.default_rng(1)
    videos, groups_B = embeddings(num_videos), rng.permutation(np.arange(num_videos) % num_groups) * 10
    targets_BK = np.eye(3)[rng.integers(3, size=num_videos)]
    solved = solve_moments(videos, targets_BK, cross_entropy, groups_B=groups_B, moments=of)
    assert sorted(solved.indices) == list(range(num_videos))
    wanted_BVK = solved.gain * (by_refitting(videos, targets_BK, groups_B, of) - 0.5)
    assert_allclose(solved.left_out, wanted_BVK[solved.indices], atol=1e-4 * solved.gain)


@pytest.mark.parametrize("num_videos", [12, 40])
def test_both_precisions_and_single_groups(num_videos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    videos, targets_BK = embeddings(num_videos), np.eye(2)[rng.integers(2, size=num_videos)]
    double = solve_moments(videos, targets_BK, cross_entropy)
    monkeypatch.setattr(problem, "DOUBLE_SIDE", 1)
    single = solve_moments(videos, targets_BK, cross_entropy, left_out_groups=[5, 2])
    assert single.indices.tolist() == [5, 2]
    assert_allclose(single.left_out / single.gain, double.left_out[[5, 2]] / double.gain, atol=1e-4)
    assert_allclose(single.weight / single.gain, double.weight / double.gain, atol=1e-5)


def test_labels_by_lot_do_not_leak_through_the_means() -> None:
    """With fewer videos than moments, each centred video is minus the sum of the others, and gives its own label away."""
    rng = np.random.default_rng(3)
    videos = rng.normal(size=(12, 1, 4, 200)).astype(np.float32)
    targets_BK = np.eye(2)[np.arange(12) % 2]

    left_out_NVK = solve_moments(videos, targets_BK, cross_entropy).left_out
    assert (left_out_NVK[:, 0].argmax(1) == targets_BK.argmax(1)).mean() <= 0.5


def test_two_videos_are_enough() -> None:
    solved = solve_moments(embeddings(2), np.eye(2), cross_entropy)
    assert solved.left_out[:, 0].argmax(axis=1).tolist() == [1, 0]  # what is left knows the other action alone
    moments_BP = moment_features(embeddings(2)[:, 0])
    assert (moments_BP @ solved.weight.T + solved.bias).argmax(axis=1).tolist() == [0, 1]


def test_losses_are_those_of_torch() -> None:
    rng = np.random.default_rng(4)
    logits_MK, targets_MK = rng.normal(size=(7, 4)) * 30, np.eye(4)[rng.integers(4, size=7)]
    tensors: Any = torch.from_numpy(logits_MK), torch.from_numpy(targets_MK)
    assert cross_entropy(logits_MK, targets_MK) == pytest.approx(F.cross_entropy(*tensors).item())
    binary = F.binary_cross_entropy_with_logits(*tensors).item()
    assert binary_cross_entropy(logits_MK, targets_MK) == pytest.approx(binary)


def test_solving_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np; from fewframes.models.read_out.solve import *; "
        "print(solve_moments(np.ones((3, 1, 2, 4)) * np.arange(3)[:, None, None, None], np.eye(3), cross_entropy).weight.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(3, 24)", done.stderr
