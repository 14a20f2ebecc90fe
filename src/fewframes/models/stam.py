"""The network of the paper (Eqs. 1-12): patches, spatial encoder, temporal encoder (in temporal.py) and head.

Source: Sharir, Noy, Zelnik-Manor, "An Image is Worth 16x16 Words, What is a Video Worth?" (2021).

Letters in shapes: B videos, T frames per video (the paper's F), C colour channels, H and W pixels, M = B*T frames folded, N patches
per frame, S tokens of a sequence, D width, A heads, K classes. `frames` are pixels; `embeddings` are the frame encoder's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fewframes.models.config import ModelConfig
from fewframes.models.layers import Attention, Block, FrameGrid, middle_block, resize_positions
from fewframes.models.motion import MomentHead
from fewframes.models.temporal import RecurrentState, TemporalEncoder
from fewframes.video.view import ViewConfig


@dataclass(frozen=True)
class VideoEncoding:
    """The output of the temporal half for B videos."""

    logits: Tensor
    """The logits (B, K)."""
    embedding: Tensor
    """The video embeddings (B, D): the paper's y (Eq. 12)."""
    frame_attention: Tensor | None = None
    """The attention (B, T) to each frame (Fig. 2), or None if it was not asked for. Rows sum to 1. It is that of the class token
    in the last temporal layer, mean over heads; without a class token that of the last frame."""

    def each(self) -> list[VideoEncoding]:
        """Return a list with the encoding of each video by itself (B = 1)."""
        attention = [None] * len(self.logits) if self.frame_attention is None else self.frame_attention.split(1)
        return list(map(VideoEncoding, self.logits.split(1), self.embedding.split(1), attention))


