"""The changes between frames, in forms that can be learned from few labelled videos.

This is ours, not the paper's. If the temporal positions start near zero, a temporal encoder that is trained on a hundred videos
does not learn the order of frames. If it takes the embeddings as they are, it does worse on videos from another setting.
docs/decisions has the figures. Hence this module has tokens that hold the changes, positions that have an effect from the
start, and a read-out that is solved instead of trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.models.moments import MOMENT_WEIGHTS, STD_FLOOR, MomentSet
from fewframes.models.read_out.solve import solve_moments

NUM_WAVES, WAVE_STD = 6, 0.3
"""The number of frequencies of `slow_waves`, and the standard deviation of the result."""


class MotionTokens(nn.Module):
    """Motion tokens: the content of each frame and its change since the frame before, in few numbers: (B, T, D) -> (B, T, W).

    Four vectors are joined and linearly reduced: f_t, d_t = f_t - f_(t-1) (0 for the first frame), |d_t|, and |f_t - mean over
    frames|. The reduction is fitted to data (`fit`), not trained, because few videos are not enough to train 4 D x W numbers. With
    `causal` the mean is over the frames up to t.
    """

    CONTENT_SCALE = 0.3
    """The factor of f_t before the reduction. At full size, the content would outweigh the changes, which tell the direction of an
    action."""
    MAX_ROWS = 4096
    """The most frames that the reduction is fitted to."""

    def __init__(self, frame_width: int, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        # True if the reduction came with a trained temporal encoder, which would not understand another one.
        self.kept = False
        self.reduce = nn.Linear(4 * frame_width, width).requires_grad_(False)

    def forward(self, embeddings_BTD: Tensor) -> Tensor:
        return self.reduce(self._joined(embeddings_BTD))

    def step(self, previous_BD: Tensor, mean_BD: Tensor, embeddings_BD: Tensor) -> Tensor:
        """Return the causal token of one more frame, given the frame before and the mean up to this one: three (B, D) -> (B, W)."""
        change_BD = embeddings_BD - previous_BD
        return self.reduce(
            torch.cat([embeddings_BD, change_BD, change_BD.abs(), (embeddings_BD - mean_BD).abs()], dim=1)
        )

    def cacheable_parts(self, previous_BD: Tensor, embeddings_BD: Tensor) -> Tensor:
        """Return the two parts of frames' tokens that are the same in every window, so that they can be cached: (B, 2, W).

        The first part comes from the frame itself, the second from its change since the frame before.
        """
        width = embeddings_BD.shape[-1]
        change_BD = embeddings_BD - previous_BD
        changes_BD = torch.cat([change_BD, change_BD.abs()], dim=1)
        weights_WD = self.reduce.weight
        own_BW = F.linear(embeddings_BD, weights_WD[:, :width], self.reduce.bias)
        return torch.stack([own_BW, F.linear(changes_BD, weights_WD[:, width : 3 * width])], dim=1)

    def from_cached(self, embeddings_BTD: Tensor, cached_BT2W: Tensor) -> Tensor:
        """Return the result of `forward` for a third of the work: only the part that depends on the whole window is computed.

        `cached_BT2W` are the `cacheable_parts` of the frames.
        """
        own_BTW, changes_BTW = cached_BT2W.unbind(2)
        deviation_BTD = self._deviation(embeddings_BTD)
        weights_WD = self.reduce.weight[:, -embeddings_BTD.shape[-1] :]
        # The first frame of a window has no change, whatever frame came before it.
        return own_BTW + F.pad(changes_BTW[:, 1:], (0, 0, 1, 0)) + F.linear(deviation_BTD, weights_WD)

    @torch.no_grad()
    def fit(self, embeddings_BTD: Tensor, generator: torch.Generator) -> None:
        """Set the reduction to the leading principal components of these videos' tokens, scaled to a spread of 1 overall.

        The generator draws the videos, if there are more than `MAX_ROWS` frames, and the numbers that the decomposition needs.
        """
        num_videos = max(1, self.MAX_ROWS // embeddings_BTD.shape[1])
        chosen_B = torch.randperm(len(embeddings_BTD), generator=generator)[:num_videos]
        joined_MD = self._joined(embeddings_BTD[chosen_B]).flatten(0, 1)
        mean_D = joined_MD.mean(dim=0)
        width = embeddings_BTD.shape[-1]
        scale_D = _one_over(joined_MD[:, :width].std(dim=0))
        scale_D = torch.cat([self.CONTENT_SCALE * scale_D, scale_D, scale_D, scale_D])
        scaled_MD = (joined_MD - mean_D) * scale_D
        rank = min(self.reduce.out_features, *scaled_MD.shape)
        with torch.random.fork_rng(devices=[]):  # svd_lowrank draws from the global generator, which must not change
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            _, _, axes_DW = torch.svd_lowrank(scaled_MD, q=min(rank + 32, *scaled_MD.shape), niter=2)
        axes_DW = axes_DW[:, :rank]
        axes_DW = axes_DW / (scaled_MD @ axes_DW).std()
        self.reduce.weight.zero_()  # if the data have fewer components than W, the other tokens' numbers are 0
        self.reduce.weight[:rank] = (axes_DW * scale_D[:, None]).T
        self.reduce.bias.copy_(-self.reduce.weight @ mean_D)

    def _joined(self, embeddings_BTD: Tensor) -> Tensor:
        """Return the four vectors of each frame, joined: (B, T, D) -> (B, T, 4 D)."""
        change_BTD = F.pad(embeddings_BTD.diff(dim=1), (0, 0, 1, 0))
        return torch.cat([embeddings_BTD, change_BTD, change_BTD.abs(), self._deviation(embeddings_BTD)], dim=-1)

    def _deviation(self, embeddings_BTD: Tensor) -> Tensor:
        """Return |f_t - mean over frames|: (B, T, D) -> (B, T, D)."""
        mean_BTD = running_mean(embeddings_BTD) if self.causal else embeddings_BTD.mean(dim=1, keepdim=True)
        return (embeddings_BTD - mean_BTD).abs()


class MomentHead(nn.Module):
    """A linear head on moments of the frame embeddings over time, solved by ridge regression: (B, T, D) -> (B, K) logits.

    `moments.py` has the formulas of both sets of moments, and the solver.
    """

    MAX_LEFT_OUT = 8192
    """The most views that are predicted without their own group, to choose the scale. If there are more, groups are drawn."""

    def __init__(self, frame_width: int, num_classes: int, moments: MomentSet = "slow") -> None:
        super().__init__()
        self.moments: MomentSet = moments
        self.linear = nn.Linear(len(MOMENT_WEIGHTS[moments]) * frame_width, num_classes).requires_grad_(False)

    def forward(self, embeddings_BTD: Tensor) -> Tensor:
        return self.linear(self._moments(embeddings_BTD))

    @torch.no_grad()
    def fit(
        self,
        embeddings_BVTD: Tensor,
        targets_BK: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Solve for the weights, and choose the scale of the logits that gives left-out groups the smallest loss (`moments.py`).

        Args:
            embeddings_BVTD: the frame embeddings of V views of each video.
            targets_BK: the targets in 0-1.
            loss: computes the loss from logits and targets, both (M, K).
            generator: draws the groups that are left out, if they have more than `MAX_LEFT_OUT` views.
            groups: the group of each video. A group with a label that no other group has is not left out: nothing knows it
                then. None makes each video its own group, and so do groups of which none can be left out.
        """
        num_videos, num_views = embeddings_BVTD.shape[:2]
        targets = targets_BK.cpu().numpy()
        groups_B = np.arange(num_videos) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
        known_G = _known_without(groups_B, targets)
        if not len(known_G):
            groups_B = np.arange(num_videos)
            known_G = groups_B
        drawn_G = known_G[torch.randperm(len(known_G), generator=generator).numpy()]
        solved = solve_moments(
            embeddings_BVTD.cpu().numpy(),
            targets,
            lambda logits_MK, wanted_MK: loss(torch.from_numpy(logits_MK), torch.from_numpy(wanted_MK)).item(),
            groups_B=groups_B,
            left_out_groups=_that_fit(drawn_G, num_views * np.bincount(groups_B), self.MAX_LEFT_OUT),
            moments=self.moments,
        )
        self.linear.weight.copy_(torch.from_numpy(solved.weight))
        self.linear.bias.copy_(torch.from_numpy(solved.bias))

    def _moments(self, embeddings_BTD: Tensor) -> Tensor:
        """Return the moments of each video: (B, T, D) -> (B, P)."""
        deviation_BTD = (embeddings_BTD - embeddings_BTD.mean(dim=1, keepdim=True)).abs()
        change_BTD = embeddings_BTD.diff(dim=1).abs()
        if self.moments == "slow":
            parts = [_waves(embeddings_BTD, range(4)), _mean(change_BTD), deviation_BTD.mean(dim=1)]
        else:
            # One frame has no change: the row of zeros stands for it, and is the largest of none.
            largest_BD = F.pad(change_BTD, (0, 0, 1, 0)).amax(dim=1)
            parts = [
                _waves(embeddings_BTD, range(3)),
                _mean(change_BTD),
                _mean_change_over_two(embeddings_BTD),
                deviation_BTD.mean(dim=1),
                largest_BD,
                _waves(deviation_BTD, range(1, 3)),
            ]
        return torch.cat(parts, dim=1)


