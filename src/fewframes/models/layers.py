"""The parts of both encoders: attention, MLP, a transformer layer (Eqs. 2-9), and positions for other numbers of frames.

The letters in shapes are those of stam.py.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.errors import ConfigError

GRID_SEED = 0
"""The seed of the projection of a grid."""
MOST_MULTIPLIED_OUT = 512
"""The most tokens of a sequence whose attention on a CPU is computed as plain matrix products."""


class Attention(nn.Module):
    """Multi-head self-attention, (..., S, D) -> (..., S, D): q, k, v (Eqs. 2-4), weights and sum (Eqs. 6-7, or 11), W_O (Eq. 8).

    With `causal` each token attends only to itself and to earlier tokens. `dropout` is that of the weights, in training.
    """

    def __init__(
        self, width: int, heads: int, *, qkv_bias: bool = True, causal: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BSD: Tensor) -> Tensor:
        query, key, value = self.per_head(tokens_BSD)  # each (..., A, S, D/A)
        if self.dropout and self.training:
            summed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout, is_causal=self.causal)
        else:
            summed = attend(query, key, value, causal=self.causal)
        return self.proj(summed.transpose(-3, -2).flatten(-2))

    def weights_of(self, tokens_BSD: Tensor, index: int) -> Tensor:
        """Return the attention of the token at this index to each token, mean over heads: (B, S, D) -> (B, S).

        The index is 0 (the class token, whose weights are alpha_0 of Eq. 11) or -1 (the last token).
        """
        query, key, _ = self.per_head(tokens_BSD)
        return mean_weights(query[..., index, None, :], key).squeeze(-2)

    def per_head(self, tokens_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values (Eqs. 2-4) of each head: (..., S, D) -> three of (..., A, S, D/A)."""
        qkv = self.qkv(tokens_BSD).unflatten(-1, (3, self.heads, -1))  # (..., S, 3, A, D/A)
        query, key, value = qkv.movedim(-3, 0).transpose(-3, -2).unbind(0)
        return query, key, value


