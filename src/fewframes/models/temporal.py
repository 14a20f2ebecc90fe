"""The temporal encoder, which makes a video embedding from frame embeddings (Eqs. 7-9, 11-12).

The letters in shapes are those of stam.py; W is the width of a token, which is D without motion tokens. With several tokens a
frame, W is that of all tokens of a frame in a row, and K is their number.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewframes.models.config import ModelConfig
from fewframes.models.layers import Block, continued_positions, resize_positions
from fewframes.models.motion import slow_waves
from fewframes.models.tokens.frame_tokens import FrameTokens, motion_tokens
from fewframes.models.tokens.recurrence import RecurrentBlock

log = logging.getLogger("fewframes")


@dataclass(frozen=True, eq=False)
class RecurrentState:
    """All that a recurrent encoder keeps of B streams: it does not grow with their length."""

    num_frames: int
    """The number of frames so far, at least 1."""
    previous: Tensor
    """The embeddings (B, D) of the last frames."""
    mean: Tensor
    """The mean embeddings (B, D) of all frames."""
    layers: tuple[Tensor, ...]
    """The state of each layer (B * K, D')."""


class TemporalEncoder(nn.Module):
    """An encoder from frame embeddings f_t (Eq. 10) to a video embedding y (Eq. 12): (B, T, D) -> (B, D').

    There are five styles:

    - `paper`: Eqs. 7-9 over frames, with LayerNorm before each branch and GELU.
    - `release`: the form that the authors published, with LayerNorm after each sum and ReLU.
    - `mean`: the mean of the frame embeddings, without parameters (Table 2).
    - `causal`: as `paper`, but a frame attends only to itself and earlier frames, and the last frame stands for the video instead
      of a class token.
    - `recurrent`: a gated recurrence instead of attention (tokens/recurrence.py). The state after the last frame stands for the
      video. It has no positions in time, and takes any number of frames.

    With `cell_tokens`, all tokens of all frames are one sequence, each with the position of its frame and that of its place. The
    class token attends to them all; with `causal` the pooled token of the last frame does. With `recurrent` each place has its own
    states, by the same weights, and their mean over places is taken after the last layer.

    The whole state of a stream with `causal` is its last T frame embeddings, one (T, D) tensor. Fewer frames than the encoder is
    built for are the beginning of a window, and have the first positions.
    """

    def __init__(self, config: ModelConfig, frame_width: int) -> None:
        super().__init__()
        self.style = config.temporal
        self.causal, self.recurrent = config.is_causal, self.style == "recurrent"
        self.num_frames = config.num_frames
        self._warned = False  # of interpolated positions
        self.motion = motion_tokens(config, frame_width) if config.motion_width else None
        self.num_tokens = 1  # of a frame
        if self.style == "mean":
            self.width = config.motion_width or frame_width
            return
        self.width = config.temporal_width or frame_width
        token_width = config.motion_width or frame_width
        self.token_drop = nn.Dropout(config.token_dropout)
        self.proj: nn.Module
        if config.cell_tokens:
            self.proj = FrameTokens(config, frame_width, self.width)
            self.num_tokens = self.proj.num_tokens
        elif config.temporal_width or token_width != self.width:
            self.proj = nn.Linear(token_width, self.width)
        else:
            self.proj = nn.Identity()
        if not self.recurrent:
            self._start_positions(config)
        post_norm = self.style == "release"
        norm_eps = 1e-5 if post_norm else config.norm_eps
        self.blocks = nn.ModuleList(self._block(config, norm_eps) for _ in range(config.temporal_depth))
        self.norm = nn.LayerNorm(self.width, eps=norm_eps)
        if post_norm:
            self._start_as_released()

    def _block(self, config: ModelConfig, norm_eps: float) -> nn.Module:
        """Return one layer."""
        mlp_width = config.temporal_mlp_width or 4 * self.width
        if self.recurrent:
            return RecurrentBlock(self.width, mlp_width=mlp_width, norm_eps=norm_eps, dropout=config.temporal_dropout)
        return Block(
            self.width,
            config.temporal_heads,
            mlp_width=mlp_width,
            norm_eps=norm_eps,
            post_norm=self.style == "release",
            causal=self.causal,
            dropout=config.temporal_dropout,
        )

    def _start_positions(self, config: ModelConfig) -> None:
        """Make the class token, if there is one, and the positions in time."""
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

    def _start_as_released(self) -> None:
        """Draw the first weights of the layers as the release's training code does.

        Matrices are normal with a spread of 0.02 and biases are zero. The matrix of queries, keys and values is not reached by the
        release's own code. It has torch's Glorot start, and is the same in each layer, because torch copies one layer.
        """
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        first, *others = (block.attn.qkv for block in self.blocks if isinstance(block, Block))
        nn.init.xavier_uniform_(first.weight)
        for qkv in others:
            qkv.weight.data.copy_(first.weight.data)

    def forward(
        self, embeddings_BTD: Tensor, with_attention: bool = False, cached_BT2W: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if self.motion is None or cached_BT2W is None:
            return self.attend(self.tokens(embeddings_BTD), with_attention)
        return self.attend(self.motion.from_cached(embeddings_BTD, cached_BT2W), with_attention)

    def tokens(self, embeddings_BTD: Tensor) -> Tensor:
        """Return the input of the first layer: (B, T, D) -> (B, T, W). Nothing here is trained, so training computes it once."""
        return embeddings_BTD if self.motion is None else self.motion(embeddings_BTD)

    def attend(self, tokens_BTW: Tensor, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return the video embedding (B, D') and, if asked for, the frame attention (B, T) from the result of `tokens`."""
        num_videos, num_frames, _ = tokens_BTW.shape
        if self.style == "mean":
            uniform_BT = tokens_BTW.new_full((num_videos, num_frames), 1 / num_frames)
            return tokens_BTW.mean(dim=1), uniform_BT if with_attention else None
        tokens_BSD, attention_BT = self._through_blocks(tokens_BTW, with_attention)
        if self.causal:
            return self.norm(self._read_out(self._of_frames(tokens_BSD))), attention_BT
        return self.norm(tokens_BSD[:, 0]), attention_BT  # Eq. 12

    def prefixes(self, embeddings_BTD: Tensor) -> Tensor:
        """Return the video embedding after each frame, from this and earlier frames alone: (B, T, D) -> (B, T, D').

        Raises ValueError unless the style is `causal` or `recurrent`.
        """
        if not self.causal:
            raise ValueError(
                f"temporal {self.style!r} attends to all frames of a window; an answer after each frame needs 'causal' or "
                "'recurrent'"
            )
        tokens_BSD, _ = self._through_blocks(self.tokens(embeddings_BTD), with_attention=False)
        return self.norm(self._of_frames(tokens_BSD))

    def _through_blocks(self, tokens_BTW: Tensor, with_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Return the tokens (B, S, D') after the last layer and, if asked for, the frame attention (B, T) of that layer."""
        tokens_BSD = self.proj(self.token_drop(tokens_BTW))
        if self.recurrent:
            return self._through_time(tokens_BSD, with_attention)
        if self.num_tokens > 1:
            tokens_BSD = tokens_BSD.flatten(1, 2)
        if not self.causal:
            # len(tokens_BSD) would fix the number of videos in an exported graph.
            tokens_BSD = torch.cat([self.cls_token.expand(tokens_BSD.shape[0], -1, -1), tokens_BSD], dim=1)
        tokens_BSD = tokens_BSD + self._for_all_tokens(self._positions(tokens_BTW.shape[1]))
        attention_BT = None
        for index, block in enumerate(self.blocks):
            if with_attention and index == len(self.blocks) - 1:
                assert isinstance(block, Block)
                attention_BT = self._frame_attention(block, tokens_BSD)
            tokens_BSD = block(tokens_BSD)
        return tokens_BSD, attention_BT

    def step(self, embeddings_BD: Tensor, state: RecurrentState | None) -> tuple[Tensor, RecurrentState]:
        """Return the video embedding (B, D') after one more frame of each of B streams, and the new state.

        The result is that of `forward` for all frames since the state was None.

        Raises ValueError unless the style is `recurrent`.
        """
        if not self.recurrent:
            raise ValueError(f"temporal {self.style!r} keeps no state of a stream; it needs 'recurrent'")
        if state is None:
            num_rows = len(embeddings_BD) * self.num_tokens
            zeros = tuple(embeddings_BD.new_zeros(num_rows, self.width) for _ in self.blocks)
            state = RecurrentState(0, embeddings_BD, torch.zeros_like(embeddings_BD), zeros)
        count = state.num_frames + 1
        mean_BD = state.mean + (embeddings_BD - state.mean) / count
        tokens_BW = embeddings_BD
        if self.motion is not None:
            tokens_BW = self.motion.step(state.previous, mean_BD, embeddings_BD)
        tokens_RD = self.proj(tokens_BW).reshape(-1, self.width)
        layers = []
        for block, layer_RD in zip(self.blocks, state.layers, strict=True):
            assert isinstance(block, RecurrentBlock)
            tokens_RD, after_RD = block.step(layer_RD, tokens_RD)
            layers.append(after_RD)
        embedding_BD = self.norm(tokens_RD.unflatten(0, (-1, self.num_tokens)).mean(dim=1))
        return embedding_BD, RecurrentState(count, embeddings_BD, mean_BD, tuple(layers))

    def _through_time(self, tokens: Tensor, with_attention: bool) -> tuple[Tensor, Tensor | None]:
        """Return the result of `_through_blocks` of recurrent layers, from tokens (B, T, D') or (B, T, K, D').

        The attention to a frame is its share in the last state of the last layer.
        """
        is_many = self.num_tokens > 1
        tokens_RTD = tokens.transpose(1, 2).flatten(0, 1) if is_many else tokens
        attention_BT = None
        for index, block in enumerate(self.blocks):
            assert isinstance(block, RecurrentBlock)
            if with_attention and index == len(self.blocks) - 1:
                shares_RT = block.last_shares(tokens_RTD)
                shares_BT = shares_RT.unflatten(0, (-1, self.num_tokens)).mean(dim=1)
                attention_BT = shares_BT / shares_BT.sum(dim=1, keepdim=True)
            tokens_RTD = block(tokens_RTD)
        if is_many:
            tokens_RTD = tokens_RTD.unflatten(0, (-1, self.num_tokens)).transpose(1, 2).flatten(1, 2)
        return tokens_RTD, attention_BT

    def _frame_attention(self, block: Block, tokens_BSD: Tensor) -> Tensor:
        """Return the attention (B, T) to each frame in this layer: that of the class token, or of the last frame if causal."""
        if self.causal:
            return self._sum_of_frames(block.weights_of(tokens_BSD, -1))
        weights_BS = block.weights_of(tokens_BSD, 0)[:, 1:]  # without the attention of the class token to itself
        weights_BT = self._sum_of_frames(weights_BS)
        return weights_BT / weights_BT.sum(dim=1, keepdim=True)

    def _sum_of_frames(self, weights_BS: Tensor) -> Tensor:
        """Return the sum of the weights of each frame's tokens: (B, T * K) -> (B, T)."""
        return weights_BS if self.num_tokens == 1 else weights_BS.unflatten(1, (-1, self.num_tokens)).sum(dim=2)

    def _of_frames(self, tokens_BSD: Tensor) -> Tensor:
        """Return the token of each frame: its last one, or the mean of all if recurrent: (B, T * K, D') -> (B, T, D')."""
        if self.num_tokens == 1:
            return tokens_BSD
        tokens_BTKD = tokens_BSD.unflatten(1, (-1, self.num_tokens))
        return tokens_BTKD.mean(dim=2) if self.recurrent else tokens_BTKD[:, :, -1]

    def _for_all_tokens(self, positions_1SD: Tensor) -> Tensor:
        """Return the positions of a class token, if there is one, and of frames, once for each token of a frame."""
        if self.num_tokens == 1:
            return positions_1SD
        num_class_tokens = 0 if self.causal else 1
        frames_1TKD = positions_1SD[:, num_class_tokens:, None].expand(-1, -1, self.num_tokens, -1)
        return torch.cat([positions_1SD[:, :num_class_tokens], frames_1TKD.flatten(1, 2)], dim=1)

    def _read_out(self, tokens_BTD: Tensor) -> Tensor:
        """Return the token of the last frame: (B, T, D') -> (B, D').

        In training a frame of the later half is drawn instead, so that the model also learns to answer before a window is full.
        """
        num_videos, num_frames, _ = tokens_BTD.shape
        if not self.training:
            return tokens_BTD[:, -1]
        index_B = torch.randint(num_frames // 2, num_frames, (num_videos,), device=tokens_BTD.device)
        return tokens_BTD[torch.arange(num_videos, device=tokens_BTD.device), index_B]

    def _positions(self, num_frames: int) -> Tensor:
        """Return the positions (1, S, D') for so many frames. Logs a warning, once, if they are interpolated."""
        if torch.compiler.is_exporting():  # a graph must not depend on the number of frames that it was traced with
            if self.causal:
                return continued_positions(self.pos_embed, num_frames)
            return resize_positions(self.pos_embed, num_frames, has_class=True)
        interpolated = num_frames > self.num_frames if self.causal else num_frames != self.num_frames
        if interpolated and not self._warned:
            self._warned = True
            log.warning(
                "this model was built for %d frames and is used with %d: its temporal positions are interpolated",
                self.num_frames,
                num_frames,
            )
        return self.positions_for(num_frames)

    def positions_for(self, num_frames: int) -> Tensor:
        """Return the positions (1, S, D') for so many frames: its own, interpolated, or the first ones if the style is `causal`."""
        if self.causal and num_frames < self.num_frames:
            return self.pos_embed[:, :num_frames]
        return resize_positions(self.pos_embed, num_frames, has_class=not self.causal)