def _known_without(groups_B: NDArray[np.integer], targets_BK: NDArray[np.floating]) -> NDArray[np.integer]:
    """Return the groups whose labels some other group has too."""
    counts_GK = np.zeros((int(groups_B.max()) + 1, targets_BK.shape[1]))
    np.add.at(counts_GK, groups_B, targets_BK)
    alone_GK = (counts_GK > 0) & ((counts_GK > 0).sum(axis=0) == 1)
    return np.flatnonzero(~alone_GK.any(axis=1))


def _that_fit(groups_N: NDArray[np.integer], views_G: NDArray[np.integer], most: int) -> list[int]:
    """Return those groups, in their order, that have at most `most` views together; the smallest if none has so few.

    A group that is too large is passed over, so that it does not decide alone.
    """
    chosen: list[int] = []
    num_views = 0
    for group in groups_N.tolist():
        if num_views + views_G[group] <= most:
            chosen.append(group)
            num_views += int(views_G[group])
    return chosen or [int(groups_N[np.argmin(views_G[groups_N])])]


def _waves(rows_BTD: Tensor, orders: range) -> Tensor:
    """Return the means over t of the rows times cos(pi k u_t), joined for all orders k: (B, T, D) -> (B, len(orders) * D)."""
    num_frames, device = rows_BTD.shape[1], rows_BTD.device
    times_T = (torch.arange(num_frames, device=device) + 0.5) / num_frames
    orders_C = torch.arange(orders.start, orders.stop, device=device)
    cosines_TC = torch.cos(math.pi * times_T[:, None] * orders_C)
    return (cosines_TC.T @ rows_BTD / num_frames).flatten(1)


