"""The changes between frames, in forms that can be learned from few labelled videos.

This is ours, not the paper's. If the temporal positions start near zero, a temporal encoder that is trained on a hundred videos
does not learn the order of frames. If it takes the embeddings as they are, it does worse on videos from another setting.
docs/decisions has the figures. Hence this module has tokens that hold the changes, positions that have an effect from the
start, and a read-out that is solved instead of trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Solved = tuple[Tensor, Tensor, Tensor]
"""The weights (K, P), the predictions for some videos from all other videos (B', V, K), and the indices of those videos (B',)."""
NUM_WAVES, WAVE_STD = 6, 0.3
"""The number of frequencies of `slow_waves`, and the standard deviation of the result."""
BLOCK_SIDE = 2048
"""The number of rows of a symmetric matrix that are summed together, each from the diagonal on."""
STD_FLOOR = 0.3
"""The fraction of the mean spread that is added to the spread of each channel before a division, so that nearly constant channels
are not blown up."""


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
        self.reduce = nn.Linear(4 * frame_width, width).requires_grad_(False)

    def forward(self, embeddings_BTD: Tensor) -> Tensor:
        return self.reduce(self._joined(embeddings_BTD))

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
    """A linear head on slow moments of the frame embeddings, solved by ridge regression: (B, T, D) -> (B, K) logits.

    Moments are meant in the sense of statistics: means over t of f_t cos(pi k u_t) for k = 0..3, of |f_t - f_(t-1)|, and of
    |f_t - mean over frames|. u_t in 0-1 is the time of frame t as a fraction of the duration. k = 0 is the mean of the frames, and
    k = 1 already tells a video from its reverse.

    Letters in shapes: B videos, V views of each, M = B*V, P all moments of a video, K classes.
    """

    NUM_COSINES, NUM_MOMENTS = 4, 6
    RIDGE = 0.1
    """The strength of regularisation, as a fraction of the mean of the kernel's diagonal."""
    MAX_LEFT_OUT = 8192
    """The most views that are predicted without their own video, to choose the scale. If there are more, videos are drawn."""
    MAX_AT_ONCE = 2048
    """The most views whose moments are in memory together."""
    GAINS = torch.linspace(1, 40, 40)
    """The scales of the logits that `fit` tries."""

    def __init__(self, frame_width: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(self.NUM_MOMENTS * frame_width, num_classes).requires_grad_(False)

    def forward(self, embeddings_BTD: Tensor) -> Tensor:
        return self.linear(self._moments(embeddings_BTD))

    @torch.no_grad()
    def fit(
        self,
        embeddings_BVTD: Tensor,
        targets_BK: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator,
    ) -> None:
        """Solve for the weights, and choose the scale of the logits that gives left-out videos the smallest loss.

        With more views than moments, the P x P products of the moments are summed piece by piece, so that memory does not grow with
        the number of videos. With fewer views, the M x M products of the views are the smaller matrix.

        Args:
            embeddings_BVTD: the frame embeddings of V views of each video.
            targets_BK: the targets in 0-1.
            loss: computes the loss from logits and targets, both (M, K).
            generator: draws the videos that are left out, if there are more than `MAX_LEFT_OUT` views.
        """
        num_videos, num_views = embeddings_BVTD.shape[:2]
        mean_P, scale_P = self._mean_and_scale(embeddings_BVTD)
        prior_K = targets_BK.mean(dim=0)
        solve = self._solve_by_moments if num_videos * num_views > len(mean_P) else self._solve_by_views
        weights_KP, left_out_BVK, rows_B = solve(embeddings_BVTD, targets_BK - prior_K, mean_P, scale_P, generator)
        left_out_MK = left_out_BVK.flatten(0, 1) + prior_K
        wanted_MK = targets_BK[rows_B].repeat_interleave(num_views, dim=0)
        gain = min(self.GAINS.tolist(), key=lambda gain: loss(gain * (left_out_MK - 0.5), wanted_MK).item())
        self.linear.weight.copy_(gain * weights_KP * scale_P)
        self.linear.bias.copy_(gain * (prior_K - 0.5) - self.linear.weight @ mean_P)

    def _pieces(self, embeddings_BVTD: Tensor, rows_B: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the indices of some videos at a time, and the moments (M, P) of all their views, video after video.

        `rows_B` are the indices of the videos to go through; None is all.
        """
        rows_B = torch.arange(len(embeddings_BVTD)) if rows_B is None else rows_B
        for some_B in rows_B.split(max(1, self.MAX_AT_ONCE // embeddings_BVTD.shape[1])):
            yield some_B, self._moments(embeddings_BVTD[some_B].flatten(0, 1))

    def _mean_and_scale(self, embeddings_BVTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of each moment and the inverse of its spread, both (P,)."""
        count, sums_P, squares_P, shift_P = 0, torch.zeros(()), torch.zeros(()), None
        for _, moments_MP in self._pieces(embeddings_BVTD):
            # The mean of the first piece is subtracted from all, so that the variance is a difference of small numbers and loses no
            # digits.
            shift_P = moments_MP.mean(dim=0) if shift_P is None else shift_P
            shifted_MP = (moments_MP - shift_P).double()
            count += len(shifted_MP)
            sums_P, squares_P = sums_P + shifted_MP.sum(dim=0), squares_P + shifted_MP.square().sum(dim=0)
        assert shift_P is not None
        variance_P = (squares_P - sums_P.square() / count).clamp(min=0) / (count - 1)
        spread_P = variance_P.sqrt().to(shift_P.dtype)
        scale_P = torch.cat([_one_over(part) for part in spread_P.chunk(self.NUM_MOMENTS)])
        return (shift_P + sums_P / count).to(shift_P.dtype), scale_P

    def _solve_by_views(
        self, embeddings_BVTD: Tensor, wanted_BK: Tensor, mean_P: Tensor, scale_P: Tensor, _generator: torch.Generator
    ) -> Solved:
        """Solve by the M x M products of the views with each other.

        Args:
            embeddings_BVTD: the frame embeddings of V views of each video.
            wanted_BK: the targets, minus their mean.
            mean_P: the mean of each moment.
            scale_P: the inverse of the spread of each moment.
            _generator: not used, because every view is predicted without its own video.
        """
        num_videos, num_views = embeddings_BVTD.shape[:2]
        scaled_MP = torch.cat([(moments_MP - mean_P) * scale_P for _, moments_MP in self._pieces(embeddings_BVTD)])
        wanted_MK = wanted_BK.repeat_interleave(num_views, dim=0)
        kernel_MM = scaled_MP @ scaled_MP.T
        kernel_MM.diagonal().add_(self.RIDGE * kernel_MM.diagonal().mean().clamp(min=1e-6))
        inverse_MM = torch.linalg.inv(kernel_MM)
        dual_MK = inverse_MM @ wanted_MK
        # The prediction for each video from all others, without solving anew for each: the residual of a left-out video is its
        # dual variables, solved by its diagonal block of the inverse.
        blocks_BVV = (
            inverse_MM.view(num_videos, num_views, num_videos, num_views).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        )
        residual_BVK = torch.linalg.solve(blocks_BVV, dual_MK.unflatten(0, (num_videos, num_views)))
        return dual_MK.T @ scaled_MP, wanted_BK[:, None] - residual_BVK, torch.arange(num_videos)

    def _solve_by_moments(
        self, embeddings_BVTD: Tensor, wanted_BK: Tensor, mean_P: Tensor, scale_P: Tensor, generator: torch.Generator
    ) -> Solved:
        """Solve by the P x P products of the moments with each other, summed over pieces of the videos.

        Args:
            embeddings_BVTD: the frame embeddings of V views of each video.
            wanted_BK: the targets, minus their mean.
            mean_P: the mean of each moment.
            scale_P: the inverse of the spread of each moment.
            generator: draws the videos that are predicted from the others, if there are more than `MAX_LEFT_OUT` views.
        """
        num_videos, num_views = embeddings_BVTD.shape[:2]
        gram_PP, answers_PK = (
            mean_P.new_zeros(len(mean_P), len(mean_P)),
            wanted_BK.new_zeros(len(mean_P), wanted_BK.shape[1]),
        )
        for some_B, moments_MP in self._pieces(embeddings_BVTD):
            scaled_MP = (moments_MP - mean_P) * scale_P
            for first in range(0, len(mean_P), BLOCK_SIDE):  # the lower half is the mirror of the upper one
                part = slice(first, first + BLOCK_SIDE)
                gram_PP[part, first:].addmm_(scaled_MP[:, part].T, scaled_MP[:, first:])
            answers_PK += scaled_MP.T @ wanted_BK[some_B].repeat_interleave(num_views, dim=0)
        ridge = self.RIDGE * gram_PP.trace() / (num_videos * num_views)
        gram_PP.diagonal().add_(ridge.clamp(min=1e-6))
        upper_PP = torch.linalg.cholesky(gram_PP, upper=True)
        del gram_PP
        weights_PK = torch.cholesky_solve(answers_PK, upper_PP, upper=True)
        # The prediction for each video from all others: its residual, solved by the identity minus the influence of its views on
        # their own predictions.
        rows_B = torch.randperm(num_videos, generator=generator)[: max(1, self.MAX_LEFT_OUT // num_views)]
        left_out = []
        for some_B, moments_MP in self._pieces(embeddings_BVTD, rows_B):
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

    def _moments(self, embeddings_BTD: Tensor) -> Tensor:
        """Return the moments of each video: (B, T, D) -> (B, P)."""
        num_frames, device = embeddings_BTD.shape[1], embeddings_BTD.device
        times_T = (torch.arange(num_frames, device=device) + 0.5) / num_frames
        cosines_TC = torch.cos(math.pi * times_T[:, None] * torch.arange(self.NUM_COSINES, device=device))
        waves_BCD = cosines_TC.T @ embeddings_BTD / num_frames
        change_BD = embeddings_BTD.diff(dim=1).abs().sum(dim=1) / max(1, num_frames - 1)
        deviation_BD = (embeddings_BTD - embeddings_BTD.mean(dim=1, keepdim=True)).abs().mean(dim=1)
        return torch.cat([waves_BCD.flatten(1), change_BD, deviation_BD], dim=1)


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
