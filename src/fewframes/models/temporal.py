"""The temporal encoder: frame embeddings -> video embedding (Eqs. 7-9, 11-12). Letters in shapes as in model.py."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from fewframes.models.config import ModelConfig
from fewframes.models.layers import Block, continued_positions, resize_positions
from fewframes.models.motion import MotionTokens, slow_waves

log = logging.getLogger("fewframes")


class TemporalEncoder(nn.Module):
    """Video embedding y (Eq. 12) from frame embeddings f_t (Eq. 10): (B, T, D) -> (B, D').

    Styles: `paper` (Eqs. 7-9 over frames: LayerNorm before, GELU), `release` (what the authors published: LayerNorm
    after, ReLU), `mean` (Table 2: the mean of the frame embeddings, no parameters) and `causal` (as `paper`, but a frame looks
    at itself and earlier ones, and the last one stands for the video instead of a class token).

    What `causal` knows of a stream is its last T frame embeddings, one (T, D) tensor; fewer frames than it is built for are the
    beginning of a window, at the first positions.
    """

    def __init__(self, config: ModelConfig, frame_width: int) -> None:
        super().__init__()
        self.style = config.temporal
        self.causal = self.style == "causal"
        self.num_frames = config.num_frames
        self._said_interpolation = False
        width = config.motion_width
        self.motion = MotionTokens(frame_width, width, causal=self.causal) if width else None
        if self.style == "mean":
            self.width = config.motion_width or frame_width
            return
        self.width = config.temporal_width or frame_width
        token_width = config.motion_width or frame_width
        self.token_drop = nn.Dropout(config.token_dropout)
        self.proj = nn.Linear(token_width, self.width) if config.temporal_width else nn.Identity()
        num_class_tokens = 0 if self.causal else 1
        if num_class_tokens:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_class_tokens + config.num_frames, self.width))
        if num_class_tokens:
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        if config.temporal_positions == "waves":
            self.pos_embed.data[0, num_class_tokens:] = slow_waves(config.num_frames, self.width)
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
                causal=self.causal,
                dropout=config.temporal_dropout,
            )
            for _ in range(config.temporal_depth)
        )
        self.norm = nn.LayerNorm(self.width, eps=norm_eps)

    def forward(
        self, frames_BTD: Tensor, with_attention: bool = False, kept_BT2W: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if self.motion is None or kept_BT2W is None:
            return self.attend(self.tokens(frames_BTD), with_attention)
        return self.attend(self.motion.from_kept(frames_BTD, kept_BT2W), with_attention)

    def tokens(self, frames_BTD: Tensor) -> Tensor:
        """The part without trained weights: (B, T, D) -> (B, T, W), so that training can do it once."""
        return frames_BTD if self.motion is None else self.motion(frames_BTD)

    def attend(self, tokens_BTW: Tensor, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Video embedding and, when asked for, frame attention from `tokens`: (B, T, W) -> (B, D'), (B, T)."""
        num_videos, num_frames, _ = tokens_BTW.shape
        if self.style == "mean":
            uniform_BT = tokens_BTW.new_full((num_videos, num_frames), 1 / num_frames)
            return tokens_BTW.mean(dim=1), uniform_BT if with_attention else None
        tokens_BSD, attention_BT = self._through_blocks(tokens_BTW, with_attention)
        if self.causal:
            return self.norm(self._read_out(tokens_BSD)), attention_BT
        return self.norm(tokens_BSD[:, 0]), attention_BT  # Eq. 12

    def prefixes(self, frames_BTD: Tensor) -> Tensor:
        """The video embedding after each frame, from the frames up to it alone: (B, T, D) -> (B, T, D')."""
        if not self.causal:
            raise ValueError(
                f"temporal {self.style!r} looks at all frames of a window; answers in between need 'causal'"
            )
        tokens_BTD, _ = self._through_blocks(self.tokens(frames_BTD), with_attention=False)
        return self.norm(tokens_BTD)

    def _through_blocks(self, tokens_BTW: Tensor, with_attention: bool) -> tuple[Tensor, Tensor | None]:
        tokens_BSD = self.proj(self.token_drop(tokens_BTW))
        if not self.causal:
            # Not len(tokens_BSD), which would fix the number of videos in a trace.
            tokens_BSD = torch.cat([self.cls_token.expand(tokens_BSD.shape[0], -1, -1), tokens_BSD], dim=1)
        tokens_BSD = tokens_BSD + self._positions(tokens_BTW.shape[1])
        attention_BT = None
        for index, block in enumerate(self.blocks):
            if with_attention and index == len(self.blocks) - 1:
                assert isinstance(block, Block)
                attention_BT = self._frame_attention(block, tokens_BSD)
            tokens_BSD = block(tokens_BSD)
        return tokens_BSD, attention_BT

    def _frame_attention(self, block: Block, tokens_BSD: Tensor) -> Tensor:
        if self.causal:
            return block.weights_of(tokens_BSD, -1)
        weights_BT = block.weights_of(tokens_BSD, 0)[:, 1:]  # without the class token's look at itself
        return weights_BT / weights_BT.sum(dim=1, keepdim=True)

    def _read_out(self, tokens_BTD: Tensor) -> Tensor:
        """The last frame's token; in training that of a frame drawn from the later half, so that answers are learned that
        come before a window is full."""
        num_videos, num_frames, _ = tokens_BTD.shape
        if not self.training:
            return tokens_BTD[:, -1]
        places_B = torch.randint(num_frames // 2, num_frames, (num_videos,), device=tokens_BTD.device)
        return tokens_BTD[torch.arange(num_videos, device=tokens_BTD.device), places_B]

    def _positions(self, num_frames: int) -> Tensor:
        if torch.compiler.is_exporting():  # nothing in a graph may depend on which number of frames it was traced with
            if self.causal:
                return continued_positions(self.pos_embed, num_frames)
            return resize_positions(self.pos_embed, num_frames, has_class=True)
        if self.causal and num_frames < self.num_frames:
            return self.pos_embed[:, :num_frames]
        if num_frames != self.num_frames and not self._said_interpolation:
            self._said_interpolation = True
            log.warning(
                "this model was built for %d frames and is used with %d: its temporal positions are interpolated",
                self.num_frames,
                num_frames,
            )
        return resize_positions(self.pos_embed, num_frames, has_class=not self.causal)