class STAM(nn.Module):
    """The Space Time Attention Model: a frame encoder, a temporal encoder over frame embeddings (D = `frame_width`), and a head.

    `frame_encoder` maps normalised pixels (M, C, H, W) to frame embeddings (M, D) and has `.width`. For layouts that mix frames
    inside the encoder (`joint`, `per_block`) it also takes the number of frames. It may be cast to a lower precision
    (`model.frame_encoder.to(torch.bfloat16)`), because nearly all work is there. Normalisation, temporal encoder and head stay
    float32.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig, view: ViewConfig, frame_encoder: nn.Module, frame_width: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("pixel_mean", torch.tensor(view.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(view.std).view(-1, 1, 1), persistent=False)
        self.frame_encoder, self.frame_width = frame_encoder, frame_width
        self.temporal_encoder = TemporalEncoder(config, frame_width)
        self.head = nn.Linear(self.temporal_encoder.width, config.num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.moment_head = MomentHead(frame_width, config.num_classes, config.moments) if config.moment_head else None

    def forward(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return the logits (B, K) of videos (B, T, C, H, W) with float pixels in 0-1."""
        return self.encode_video(self.encode_clips(pixels_BTCHW)).logits

    def scores(self, logits_BK: Tensor) -> Tensor:
        """Return scores in 0-1 from logits (B, K): a softmax, or a sigmoid for each class of a multi-label model."""
        return logits_BK.sigmoid() if self.config.task == "multilabel" else logits_BK.softmax(dim=-1)

    def loss(
        self, logits_BK: Tensor, targets_BK: Tensor, label_smoothing: float = 0.0, weights_K: Tensor | None = None
    ) -> Tensor:
        """Return the cross entropy, mean over videos: of one choice, or of K binary choices for a multi-label model.

        Args:
            logits_BK: the logits.
            targets_BK: the targets in 0-1.
            label_smoothing: the fraction of each target that is given to all classes alike.
            weights_K: the weight of each class, 1 on average; None weighs all alike.
        """
        if self.config.task == "multilabel":
            targets_BK = targets_BK * (1 - label_smoothing) + 0.5 * label_smoothing
            return F.binary_cross_entropy_with_logits(logits_BK, targets_BK, weight=weights_K)
        return F.cross_entropy(logits_BK, targets_BK, weight=weights_K, label_smoothing=label_smoothing)

    @torch.no_grad()
    def divide_logits(self, temperature: float) -> None:
        """Divide all logits by a number, for good: both heads are linear, so their weights and biases are divided by it."""
        for head in (self.head, *([] if self.moment_head is None else [self.moment_head.linear])):
            head.weight.div_(temperature)
            head.bias.div_(temperature)

    def encode_clips(self, pixels_BTCHW: Tensor) -> Tensor:
        """Return the frame embeddings f_t of whole clips, in any layout: (B, T, C, H, W) in 0-1 -> (B, T, D) float32."""
        num_videos, num_frames = pixels_BTCHW.shape[:2]
        frames_MCHW = pixels_BTCHW.flatten(0, 1)
        if self.config.layout == "factorised":
            embeddings_MD = self.encode_frames(frames_MCHW)
        else:
            embeddings_MD = self.frame_encoder(self.normalise(frames_MCHW), num_frames=num_frames).float()
        return embeddings_MD.unflatten(0, (num_videos, num_frames))

    def encode_frames(self, frames_MCHW: Tensor) -> Tensor:
        """Return the frame embeddings f_t (Eq. 10), each from its own frame alone: (M, C, H, W) in 0-1 -> (M, D) float32.

        Raises ValueError if the layout mixes frames.
        """
        if self.config.layout != "factorised":
            raise ValueError(
                f"layout {self.config.layout!r} mixes frames inside the encoder, so a frame has no embedding of its "
                "own; use forward or encode_clips, or the 'factorised' layout"
            )
        return self.frame_encoder(self.normalise(frames_MCHW)).float()

    def encode_video(
        self, embeddings_BTD: Tensor, *, with_attention: bool = False, cached_BT2W: Tensor | None = None
    ) -> VideoEncoding:
        """Return the logits and the video embedding y (Eqs. 11-12) from frame embeddings (B, T, D).

        Args:
            embeddings_BTD: the frame embeddings f_t.
            with_attention: True to return the frame attention too.
            cached_BT2W: the `MotionTokens.cacheable_parts` of these frames, if they are known from an overlapping window.
        """
        embedding_BD, attention_BT = self.temporal_encoder(embeddings_BTD, with_attention, cached_BT2W)
        logits_BK = self.head(embedding_BD)
        if self.moment_head is not None:
            logits_BK = logits_BK + self.moment_head(embeddings_BTD)
        return VideoEncoding(logits_BK, embedding_BD, attention_BT)

    def encode_prefixes(self, embeddings_BTD: Tensor) -> Tensor:
        """Return the logits after each frame, from this and earlier frames alone, in one pass: (B, T, D) -> (B, T, K).

        At index t they are those of `encode_video` for the first t + 1 frames. Raises ValueError unless the temporal encoder is
        `causal` or `recurrent`.
        """
        logits_BTK = self.head(self.temporal_encoder.prefixes(embeddings_BTD))
        if self.moment_head is None:
            return logits_BTK
        prefixes = (embeddings_BTD[:, : index + 1] for index in range(embeddings_BTD.shape[1]))
        return logits_BTK + torch.stack([self.moment_head(prefix_BTD) for prefix_BTD in prefixes], dim=1)

    def step_video(
        self, embeddings_BD: Tensor, state: RecurrentState | None = None
    ) -> tuple[VideoEncoding, RecurrentState]:
        """Return what `encode_video` does for all frames of B streams so far, given one more (B, D), and the state to go on from.

        A step takes the same time and memory however long a stream is. Raises ValueError unless `temporal="recurrent"`.

        Args:
            embeddings_BD: the embedding of one more frame of each stream.
            state: the result of the step before; None at the beginning.
        """
        embedding_BD, state = self.temporal_encoder.step(embeddings_BD, state)
        return VideoEncoding(self.head(embedding_BD), embedding_BD), state

    def normalise(self, frames_MCHW: Tensor) -> Tensor:
        """Return pixels in 0-1 as the frame encoder takes them: normalised, in its precision."""
        normalised_MCHW = (frames_MCHW.float() - self.pixel_mean) / self.pixel_std
        return normalised_MCHW.to(next(self.frame_encoder.parameters()).dtype)