def attend(
    query: Tensor, key: Tensor, value: Tensor, log_sizes_BS: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v (Eqs. 4, 6 and 7). Queries, keys, values and the result are (..., A, S, d).

    Short sequences in bfloat16 on a CPU are computed as plain matrix products, because torch's fused kernel takes twice the time
    there (docs/decisions). The backward pass, long sequences and all other devices use the fused kernel, which does not store
    the S x S weights.

    Args:
        query: the queries.
        key: the keys.
        value: the values.
        log_sizes_BS: the logarithm of the number of equal tokens that each key stands for (..., S). It is added to the scores of
            the key, so that the key counts that many times.
        causal: True if each query attends only to the keys up to its own position.
    """
    if query.ndim > 4 and torch.compiler.is_exporting():  # ONNX has one batch axis; sizes never occur with more axes
        folded = attend(query.flatten(0, -4), key.flatten(0, -4), value.flatten(0, -4), causal=causal)
        return folded.unflatten(0, query.shape[:-3])
    # (..., 1, 1, S): the same for all heads and queries
    bias = None if log_sizes_BS is None else log_sizes_BS.to(query.dtype)[..., None, None, :]
    fused = query.device.type != "cpu" or query.dtype != torch.bfloat16 or query.shape[-2] > MOST_MULTIPLIED_OUT
    if fused or causal or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=causal)
    scores = (query / math.sqrt(query.shape[-1])).contiguous() @ key.contiguous().transpose(-2, -1)
    if bias is not None:
        scores += bias
    return scores.softmax(dim=-1) @ value.contiguous()


def mean_weights(query: Tensor, key: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)), mean over heads: the attention of each query to each key.

    Queries (..., A, R, d) and keys (..., A, S, d) give (..., R, S).
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return scores.softmax(dim=-1).mean(dim=-3)


class Mlp(nn.Module):
    """The two-layer perceptron of Eq. 9: (B, S, D) -> (B, S, D). It has GELU as in the paper, or ReLU as in the release.

    `dropout` is that of its hidden numbers, in training.
    """

    def __init__(self, width: int, hidden: int, *, relu: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.relu = relu
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens_BSD: Tensor) -> Tensor:
        hidden = self.fc1(tokens_BSD)
        return self.fc2(self.drop(F.relu(hidden) if self.relu else F.gelu(hidden)))


class DropPath(nn.Module):
    """A layer of stochastic depth: in training it sets the branch of a sample to zero with this probability.

    The other branches are scaled up, so that the expected value stays the same.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        if self.probability == 0 or not self.training:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.probability
        return branch * kept / (1 - self.probability)


class Block(nn.Module):
    """A transformer layer: (B, S, D) -> (B, S, D).

    With `post_norm=False` it is the paper's (Eqs. 8-9): LayerNorm comes before each branch, and the MLP has GELU. With True it is
    the release's: LayerNorm comes after each sum, and the MLP has ReLU. Its dropout is also on the attention's weights and inside
    the MLP, as in torch's `TransformerEncoderLayer`, which the release is made of.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_width: int,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        post_norm: bool = False,
        causal: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        inner_dropout = dropout if post_norm else 0.0
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, qkv_bias=qkv_bias, causal=causal, dropout=inner_dropout)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, mlp_width, relu=post_norm, dropout=inner_dropout)
        self.drop = nn.Sequential(nn.Dropout(dropout), DropPath(drop_path))

    def forward(self, tokens_BSD: Tensor) -> Tensor:
        if self.post_norm:
            tokens_BSD = self.norm1(tokens_BSD + self.drop(self.attn(tokens_BSD)))
            return self.norm2(tokens_BSD + self.drop(self.mlp(tokens_BSD)))
        tokens_BSD = tokens_BSD + self.drop(self.attn(self.norm1(tokens_BSD)))  # Eq. 8
        return tokens_BSD + self.drop(self.mlp(self.norm2(tokens_BSD)))  # Eq. 9

    def first_token(self, tokens_BSD: Tensor, log_sizes_BS: Tensor | None = None) -> Tensor:
        """Return the output of this layer for the first token alone: (B, S, D) -> (B, 1, D). Sizes are those of `attend`.

        After the last layer only the class token is read (Eq. 10). It needs no more than the keys and values of the other tokens,
        which are a sixth of the layer's work. The layer must have `post_norm=False`.
        """
        normed_BSD, attn = self.norm1(tokens_BSD), self.attn
        width = normed_BSD.shape[-1]
        weights, bias = attn.qkv.weight, attn.qkv.bias
        biases = (None, None) if bias is None else (bias[:width], bias[width:])
        query_B1D = F.linear(normed_BSD[..., :1, :], weights[:width], biases[0])
        key_value = F.linear(normed_BSD, weights[width:], biases[1]).unflatten(-1, (2, attn.heads, -1))
        key, value = key_value.movedim(-3, 0).transpose(-3, -2).unbind(0)
        query = query_B1D.unflatten(-1, (attn.heads, -1)).transpose(-3, -2)
        summed_B1D = attend(query, key, value, log_sizes_BS).transpose(-3, -2).flatten(-2)
        token_B1D = tokens_BSD[..., :1, :] + attn.proj(summed_B1D)
        return token_B1D + self.mlp(self.norm2(token_B1D))

    def weights_of(self, tokens_BSD: Tensor, index: int) -> Tensor:
        """Return the attention of the token at this index, 0 or -1, to each token of this layer's input: (B, S, D) -> (B, S)."""
        return self.attn.weights_of(tokens_BSD if self.post_norm else self.norm1(tokens_BSD), index)


def resize_positions(positions_1SD: Tensor, num_frames: int, *, has_class: bool) -> Tensor:
    """Interpolate temporal positions linearly for another number of frames: (1, S, D) -> (1, S', D).

    Frame t stands for the centre of the t-th of T equal parts of the video. So the first and last centres of two numbers of frames
    do not coincide (align_corners=False).

    Args:
        positions_1SD: the positions. That of the class token comes first and stays as it is.
        num_frames: the new number of frames.
        has_class: True if there is a position of a class token.
    """
    class_1SD = positions_1SD[:, :1] if has_class else positions_1SD[:, :0]
    frames_1TD = positions_1SD[:, class_1SD.shape[1] :]
    # A comparison of sizes would fix the number of frames in an exported graph.
    if not torch.compiler.is_exporting() and frames_1TD.shape[1] == num_frames:
        return positions_1SD
    resized = F.interpolate(frames_1TD.transpose(1, 2).float(), size=num_frames, mode="linear", align_corners=False)
    return torch.cat([class_1SD, resized.transpose(1, 2).to(positions_1SD.dtype)], dim=1)


def continued_positions(positions_1TD: Tensor, num_frames: int) -> Tensor:
    """Return the first `num_frames` positions, interpolated as by `resize_positions` if there are fewer: (1, T, D) -> (1, T', D).

    Both cases are the same arithmetic, without a comparison, so that one exported graph does both.
    """
    num_positions = positions_1TD.shape[1]
    ones_T = positions_1TD.new_ones(num_frames)
    # A step of 1 takes the positions as they are. A smaller one spreads them over more frames.
    step = (num_positions / ones_T.sum()).clamp(max=1)
    index_T = ((ones_T.cumsum(dim=0) - 0.5) * step - 0.5).clamp(0, num_positions - 1)
    before_T = index_T.floor().long()
    after_T = (before_T + 1).clamp(max=num_positions - 1)
    return torch.lerp(positions_1TD[:, before_T], positions_1TD[:, after_T], (index_T - before_T)[:, None])


def pixels_of(frames_TCHW: Tensor) -> Tensor:
    """Return frames (..., H, W) of uint8 values 0-255 as float32 values 0-1. The model then normalises by mean and std itself."""
    return frames_TCHW.float().div_(255)


def middle_block(depth: int) -> int:
    """Return the number, counted from 1, of the block of a ViT whose patches are pooled over cells by default."""
    return max(1, round(2 * depth / 3))


class FrameGrid(nn.Module):
    """Features of an encoder's middle, pooled over cells x cells parts of the frame: (M, C, h, w) -> (M, cells**2 * width).

    With `width`, each cell has that many numbers instead of C: the features are reduced by a fixed random projection, whose rows
    are orthogonal. It keeps distances well enough that no fitting is needed (docs/decisions). It is drawn from a seed, and stored
    with the weights; its numbers are those of float16, so that a stored model has the very same.

    Raises ConfigError if `width` is larger than C.
    """

    def __init__(self, channels: int, cells: int, width: int | None = None) -> None:
        super().__init__()
        if width is not None and width > channels:
            raise ConfigError(
                f"cell_width {width}: the layer has {channels} channels; take fewer, or leave it out for all"
            )
        self.cells = cells
        self.width = cells**2 * (width or channels)
        self.reduce = None if width is None else nn.Conv2d(channels, width, 1, bias=False).requires_grad_(False)
        if self.reduce is not None and width is not None:
            drawn_CC = np.random.default_rng(GRID_SEED).standard_normal((channels, width))
            rows_WC = np.ascontiguousarray(np.linalg.qr(drawn_CC)[0].T, np.float16)
            self.reduce.weight.data.copy_(torch.from_numpy(rows_WC)[:, :, None, None])

    def forward(self, features_MCHW: Tensor) -> Tensor:
        pooled_MCHW = F.adaptive_avg_pool2d(features_MCHW, self.cells)
        return (pooled_MCHW if self.reduce is None else self.reduce(pooled_MCHW)).flatten(1)
