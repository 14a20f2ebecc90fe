"""Several tokens of each frame for the temporal encoder: one for each cell of the frame, and one for the whole of it.

A frame embedding with cells holds the pooled features (or the class token) first, then the numbers of the cells, channel by channel
(`FrameGrid`). It is cached as it is; here it is taken apart. The cells of a frame come first, and its pooled token last: with
causal attention the last token of a frame then sees all of that frame and of the frames before, and nothing later.

The letters in shapes are those of stam.py; K are the tokens of a frame here, cells**2 + 1, and W is the width of a motion token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewframes.models.config import ModelConfig
from fewframes.models.motion import WAVE_STD, MotionTokens


class FrameTokens(nn.Module):
    """The tokens of frames with a position for each place: joined embeddings (B, T, D) -> (B, T, K, D').

    The pooled token and the cells have a linear projection each; all cells share theirs. A learned position of the place is added.
    """

    def __init__(self, config: ModelConfig, frame_width: int, width: int) -> None:
        super().__init__()
        assert config.cell_width is not None  # ModelConfig checks it
        self.num_cells = config.cells**2
        self.num_tokens = self.num_cells + 1
        cell_width, pooled_width = config.cell_width, frame_width - self.num_cells * config.cell_width
        self.cell_width = cell_width
        self.motion_width = motion_width = config.motion_width
        self.pooled_proj = nn.Linear(motion_width or pooled_width, width)
        self.cell_proj = nn.Linear(motion_width or cell_width, width)
        self.place_embed = nn.Parameter(torch.zeros(1, self.num_tokens, width))
        # As with the positions in time: a hundred videos do not teach anything to positions that start near zero.
        nn.init.trunc_normal_(self.place_embed, std=WAVE_STD if config.temporal_positions == "waves" else 0.02)

    def forward(self, tokens_BTW: Tensor) -> Tensor:
        if self.motion_width:
            tokens_BTKW = tokens_BTW.unflatten(-1, (self.num_tokens, self.motion_width))
            cells, pooled = tokens_BTKW[..., :-1, :], tokens_BTKW[..., -1:, :]
        else:
            cells, pooled = split_cells(tokens_BTW, self.num_cells, self.cell_width)
            pooled = pooled.unsqueeze(-2)
        return torch.cat([self.cell_proj(cells), self.pooled_proj(pooled)], dim=-2) + self.place_embed


class CellMotionTokens(nn.Module):
    """The motion tokens of each token of a frame, joined: (B, T, D) -> (B, T, K * W).

    Pooled features and cells have a reduction each, fitted to data; all cells share theirs. The methods are those of
    `MotionTokens`, which this stands in for.
    """

    def __init__(self, config: ModelConfig, frame_width: int, *, causal: bool = False) -> None:
        super().__init__()
        assert config.cell_width is not None  # ModelConfig checks it
        self.num_cells, self.cell_width = config.cells**2, config.cell_width
        pooled_width = frame_width - self.num_cells * self.cell_width
        self.cells = MotionTokens(self.cell_width, config.motion_width, causal=causal)
        self.pooled = MotionTokens(pooled_width, config.motion_width, causal=causal)
        # True if the reductions came with a trained temporal encoder, which would not understand others.
        self.kept = False

    def forward(self, embeddings_BTD: Tensor) -> Tensor:
        cells_MTD, pooled_BTD = self._rows(embeddings_BTD)
        return self._joined(self.cells(cells_MTD), self.pooled(pooled_BTD))

    def step(self, previous_BD: Tensor, mean_BD: Tensor, embeddings_BD: Tensor) -> Tensor:
        """Return the causal tokens of one more frame (B, K * W); the arguments are those of `MotionTokens.step`."""
        parts = [
            split_cells(rows_BD, self.num_cells, self.cell_width) for rows_BD in (previous_BD, mean_BD, embeddings_BD)
        ]
        cells_MW = self.cells.step(*(cells_BCD.flatten(0, 1) for cells_BCD, _ in parts))
        pooled_BW = self.pooled.step(*(pooled_BD for _, pooled_BD in parts))
        return torch.cat([cells_MW.unflatten(0, (-1, self.num_cells)).flatten(1), pooled_BW], dim=-1)

    def cacheable_parts(self, previous_BD: Tensor, embeddings_BD: Tensor) -> Tensor:
        """Return the parts of frames' tokens that are the same in every window: (B, 2, K * W)."""
        before_BCD, before_BD = split_cells(previous_BD, self.num_cells, self.cell_width)
        cells_BCD, pooled_BD = split_cells(embeddings_BD, self.num_cells, self.cell_width)
        own_M2W = self.cells.cacheable_parts(before_BCD.flatten(0, 1), cells_BCD.flatten(0, 1))
        own_B2W = own_M2W.unflatten(0, cells_BCD.shape[:2]).transpose(1, 2).flatten(2)
        return torch.cat([own_B2W, self.pooled.cacheable_parts(before_BD, pooled_BD)], dim=-1)

    def from_cached(self, embeddings_BTD: Tensor, cached_BT2W: Tensor) -> Tensor:
        """Return the result of `forward` for less work, given the `cacheable_parts` (B, T, 2, K * W) of the frames."""
        cells_MTD, pooled_BTD = self._rows(embeddings_BTD)
        width = self.pooled.reduce.out_features
        cached_BT2KW = cached_BT2W.unflatten(-1, (-1, width))
        cached_MT2W = cached_BT2KW[..., :-1, :].permute(0, 3, 1, 2, 4).flatten(0, 1)
        return self._joined(
            self.cells.from_cached(cells_MTD, cached_MT2W),
            self.pooled.from_cached(pooled_BTD, cached_BT2KW[..., -1, :]),
        )

    def fit(self, embeddings_BTD: Tensor, generator: torch.Generator) -> None:
        """Fit both reductions to the frame embeddings of these videos; the generator draws what they draw."""
        cells_MTD, pooled_BTD = self._rows(embeddings_BTD)
        self.pooled.fit(pooled_BTD, generator)
        self.cells.fit(cells_MTD, generator)

    def _rows(self, embeddings_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return each cell as a video by itself, and the pooled features: (B * cells, T, cell width) and (B, T, pooled width)."""
        cells_BTCD, pooled_BTD = split_cells(embeddings_BTD, self.num_cells, self.cell_width)
        return cells_BTCD.transpose(1, 2).flatten(0, 1), pooled_BTD

    def _joined(self, cells_MTW: Tensor, pooled_BTW: Tensor) -> Tensor:
        """Return the tokens of each frame in a row, cells first: (B, T, K * W)."""
        cells_BTCW = cells_MTW.unflatten(0, (-1, self.num_cells)).transpose(1, 2)
        return torch.cat([cells_BTCW.flatten(2), pooled_BTW], dim=-1)


def split_cells(embeddings: Tensor, num_cells: int, cell_width: int) -> tuple[Tensor, Tensor]:
    """Return the parts of frame embeddings (..., D): cells (..., num_cells, cell_width) and pooled features (..., the rest)."""
    width = num_cells * cell_width
    cells = embeddings[..., -width:].unflatten(-1, (cell_width, num_cells)).transpose(-1, -2)
    return cells, embeddings[..., :-width]


def motion_tokens(config: ModelConfig, frame_width: int) -> MotionTokens | CellMotionTokens:
    """Return the motion tokens of a model whose motion_width is above 0: of whole frames, or of each token of a frame."""
    if config.cell_tokens:
        return CellMotionTokens(config, frame_width, causal=config.is_causal)
    return MotionTokens(frame_width, config.motion_width, causal=config.is_causal)