def _mean_change_over_two(embeddings_BTD: Tensor) -> Tensor:
    """Return the mean of |f_t - f_(t-2)| over time (B, D); zeros if there are fewer than three frames.

    The frames are gathered by index. A slice of T - 2 frames would have a single one for T = 3, and exported graphs are for any T.
    """
    ones_T = embeddings_BTD.new_ones(embeddings_BTD.shape[1])
    index_T = (ones_T.cumsum(dim=0) - 3).long()
    has_both_T = (index_T >= 0).to(embeddings_BTD.dtype)
    change_BTD = (embeddings_BTD - embeddings_BTD[:, index_T.clamp(min=0)]).abs() * has_both_T[:, None]
    return change_BTD.sum(dim=1) / has_both_T.sum().clamp(min=1)


def _mean(rows_BTD: Tensor) -> Tensor:
    """Return the mean over time (B, D); zeros if there are no rows."""
    return rows_BTD.sum(dim=1) / max(1, rows_BTD.shape[1])


def running_mean(tokens_BTD: Tensor) -> Tensor:
    """Return the mean of each token and all tokens before it: (B, T, D) -> (B, T, D)."""
    counts_T = torch.arange(1, tokens_BTD.shape[1] + 1, device=tokens_BTD.device, dtype=tokens_BTD.dtype)
    return tokens_BTD.cumsum(dim=1) / counts_T[:, None]


def slow_waves(num_frames: int, width: int) -> Tensor:
    """Return temporal positions (T, D) of few cycles over the whole video, so that early and late frames differ from the start.

    They are sines and cosines of 1/4 to 3/2 cycles at the centres of T equal parts, mixed at random, with a spread of `WAVE_STD`.
    """
    times_T = (torch.arange(num_frames) + 0.5) / num_frames
    angles_TW = 2 * math.pi * times_T[:, None] * torch.arange(1, NUM_WAVES + 1) / 4
    waves_TW = torch.cat([angles_TW.sin(), angles_TW.cos()], dim=1)
    positions_TD = (waves_TW - waves_TW.mean(dim=0)) @ torch.randn(2 * NUM_WAVES, width)
    return positions_TD * (WAVE_STD / positions_TD.std().clamp(min=1e-6))


def _one_over(spread_D: Tensor) -> Tensor:
    """Return the inverse of the spread of each channel, with the floor of `STD_FLOOR`."""
    return 1 / (spread_D + STD_FLOOR * spread_D.mean()).clamp(min=1e-6)
