"""What changes between frames, in forms that few labelled videos can teach.

Ours, not the paper's: a temporal encoder whose positions start near zero beside frame embeddings stays blind to the order of
frames when it is taught by a hundred videos, and one that takes embeddings as they are forgets between settings
(docs/decisions.md has the figures). Hence tokens that hold the changes, positions that can be heard from the start, and a
read-out that is solved instead of trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Solved = tuple[Tensor, Tensor, Tensor]
"""Weights (K, P), what videos would get from the others (B', V, K), and which videos these are (B',)."""
NUM_WAVES, WAVE_STD = 6, 0.3
BLOCK_SIDE = 2048
"""Rows of a symmetric matrix that are summed together, from the diagonal on."""
STD_FLOOR = 0.3
"""Of the mean over channels, added to each channel's spread before it is divided by it: silent channels stay quiet."""


class MotionTokens(nn.Module):
    """What a frame shows and what changed since the one before, in few numbers: (B, T, D) -> (B, T, W).

    Joined and linearly reduced: f_t, d_t = f_t - f_(t-1) (0 at the first), |d_t| and |f_t - mean over frames|. The
    reduction is fitted to data (`fit`), not trained: few videos cannot teach 4 D x W numbers. `causal`: the mean is that over
    the frames up to t.
    """

    CONTENT_SHARE = 0.3  # at full size, what a frame shows drowns the changes that tell an action's direction
    MAX_ROWS = 4096

    def __init__(self, frame_width: int, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.reduce = nn.Linear(4 * frame_width, width).requires_grad_(False)

    def forward(self, frames_BTD: Tensor) -> Tensor:
        return self.reduce(self._joined(frames_BTD))

    def kept(self, before_BD: Tensor, frames_BD: Tensor) -> Tensor:
        """What of frames' tokens is the same in every window: (B, 2, W), of a frame itself, and of its change since the one
        before."""
        width = frames_BD.shape[-1]
        change_BD = frames_BD - before_BD
        changes_BD = torch.cat([change_BD, change_BD.abs()], dim=1)
        weights_WD = self.reduce.weight
        own_BW = F.linear(frames_BD, weights_WD[:, :width], self.reduce.bias)
        return torch.stack([own_BW, F.linear(changes_BD, weights_WD[:, width : 3 * width])], dim=1)

    def from_kept(self, frames_BTD: Tensor, kept_BT2W: Tensor) -> Tensor:
        """As `forward`, for a third of the work: only what depends on the whole window is left to do."""
        own_BTW, changes_BTW = kept_BT2W.unbind(2)
        apart_BTD = self._apart(frames_BTD)
        weights_WD = self.reduce.weight[:, -frames_BTD.shape[-1] :]
        return own_BTW + F.pad(changes_BTW[:, 1:], (0, 0, 1, 0)) + F.linear(apart_BTD, weights_WD)

    @torch.no_grad()
    def fit(self, frames_BTD: Tensor, generator: torch.Generator) -> None:
        """Set the reduction to the leading principal components of these videos' tokens, their spread 1 overall."""
        num_videos = max(1, self.MAX_ROWS // frames_BTD.shape[1])
        chosen_B = torch.randperm(len(frames_BTD), generator=generator)[:num_videos]
        joined_MD = self._joined(frames_BTD[chosen_B]).flatten(0, 1)
        mean_D = joined_MD.mean(dim=0)
        width = frames_BTD.shape[-1]
        scale_D = _one_over(joined_MD[:, :width].std(dim=0))
        scale_D = torch.cat([self.CONTENT_SHARE * scale_D, scale_D, scale_D, scale_D])
        scaled_MD = (joined_MD - mean_D) * scale_D
        rank = min(self.reduce.out_features, *scaled_MD.shape)
        with torch.random.fork_rng(devices=[]):  # svd_lowrank draws from the global generator
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            _, _, axes_DW = torch.svd_lowrank(scaled_MD, q=min(rank + 32, *scaled_MD.shape), niter=2)
        axes_DW = axes_DW[:, :rank]
        axes_DW = axes_DW / (scaled_MD @ axes_DW).std()
        self.reduce.weight.zero_()  # with fewer rows than components the rest stay silent
        self.reduce.weight[:rank] = (axes_DW * scale_D[:, None]).T
        self.reduce.bias.copy_(-self.reduce.weight @ mean_D)

    def _joined(self, frames_BTD: Tensor) -> Tensor:
        change_BTD = F.pad(frames_BTD.diff(dim=1), (0, 0, 1, 0))
        return torch.cat([frames_BTD, change_BTD, change_BTD.abs(), self._apart(frames_BTD)], dim=-1)

    def _apart(self, frames_BTD: Tensor) -> Tensor:
        return (frames_BTD - (running_mean(frames_BTD) if self.causal else frames_BTD.mean(dim=1, keepdim=True))).abs()


class MomentHead(nn.Module):
    """Logits from slow moments of the frame embeddings, by ridge regression: (B, T, D) -> (B, K).

    The moments: the means over t of f_t cos(pi k u_t) for k = 0..3, with u_t in 0-1 the moment of frame t (k = 0 is the mean
    of frames, k = 1 already tells a video from its reverse), of |f_t - f_(t-1)|, and of |f_t - mean over frames|.
    """

    NUM_COSINES, NUM_MOMENTS = 4, 6
    RIDGE = 0.1  # of the mean of the kernel's diagonal
    MAX_LEFT_OUT = 8192
    """Views whose answer without their own video is predicted to choose the scale; of more videos, some drawn at random."""
    MAX_AT_ONCE = 2048
    """Views whose moments lie in memory together."""
    GAINS = torch.linspace(1, 40, 40)

    def __init__(self, frame_width: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(self.NUM_MOMENTS * frame_width, num_classes).requires_grad_(False)

    def forward(self, frames_BTD: Tensor) -> Tensor:
        return self.linear(self._moments(frames_BTD))

    @torch.no_grad()
    def fit(
        self,
        frames_BVTD: Tensor,
        targets_BK: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
    ) -> None:
        """Solve for all these videos, V views of each, and targets in 0-1; scaled for the least `loss` of left-out videos.

        With more views than moments (P) their P x P products are summed, piece by piece, so that memory does not grow with
        the number of videos; with fewer the products of views are the smaller matrix.
        """
        num_videos, num_views = frames_BVTD.shape[:2]
        mean_P, scale_P = self._mean_and_scale(frames_BVTD)
        share_K = targets_BK.mean(dim=0)
        solve = self._solve_by_moments if num_videos * num_views > len(mean_P) else self._solve_by_views
        weights_KP, left_out_BVK, rows_B = solve(frames_BVTD, targets_BK - share_K, mean_P, scale_P, generator)
        left_out_MK = left_out_BVK.flatten(0, 1) + share_K
        wanted_MK = targets_BK[rows_B].repeat_interleave(num_views, dim=0)
        gain = min(self.GAINS.tolist(), key=lambda gain: loss(gain * (left_out_MK - 0.5), wanted_MK).item())
        self.linear.weight.copy_(gain * weights_KP * scale_P)
        self.linear.bias.copy_(gain * (share_K - 0.5) - self.linear.weight @ mean_P)

    def _pieces(self, frames_BVTD: Tensor, rows_B: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield some of these videos at a time, all without `rows_B`: which, and their moments (M, P), view after view of each."""
        rows_B = torch.arange(len(frames_BVTD)) if rows_B is None else rows_B
        for some_B in rows_B.split(max(1, self.MAX_AT_ONCE // frames_BVTD.shape[1])):
            yield some_B, self._moments(frames_BVTD[some_B].flatten(0, 1))

    def _mean_and_scale(self, frames_BVTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return each moment's mean and one over its spread, both (P,)."""
        count, sums_P, squares_P, shift_P = 0, torch.zeros(()), torch.zeros(()), None
        for _, moments_MP in self._pieces(frames_BVTD):
            shift_P = moments_MP.mean(dim=0) if shift_P is None else shift_P  # squares of small numbers lose no digits
            apart_MP = (moments_MP - shift_P).double()
            count += len(apart_MP)
            sums_P, squares_P = sums_P + apart_MP.sum(dim=0), squares_P + apart_MP.square().sum(dim=0)
        assert shift_P is not None
        variance_P = (squares_P - sums_P.square() / count).clamp(min=0) / (count - 1)
        spread_P = variance_P.sqrt().to(shift_P.dtype)
        scale_P = torch.cat([_one_over(part) for part in spread_P.chunk(self.NUM_MOMENTS)])
        return (shift_P + sums_P / count).to(shift_P.dtype), scale_P

    def _solve_by_views(
        self, frames_BVTD: Tensor, wanted_BK: Tensor, mean_P: Tensor, scale_P: Tensor, _generator: torch.Generator
    ) -> Solved:
        """Solve by the products of the M views with each other."""
        num_videos, num_views = frames_BVTD.shape[:2]
        scaled_MP = torch.cat([(moments_MP - mean_P) * scale_P for _, moments_MP in self._pieces(frames_BVTD)])
        wanted_MK = wanted_BK.repeat_interleave(num_views, dim=0)
        kernel_MM = scaled_MP @ scaled_MP.T
        kernel_MM.diagonal().add_(self.RIDGE * kernel_MM.diagonal().mean().clamp(min=1e-6))
        inverse_MM = torch.linalg.inv(kernel_MM)
        dual_MK = inverse_MM @ wanted_MK
        # What each video would get from the others: the residual of a block left out is its dual by its inverse's block.
        blocks_BVV = (
            inverse_MM.view(num_videos, num_views, num_videos, num_views).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        )
        residual_BVK = torch.linalg.solve(blocks_BVV, dual_MK.unflatten(0, (num_videos, num_views)))
        return dual_MK.T @ scaled_MP, wanted_BK[:, None] - residual_BVK, torch.arange(num_videos)

    def _solve_by_moments(
        self, frames_BVTD: Tensor, wanted_BK: Tensor, mean_P: Tensor, scale_P: Tensor, generator: torch.Generator
    ) -> Solved:
        """Solve by the products of the P moments with each other, summed over pieces of the videos."""
        num_videos, num_views = frames_BVTD.shape[:2]
        gram_PP, answers_PK = (
            mean_P.new_zeros(len(mean_P), len(mean_P)),
            wanted_BK.new_zeros(len(mean_P), wanted_BK.shape[1]),
        )
        for some_B, moments_MP in self._pieces(frames_BVTD):
            scaled_MP = (moments_MP - mean_P) * scale_P
            for first in range(0, len(mean_P), BLOCK_SIDE):  # the other half is its mirror
                part = slice(first, first + BLOCK_SIDE)
                gram_PP[part, first:].addmm_(scaled_MP[:, part].T, scaled_MP[:, first:])
            answers_PK += scaled_MP.T @ wanted_BK[some_B].repeat_interleave(num_views, dim=0)
        ridge = self.RIDGE * gram_PP.trace() / (num_videos * num_views)
        gram_PP.diagonal().add_(ridge.clamp(min=1e-6))
        upper_PP = torch.linalg.cholesky(gram_PP, upper=True)
        del gram_PP
        weights_PK = torch.cholesky_solve(answers_PK, upper_PP, upper=True)
        # What each video would get from the others: its residual by one minus how far its views answer for themselves.
        rows_B = torch.randperm(num_videos, generator=generator)[: max(1, self.MAX_LEFT_OUT // num_views)]
        left_out = []
        for some_B, moments_MP in self._pieces(frames_BVTD, rows_B):
            scaled_MP = (moments_MP - mean_P) * scale_P
            roots_BVP = torch.linalg.solve_triangular(upper_PP, scaled_MP, upper=True, left=False).unflatten(
                0, (-1, num_views)
            )
            own_BVV = torch.eye(num_views) - roots_BVP @ roots_BVP.mT
            wanted_BVK = wanted_BK[some_B, None].expand(-1, num_views, -1)
            residual_BVK = torch.linalg.solve(
                own_BVV, wanted_BVK - (scaled_MP @ weights_PK).unflatten(0, (-1, num_views))
            )
            left_out.append(wanted_BVK - residual_BVK)
        return weights_PK.T, torch.cat(left_out), rows_B

    def _moments(self, frames_BTD: Tensor) -> Tensor:
        num_frames = frames_BTD.shape[1]
        moments_T = (torch.arange(num_frames, device=frames_BTD.device) + 0.5) / num_frames
        cosines_TC = torch.cos(math.pi * moments_T[:, None] * torch.arange(self.NUM_COSINES, device=frames_BTD.device))
        waves_BCD = cosines_TC.T @ frames_BTD / num_frames
        change_BD = frames_BTD.diff(dim=1).abs().sum(dim=1) / max(1, num_frames - 1)
        apart_BD = (frames_BTD - frames_BTD.mean(dim=1, keepdim=True)).abs().mean(dim=1)
        return torch.cat([waves_BCD.flatten(1), change_BD, apart_BD], dim=1)


def running_mean(tokens_BTD: Tensor) -> Tensor:
    """The mean of the tokens up to each: (B, T, D) -> (B, T, D)."""
    counts_T = torch.arange(1, tokens_BTD.shape[1] + 1, device=tokens_BTD.device, dtype=tokens_BTD.dtype)
    return tokens_BTD.cumsum(dim=1) / counts_T[:, None]


def slow_waves(num_frames: int, width: int) -> Tensor:
    """Temporal positions of few cycles over the whole video, so that early and late differ from the start: (T, D).

    Sines and cosines of 1/4 to 3/2 cycles at the centres of T equal parts, mixed at random, with a spread of `WAVE_STD`.
    """
    moments_T = (torch.arange(num_frames) + 0.5) / num_frames
    angles_TW = 2 * math.pi * moments_T[:, None] * torch.arange(1, NUM_WAVES + 1) / 4
    waves_TW = torch.cat([angles_TW.sin(), angles_TW.cos()], dim=1)
    positions_TD = (waves_TW - waves_TW.mean(dim=0)) @ torch.randn(2 * NUM_WAVES, width)
    return positions_TD * (WAVE_STD / positions_TD.std().clamp(min=1e-6))


def _one_over(spread_D: Tensor) -> Tensor:
    return 1 / (spread_D + STD_FLOOR * spread_D.mean()).clamp(min=1e-6)