class SpatialEncoder(nn.Module):
    """The ViT that encodes frames (Eqs. 1-4, 6-10): normalised pixels (M, C, H, W) -> (M, D).

    The parameter names are those of timm and of the 2021 release, so that both kinds of weights fit without renaming. With
    `layout="joint"` attention spans all patches of all frames (Eq. 5). With `"per_block"` each block also attends over time, at the
    same patch, after its spatial attention (end of section 3).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layout = config.layout
        self.cells_layer = config.cells_layer or middle_block(config.depth)
        self.grid = FrameGrid(config.width, config.cells, config.cell_width) if config.cells else None
        self.width = config.width + (0 if self.grid is None else self.grid.width)
        self.image_size_px = config.image_size
        side = config.image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side + 1, config.width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.layout != "factorised":
            # e_pos of Eq. 1 has an index for time too. It starts at zero, so that it does not disturb image weights.
            self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, 1, config.width))
        # If True, gradients are computed with less memory, by running each block a second time.
        self.checkpointing = False
        # If set, this takes the tokens through the blocks, merging some of them on the way (token_merging.py). In training it is
        # never used.
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
        tokens = self.tokens(frames_MCHW, num_frames)
        if self.grid is None:
            return self.read_out(self._through_blocks(self.blocks, tokens), num_frames)
        first, rest = self.blocks[: self.cells_layer], self.blocks[self.cells_layer :]
        middle = self._through_whole_blocks(first, tokens)
        last = self._through_blocks(rest, middle) if len(rest) else middle
        return torch.cat([self.read_out(last, num_frames), self.grid(self._map_of(middle, num_frames))], dim=1)

    def tokens(self, frames_MCHW: Tensor, num_frames: int = 1) -> Tensor:
        """Return the input of the first block (Eq. 1): (M, S, D); in `joint` (B, T*S, D), in `per_block` (B, T, S, D).

        Raises ValueError if the frames have another size than the model's.
        """
        (height, width), size = frames_MCHW.shape[-2:], self.image_size_px
        if (height, width) != (size, size):
            raise ValueError(f"frames are {width}x{height} px, this model takes {size}x{size}; see ViewConfig.crop_px")
        patches_MND = self.patch_embed(frames_MCHW)
        # len(patches_MND) would fix the number of frames in an exported graph.
        class_M1D = self.cls_token.expand(patches_MND.shape[0], -1, -1)
        tokens_MSD = torch.cat([class_M1D, patches_MND], dim=1) + self.pos_embed
        if self.layout == "factorised":
            return tokens_MSD
        time_1TD = resize_positions(self.time_embed.squeeze(2), num_frames, has_class=False)
        tokens_BTSD = tokens_MSD.unflatten(0, (-1, num_frames)) + time_1TD.unsqueeze(2)
        # Eq. 5: in `joint` the NF + F tokens of a video are one sequence.
        return tokens_BTSD.flatten(1, 2) if self.layout == "joint" else tokens_BTSD

    def read_out(self, tokens: Tensor, num_frames: int = 1) -> Tensor:
        """Return the class token of each frame after the last block (Eq. 10): tokens, in the shape of `tokens` -> (M, D)."""
        tokens = tokens.unflatten(1, (num_frames, -1)) if self.layout == "joint" else tokens
        return self.norm(tokens[..., 0, :].flatten(0, -2))

    def _map_of(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Return the patches of each frame at their places: tokens, in the shape of `tokens` -> (M, D, h, w)."""
        tokens = tokens.unflatten(1, (num_frames, -1)) if self.layout == "joint" else tokens
        patches_MND = tokens[..., 1:, :].flatten(0, -3)
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        return patches_MND.transpose(1, 2).unflatten(2, (side, side))

    def _through_blocks(self, blocks: nn.Module, tokens: Tensor) -> Tensor:
        """Return the tokens after the last of these blocks, by the faster way if there is one."""
        if self.walk is not None and not self.training:
            return self.walk(blocks, tokens)
        return self._through_whole_blocks(blocks, tokens)

    def _through_whole_blocks(self, blocks: nn.Module, tokens: Tensor) -> Tensor:
        """Return all tokens after the last of these blocks."""
        recompute = self.checkpointing and torch.is_grad_enabled()
        for block in blocks.children():
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return tokens


class PatchEmbed(nn.Module):
    """The projection E x_(p,t) of Eq. 1: each P x P patch is flattened and projected, (M, C, H, W) -> (M, N, D).

    It is computed as a convolution with stride P, which is the same.
    """

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, frames_MCHW: Tensor) -> Tensor:
        return self.proj(frames_MCHW).flatten(2).transpose(1, 2)


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
        # The block starts as the image block that its weights come from: until it is trained, the added branch gives zero.
        nn.init.zeros_(self.time_attn.proj.weight)
        nn.init.zeros_(self.time_attn.proj.bias)

    def forward(self, tokens_BTSD: Tensor) -> Tensor:
        tokens_BTSD = tokens_BTSD + self.drop(self.attn(self.norm1(tokens_BTSD)))
        tokens_BSTD = self.time_norm(tokens_BTSD).transpose(1, 2)
        tokens_BTSD = tokens_BTSD + self.drop(self.time_attn(tokens_BSTD).transpose(1, 2))
        return tokens_BTSD + self.drop(self.mlp(self.norm2(tokens_BTSD)))
