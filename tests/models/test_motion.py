"""Motion tokens, the moment head and slow positions, each compared with numbers that are computed in another way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fewframes.models.moments import STD_FLOOR, MomentSet, moment_features
from fewframes.models.motion import WAVE_STD, MomentHead, MotionTokens, slow_waves


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def videos(num_videos: int = 30, num_frames: int = 8, width: int = 6) -> torch.Tensor:
    scales_D = torch.tensor([1.0, 5.0, 0.2, 1.0, 1.0, 0.0])[:width]  # one channel is constant
    return torch.randn(num_videos, num_frames, width, generator=generator()).cumsum(dim=1) * scales_D + 3


def test_tokens_are_principal_components_of_content_change_and_distance() -> None:
    embeddings_BTD = videos()
    tokens = MotionTokens(6, 24)
    tokens.fit(embeddings_BTD, generator())
    parts = []
    for video_TD in embeddings_BTD:
        mean_D = video_TD.mean(0)
        for index, frame_D in enumerate(video_TD):
            change_D = frame_D - video_TD[index - 1] if index else torch.zeros(6)
            parts.append(torch.cat([frame_D, change_D, change_D.abs(), (frame_D - mean_D).abs()]))
    joined_MD = torch.stack(parts)
    spread_D = joined_MD[:, :6].std(0)
    spread_D = spread_D + STD_FLOOR * spread_D.mean()
    scaled_MD = (joined_MD - joined_MD.mean(0)) / spread_D.repeat(4)
    scaled_MD[:, :6] *= 0.3
    reduced_MD = tokens(embeddings_BTD).flatten(0, 1)
    # All components remain, so distances between tokens are those between the joined vectors, up to one scale.
    wanted, got = (
        torch.stack([(points - point).norm(dim=1) for point in points]) for points in (scaled_MD, reduced_MD)
    )
    assert_close(got, wanted * (got.mean() / wanted.mean()), rtol=1e-3, atol=1e-3)
    variances_D = reduced_MD.var(0)
    assert (variances_D[:-1] >= variances_D[1:] - 1e-4).all()
    assert reduced_MD.mean(0).abs().max() < 1e-4
    assert reduced_MD.std() == pytest.approx(1, abs=0.01)


def test_fewer_videos_than_components_and_a_single_frame() -> None:
    tokens = MotionTokens(6, 40)
    tokens.fit(videos(num_videos=2, num_frames=3), generator())
    reduced_BTD = tokens(videos(num_frames=1))
    assert reduced_BTD.shape == (30, 1, 40)
    assert reduced_BTD.isfinite().all()
    assert not tokens.reduce.weight.requires_grad


def wave(order: int, values: Sequence[float]) -> float:
    angles = [(index + 0.5) / len(values) * math.pi for index in range(len(values))]
    return sum(math.cos(order * angle) * value for angle, value in zip(angles, values, strict=True)) / len(values)


def moments_of(embeddings_BTD: torch.Tensor, moments: MomentSet) -> list[float]:
    """Return the moments of the first video as torch computes them, after a check that numpy computes the same."""
    head = MomentHead(1, 2, moments)
    side = head.linear.in_features
    head.linear.weight.data, head.linear.bias.data = torch.eye(side), torch.zeros(side)
    found: list[float] = head(embeddings_BTD).tolist()[0]
    assert found == pytest.approx(moment_features(embeddings_BTD.numpy(), moments)[0].tolist(), abs=1e-5)
    return found


def test_moments_by_hand() -> None:
    values, deviations = (1, 4, 2, 2), (1.25, 1.75, 0.25, 0.25)
    embeddings_BTD = torch.tensor(values, dtype=torch.float32)[None, :, None]
    waves = [wave(order, values) for order in range(4)]
    assert moments_of(embeddings_BTD, "slow") == pytest.approx([*waves, 5 / 3, 3.5 / 4], abs=1e-5)
    assert moments_of(embeddings_BTD, "motion") == pytest.approx(
        [*waves[:3], 5 / 3, (1 + 2) / 2, 3.5 / 4, 3, wave(1, deviations), wave(2, deviations)], abs=1e-5
    )


@pytest.mark.parametrize("num_frames", [1, 2])
def test_moments_of_one_and_two_frames(num_frames: int) -> None:
    """A single frame has no change, and two have none over two frames."""
    embeddings_BTD = torch.tensor([3.0, 5.0])[None, :num_frames, None]
    mean, change, deviation = (3, 0, 0) if num_frames == 1 else (4, 2, 1)
    found = moments_of(embeddings_BTD, "motion")
    assert [found[0], *found[3:7]] == pytest.approx([mean, change, 0, deviation, change])


@pytest.mark.parametrize("num_videos", [15, 24, 40])  # 36 moments: solved by the products of views, or of moments
@pytest.mark.parametrize("by_lot", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_solved_weights_are_the_ridge_and_left_out_videos_are_left_out(
    num_videos: int, by_lot: bool, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gain is the one that suits predictions for each video from all other videos, computed by solving anew for each.

    With random labels, another view of the same video would give its label away, and no other video can.
    """
    monkeypatch.setattr("fewframes.models.read_out.problem.MAX_AT_ONCE", 8)  # many pieces
    monkeypatch.setattr("fewframes.models.read_out.problem.BLOCK_SIDE", 10)
    num_rows = 2 * num_videos
    embeddings_BVTD = torch.stack([videos(num_videos), videos(num_videos).flip(-1)], dim=1)
    targets_B = (embeddings_BVTD[:, 0, -1, 0] > embeddings_BVTD[:, 0, 0, 0]).long()
    if by_lot:
        embeddings_BVTD[:, 1] = embeddings_BVTD[:, 0]
        targets_B = torch.randint(2, (num_videos,), generator=torch.Generator().manual_seed(5))
    groups = [str(video % 5) for video in range(num_videos)] if grouped else None
    head = MomentHead(6, 2)
    head.fit(embeddings_BVTD, F.one_hot(targets_B, 2).float(), F.cross_entropy, generator(), groups)
    moments_MP = head._moments(embeddings_BVTD.flatten(0, 1))
    mean_P = moments_MP.mean(0)
    spread_P = moments_MP.std(0)
    scaled_MP = (moments_MP - mean_P) / torch.cat([part + STD_FLOOR * part.mean() for part in spread_P.chunk(6)])
    wanted_MK = F.one_hot(targets_B.repeat_interleave(2), 2).float()
    ridge = 0.1 * (scaled_MP @ scaled_MP.T).diagonal().mean()

    def predicted(of: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        mean_P, mean_K = scaled_MP[rows].mean(0), wanted_MK[rows].mean(0)
        chosen_MP = scaled_MP[rows] - mean_P
        gram_PP = chosen_MP.T @ chosen_MP + ridge * torch.eye(36)
        weights_PK = torch.linalg.solve(gram_PP, chosen_MP.T @ (wanted_MK[rows] - mean_K))
        return (of - mean_P) @ weights_PK + mean_K

    video_M = (
        torch.arange(num_rows) // 2
        if groups is None
        else torch.tensor([int(name) for name in groups]).repeat_interleave(2)
    )
    left_out_MK = torch.empty(num_rows, 2)
    for video in set(video_M.tolist()):
        left_out_MK[video_M == video] = predicted(scaled_MP[video_M == video], (video_M != video).nonzero().squeeze(1))
    losses = [float(F.cross_entropy(gain * (left_out_MK - 0.5), wanted_MK.argmax(1))) for gain in range(1, 41)]
    gain = losses.index(min(losses)) + 1
    logits_MK = gain * (predicted(scaled_MP, torch.arange(num_rows)) - 0.5)
    assert_close(head(embeddings_BVTD.flatten(0, 1)), logits_MK, rtol=1e-3, atol=2e-3)


def test_the_scale_is_not_chosen_on_labels_that_nothing_knows() -> None:
    """If each label has a group of its own, its videos say nothing when that is left out, and each video is left out by itself."""
    embeddings_BVTD = videos(40)[:, None]
    targets_B = (embeddings_BVTD[:, 0, -1, 0] > embeddings_BVTD[:, 0, 0, 0]).long()
    targets_BK = F.one_hot(targets_B, 2).float()
    alone = [str(label) for label in targets_B.tolist()]

    def fitted(groups: list[str] | None) -> torch.Tensor:
        head = MomentHead(6, 2)
        head.fit(embeddings_BVTD, targets_BK, F.cross_entropy, generator(), groups)
        return head.linear.weight

    assert_close(fitted(alone), fitted(None))
    assert_close(fitted(["all"] * 40), fitted(None))
    # A group that alone has a label is never left out; the others are.
    counts = []

    def loss(logits_MK: torch.Tensor, wanted_MK: torch.Tensor) -> torch.Tensor:
        counts.append(len(logits_MK))
        return F.cross_entropy(logits_MK, wanted_MK)

    third_BK = F.one_hot(
        torch.tensor([2 if row < 5 else label for row, label in enumerate(targets_B.tolist())]), 3
    ).float()
    names = ["first" if row < 5 else str(row % 4) for row in range(40)]
    MomentHead(6, 3).fit(embeddings_BVTD, third_BK, loss, generator(), names)
    assert set(counts) == {35}


def test_every_video_counts_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn videos choose only the scale. The weights are solved from all videos."""
    monkeypatch.setattr(MomentHead, "MAX_LEFT_OUT", 40)
    embeddings_BVTD = videos(400)[:, None]
    targets_BK = F.one_hot((embeddings_BVTD[:, 0, -1, 0] > embeddings_BVTD[:, 0, 0, 0]).long(), 2).float()
    heads, counts = [], []

    def loss(logits_MK: torch.Tensor, wanted_MK: torch.Tensor) -> torch.Tensor:
        counts.append(len(logits_MK))
        return F.cross_entropy(logits_MK, wanted_MK)

    for last in (399, 400):
        heads.append(MomentHead(6, 2))
        heads[-1].fit(embeddings_BVTD[:last], targets_BK[:last], loss, generator())
        heads[-1].linear.weight /= heads[-1].linear.weight.norm()
    assert set(counts) == {40}
    moved = (heads[0].linear.weight - heads[1].linear.weight).abs().max().item()
    assert 1e-7 < moved < 0.05


def test_a_group_too_large_to_leave_out_does_not_decide_the_scale_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MomentHead, "MAX_LEFT_OUT", 40)
    embeddings_BVTD = videos(100)[:, None]
    targets_BK = F.one_hot((embeddings_BVTD[:, 0, -1, 0] > embeddings_BVTD[:, 0, 0, 0]).long(), 2).float()

    def left_out(groups: list[str]) -> set[int]:
        counts = []

        def loss(logits_MK: torch.Tensor, wanted_MK: torch.Tensor) -> torch.Tensor:
            counts.append(len(logits_MK))
            return F.cross_entropy(logits_MK, wanted_MK)

        for seed in range(8):  # in some of these, the large group is drawn first
            MomentHead(6, 2).fit(embeddings_BVTD, targets_BK, loss, torch.Generator().manual_seed(seed), groups)
        return set(counts)

    assert left_out(["large" if row < 60 else str(row % 5) for row in range(100)]) == {40}
    # If none is small enough, the smallest decides.
    assert left_out(["one" if row < 45 else "two" for row in range(100)]) == {45}


def test_positions_tell_early_from_late() -> None:
    torch.manual_seed(0)
    positions_TD = slow_waves(16, 64)
    assert positions_TD.std() == pytest.approx(WAVE_STD)
    steps_T = positions_TD.diff(dim=0).norm(dim=1)
    assert (positions_TD[0] - positions_TD[-1]).norm() > 3 * steps_T.mean()
    assert slow_waves(1, 8).isfinite().all()
