"""The network, whole: patches, attention, spatial encoder, temporal encoder, head (Eqs. 1-12).

Source: Sharir, Noy, Zelnik-Manor, "An Image is Worth 16x16 Words, What is a Video Worth?" (2021).

Letters in shapes: B videos, T frames per video (the paper's F), C colour channels, H and W pixels, M = B * T
frames folded, N patches per frame, S tokens of a sequence, D width, A heads, K classes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fewframes.config import ModelConfig, ViewConfig
from fewframes.motion import MomentHead, MotionTokens, slow_waves

log = logging.getLogger("fewframes")
MOST_MULTIPLIED_OUT = 512
"""Tokens of a sequence up to which attention on a CPU is multiplied out."""


@dataclass(frozen=True)
class VideoEncoding:
    """What the temporal half says of each video.

    `logits` (B, K); `embedding` (B, D), the paper's y (Eq. 12); `frame_attention` (B, T), rows sum to 1, or None
    when it was not asked for (Fig. 2: class token to frames, last temporal layer, mean over heads).
    """

    logits: Tensor
    embedding: Tensor
    frame_attention: Tensor | None = None


class STAM(nn.Module):
    """Space Time Attention Model: a frame encoder, a temporal encoder over its frame embeddings, one head.

    `frame_encoder` maps normalised pixels (M, C, H, W) to frame embeddings (M, D) and has `.width`; for the layouts
    that mix frames inside (`joint`, `per_block`) it also takes the number of frames. It may be cast to a lower
    precision (`model.frame_encoder.to(torch.bfloat16)`): nearly all work is there. Normalisation, temporal encoder and
    head stay float32.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig, view: ViewConfig, frame_encoder: nn.Module, frame_width: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("pixel_mean", torch.tensor(view.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(view.std).view(-1, 1, 1), persistent=False)
        self.frame_encoder = frame_encoder
        self.temporal_encoder = TemporalEncoder(config, frame_width)
        self.head = nn.Linear(self.temporal_encoder.width, config.num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.moment_head = MomentHead(frame_width, config.num_classes) if config.moment_head else None

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        """Logits (B, K) of videos (B, T, C, H, W) with float pixels in 0-1."""
        return self.encode_video(self.encode_clips(pixels_BTCHW)).logits

    def scores(self, logits_BK: Tensor) -> Tensor:
        """Scores in 0-1 from logits (B, K): shares of one whole, or for multi-label models each for itself."""
        return logits_BK.sigmoid() if self.config.task == "multilabel" else logits_BK.softmax(dim=-1)

    def loss(
        self, logits_BK: Tensor, targets_BK: Tensor, label_smoothing: float = 0.0, weights_K: Tensor | None = None
    ) -> Tensor:
        """Cross entropy with targets (B, K) in 0-1, mean over videos: of one choice, or for multi-label models of K.

        `weights_K` weighs each class, 1 on average."""
        if self.config.task == "multilabel":
            targets_BK = targets_BK * (1 - label_smoothing) + 0.5 * label_smoothing
            return F.binary_cross_entropy_with_logits(logits_BK, targets_BK, weight=weights_K)
        return F.cross_entropy(logits_BK, targets_BK, weight=weights_K, label_smoothing=label_smoothing)

    def encode_clips(self, pixels_BTCHW: Tensor) -> Tensor:
        """Frame embeddings f_t of whole clips, whatever the layout: (B, T, C, H, W) in 0-1 -> (B, T, D)."""
        num_videos, num_frames = pixels_BTCHW.shape[:2]
        frames_MCHW = pixels_BTCHW.flatten(0, 1)
        if self.config.layout == "factorised":
            frames_MD = self.encode_frames(frames_MCHW)
        else:
            frames_MD = self.frame_encoder(self.normalise(frames_MCHW), num_frames=num_frames).float()
        return frames_MD.unflatten(0, (num_videos, num_frames))

    def encode_frames(self, frames_MCHW: Tensor) -> Tensor:
        """Frame embeddings f_t (Eq. 10), each from its own frame alone: (M, C, H, W) in 0-1 -> (M, D) float32."""
        if self.config.layout != "factorised":
            raise ValueError(
                f"layout {self.config.layout!r} mixes frames inside the encoder, so a frame has no embedding of its "
                "own; use forward or encode_clips, or the 'factorised' layout"
            )
        return self.frame_encoder(self.normalise(frames_MCHW)).float()

    def encode_video(self, frames_BTD: Tensor, *, with_attention: bool = False) -> VideoEncoding:
        """Logits and video embedding y (Eqs. 11-12) from frame embeddings (B, T, D)."""
        embedding_BD, attention_BT = self.temporal_encoder(frames_BTD, with_attention)
        logits_BK = self.head(embedding_BD)
        if self.moment_head is not None:
            logits_BK = logits_BK + self.moment_head(frames_BTD)
        return VideoEncoding(logits_BK, embedding_BD, attention_BT)

    def normalise(self, frames_MCHW: Tensor) -> Tensor:
        """Pixels in 0-1 as the frame encoder takes them, in its precision."""
        normalised_MCHW = (frames_MCHW.float() - self.pixel_mean) / self.pixel_std
        return normalised_MCHW.to(next(self.frame_encoder.parameters()).dtype)


class SpatialEncoder(nn.Module):
    """The ViT that encodes frames (Eqs. 1-4, 6-10): (M, C, H, W) normalised pixels -> (M, D).

    Parameter names are timm's and the 2021 release's, so that both kinds of weights fit without renaming.
    With `layout="joint"` attention spans all patches of all frames (Eq. 5); with `"per_block"` each block attends
    over time, at the same patch, after its spatial attention (end of section 3).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layout = config.layout
        self.width = config.width
        self.image_size_px = config.image_size
        grid = config.image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, config.width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.layout != "factorised":
            # e_pos of Eq. 1 has an index for time too; it starts at zero so that image weights start unharmed.
            self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, 1, config.width))
        self.checkpointing = False
        # How tokens go through the blocks instead of one block after the other (merging.py); in training they never do.
        self.walk: Callable[[nn.Module, Tensor], Tensor] | None = None
        block = SpaceTimeBlock if self.layout == "per_block" else Block
        self.blocks = nn.ModuleList(
            block(
                config.width,
                config.heads,
                mlp_width=int(config.width * config.mlp_ratio),
                qkv_bias=config.qkv_bias,
                norm_eps=config.norm_eps,
                drop_path=config.drop_path * (index + 1) / config.depth,
            )
            for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, frames_MCHW: Tensor, num_frames: int = 1) -> Tensor:
        return self.read_out(self._through_blocks(self.tokens(frames_MCHW, num_frames)), num_frames)

    def tokens(self, frames_MCHW: Tensor, num_frames: int = 1) -> Tensor:
        """What enters the first block (Eq. 1): (M, S, D); in `joint` (B, T * S, D), in `per_block` (B, T, S, D)."""
        (height, width), size = frames_MCHW.shape[-2:], self.image_size_px
        if (height, width) != (size, size):
            raise ValueError(f"frames are {width}x{height} px, this model takes {size}x{size}; see ViewConfig.crop_px")
        patches_MND = self.patch_embed(frames_MCHW)
        class_M1D = self.cls_token.expand(len(patches_MND), -1, -1)
        tokens_MSD = torch.cat([class_M1D, patches_MND], dim=1) + self.pos_embed
        if self.layout == "factorised":
            return tokens_MSD
        time_1TD = resize_positions(self.time_embed.squeeze(2), num_frames, has_class=False)
        tokens_BTSD = tokens_MSD.unflatten(0, (-1, num_frames)) + time_1TD.unsqueeze(2)
        # Eq. 5: in `joint` the NF + F tokens of a video are one sequence.
        return tokens_BTSD.flatten(1, 2) if self.layout == "joint" else tokens_BTSD

    def read_out(self, tokens: Tensor, num_frames: int = 1) -> Tensor:
        """Each frame's class token after the last block (Eq. 10): tokens as they leave it -> (M, D)."""
        tokens = tokens.unflatten(1, (num_frames, -1)) if self.layout == "joint" else tokens
        return self.norm(tokens[..., 0, :].flatten(0, -2))

    def _through_blocks(self, tokens: Tensor) -> Tensor:
        if self.walk is not None and not self.training:
            return self.walk(self.blocks, tokens)
        thrifty = self.checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if thrifty else block(tokens)
        return tokens


class PatchEmbed(nn.Module):
    """E x_(p,t) of Eq. 1: each P x P patch flattened and projected, (M, C, H, W) -> (M, N, D).

    A convolution with stride P is that projection.
    """

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, frames_MCHW: Tensor) -> Tensor:
        return self.proj(frames_MCHW).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention: q, k, v (Eqs. 2-4), weights and sum (Eqs. 6-7, or 11), W_O (Eq. 8).

    (..., S, D) -> (..., S, D).
    """

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BSD: Tensor) -> Tensor:
        summed = attend(*self.per_head(tokens_BSD))  # each (..., A, S, D/A)
        return self.proj(summed.transpose(-3, -2).flatten(-2))

    def class_weights(self, tokens_BSD: Tensor) -> Tensor:
        """alpha_0 of Eq. 11: how much the class token looks at each token, mean over heads: (B, S, D) -> (B, S)."""
        query, key, _ = self.per_head(tokens_BSD)
        scores_BAS = (query[..., :1, :] @ key.transpose(-2, -1)).squeeze(-2) / math.sqrt(query.shape[-1])
        return scores_BAS.softmax(dim=-1).mean(dim=-2)

    def per_head(self, tokens_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (Eqs. 2-4) of each head: (..., S, D) -> three of (..., A, S, D/A)."""
        qkv = self.qkv(tokens_BSD).unflatten(-1, (3, self.heads, -1))  # (..., S, 3, A, D/A)
        query, key, value = qkv.movedim(-3, 0).transpose(-3, -2).unbind(0)
        return query, key, value


def attend(query: Tensor, key: Tensor, value: Tensor, log_sizes_BS: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, each (..., A, S, d): Eqs. 4, 6 and 7.

    With `log_sizes_BS` (..., S) a key counts as that many equal ones: the logarithm of how many is added to its scores.
    Short sequences in bfloat16 on a CPU are multiplied out: torch's fused kernel takes twice the time there (docs/decisions.md).
    Its backward pass, long sequences and every other place have the fused kernel, which does not keep S x S weights.
    """
    # (..., 1, 1, S): alike for all heads and queries
    bias = None if log_sizes_BS is None else log_sizes_BS.to(query.dtype)[..., None, None, :]
    fused = query.device.type != "cpu" or query.dtype != torch.bfloat16 or query.shape[-2] > MOST_MULTIPLIED_OUT
    if fused or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    scores = (query / math.sqrt(query.shape[-1])).contiguous() @ key.contiguous().transpose(-2, -1)
    if bias is not None:
        scores += bias
    return scores.softmax(dim=-1) @ value.contiguous()


class Mlp(nn.Module):
    """The two-layer perceptron of Eq. 9; GELU as in the paper, ReLU as in the release."""

    def __init__(self, width: int, hidden: int, *, relu: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.relu = relu

    def forward(self, tokens_BSD: Tensor) -> Tensor:
        hidden = self.fc1(tokens_BSD)
        return self.fc2(F.relu(hidden) if self.relu else F.gelu(hidden))


class DropPath(nn.Module):
    """Stochastic depth: in training a sample's branch is left out with probability `share`, the others scaled to make up."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, branch: Tensor) -> Tensor:
        if self.share == 0 or not self.training:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.share
        return branch * kept / (1 - self.share)


class Block(nn.Module):
    """One transformer layer: (B, S, D) -> (B, S, D).

    `post_norm=False` is the paper's (Eqs. 8-9: LayerNorm before, GELU); True is the release's (LayerNorm after the
    sum, ReLU).
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
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, mlp_width, relu=post_norm)
        self.drop = nn.Sequential(nn.Dropout(dropout), DropPath(drop_path))

    def forward(self, tokens_BSD: Tensor) -> Tensor:
        if self.post_norm:
            tokens_BSD = self.norm1(tokens_BSD + self.drop(self.attn(tokens_BSD)))
            return self.norm2(tokens_BSD + self.drop(self.mlp(tokens_BSD)))
        tokens_BSD = tokens_BSD + self.drop(self.attn(self.norm1(tokens_BSD)))  # Eq. 8
        return tokens_BSD + self.drop(self.mlp(self.norm2(tokens_BSD)))  # Eq. 9

    def first_token(self, tokens_BSD: Tensor, log_sizes_BS: Tensor | None = None) -> Tensor:
        """What this layer (`post_norm=False`) makes of the first token alone: (B, S, D) -> (B, 1, D); sizes as in `attend`.

        After the last layer nothing but the class token is read (Eq. 10), which needs of the others their keys and values only:
        a sixth of the layer's work."""
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

    def class_weights(self, tokens_BSD: Tensor) -> Tensor:
        """The class token's attention row for this layer's input: (B, S, D) -> (B, S)."""
        return self.attn.class_weights(tokens_BSD if self.post_norm else self.norm1(tokens_BSD))


class SpaceTimeBlock(Block):
    """A spatial block that also attends over time at each patch, after its spatial attention: (B, T, S, D)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_width: int,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(width, heads, mlp_width=mlp_width, qkv_bias=qkv_bias, norm_eps=norm_eps, drop_path=drop_path)
        self.time_norm = nn.LayerNorm(width, eps=norm_eps)
        self.time_attn = Attention(width, heads, qkv_bias=qkv_bias)
        # Starts as the image block it grew from: the added branch contributes nothing until trained.
        nn.init.zeros_(self.time_attn.proj.weight)
        nn.init.zeros_(self.time_attn.proj.bias)

    def forward(self, tokens_BTSD: Tensor) -> Tensor:
        tokens_BTSD = tokens_BTSD + self.drop(self.attn(self.norm1(tokens_BTSD)))
        tokens_BSTD = self.time_norm(tokens_BTSD).transpose(1, 2)
        tokens_BTSD = tokens_BTSD + self.drop(self.time_attn(tokens_BSTD).transpose(1, 2))
        return tokens_BTSD + self.drop(self.mlp(self.norm2(tokens_BTSD)))


class TemporalEncoder(nn.Module):
    """Video embedding y (Eq. 12) from frame embeddings f_t (Eq. 10): (B, T, D) -> (B, D').

    Styles: `paper` (Eqs. 7-9 over frames: LayerNorm before, GELU), `release` (what the authors published: LayerNorm
    after, ReLU) and `mean` (Table 2: the mean of the frame embeddings, no parameters).
    """

    def __init__(self, config: ModelConfig, frame_width: int) -> None:
        super().__init__()
        self.style = config.temporal
        self.num_frames = config.num_frames
        self._said_interpolation = False
        self.motion = MotionTokens(frame_width, config.motion_width) if config.motion_width else None
        if self.style == "mean":
            self.width = config.motion_width or frame_width
            return
        self.width = config.temporal_width or frame_width
        token_width = config.motion_width or frame_width
        self.token_drop = nn.Dropout(config.token_dropout)
        self.proj = nn.Linear(token_width, self.width) if config.temporal_width else nn.Identity()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_frames + 1, self.width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if config.temporal_positions == "waves":
            self.pos_embed.data[0, 1:] = slow_waves(config.num_frames, self.width)
        else:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        post_norm = self.style == "release"
        norm_eps = 1e-5 if post_norm else config.norm_eps
        self.blocks = nn.ModuleList(
            Block(
                self.width,
                config.temporal_heads,
                mlp_width=config.temporal_mlp_width or 4 * self.width,
                norm_eps=norm_eps,
                post_norm=post_norm,
                dropout=config.temporal_dropout,
            )
            for _ in range(config.temporal_depth)
        )
        self.norm = nn.LayerNorm(self.width, eps=norm_eps)

    def forward(self, frames_BTD: Tensor, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        return self.attend(self.tokens(frames_BTD), with_attention)

    def tokens(self, frames_BTD: Tensor) -> Tensor:
        """The part without trained weights: (B, T, D) -> (B, T, W), so that training can do it once."""
        return frames_BTD if self.motion is None else self.motion(frames_BTD)

    def attend(self, tokens_BTW: Tensor, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Video embedding and, when asked for, frame attention from `tokens`: (B, T, W) -> (B, D'), (B, T)."""
        num_videos, num_frames, _ = tokens_BTW.shape
        if self.style == "mean":
            uniform_BT = tokens_BTW.new_full((num_videos, num_frames), 1 / num_frames)
            return tokens_BTW.mean(dim=1), uniform_BT if with_attention else None
        frames_BTD = self.proj(self.token_drop(tokens_BTW))
        class_B1D = self.cls_token.expand(num_videos, -1, -1)
        tokens_BSD = torch.cat([class_B1D, frames_BTD], dim=1) + self._positions(num_frames)
        attention_BT = None
        for index, block in enumerate(self.blocks):
            if with_attention and index == len(self.blocks) - 1:
                assert isinstance(block, Block)
                weights_BT = block.class_weights(tokens_BSD)[:, 1:]  # without the class token's look at itself
                attention_BT = weights_BT / weights_BT.sum(dim=1, keepdim=True)
            tokens_BSD = block(tokens_BSD)
        return self.norm(tokens_BSD[:, 0]), attention_BT  # Eq. 12

    def _positions(self, num_frames: int) -> Tensor:
        if num_frames != self.num_frames and not self._said_interpolation:
            self._said_interpolation = True
            log.warning(
                "this model was built for %d frames and is used with %d: its temporal positions are interpolated",
                self.num_frames,
                num_frames,
            )
        return resize_positions(self.pos_embed, num_frames, has_class=True)


def resize_positions(positions_1SD: Tensor, num_frames: int, *, has_class: bool) -> Tensor:
    """Temporal positions for another number of frames, by linear interpolation: (1, S, D) -> (1, S', D).

    Frame t stands for the centre of the t-th of T equal parts of the video, so the ends of the two grids of
    centres do not coincide (align_corners=False). The class token's position, first when there is one, is kept.
    """
    head_1SD = positions_1SD[:, :1] if has_class else positions_1SD[:, :0]
    frames_1TD = positions_1SD[:, head_1SD.shape[1] :]
    if frames_1TD.shape[1] == num_frames:
        return positions_1SD
    resized = F.interpolate(frames_1TD.transpose(1, 2).float(), size=num_frames, mode="linear", align_corners=False)
    return torch.cat([head_1SD, resized.transpose(1, 2).to(positions_1SD.dtype)], dim=1)
