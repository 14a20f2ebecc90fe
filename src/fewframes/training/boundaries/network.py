"""The network of the detector in torch, for training. models/boundaries/network.py runs the same weights in numpy.

Letters in shapes: B sequences, N times, F features, H hidden width, K actions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.models.boundaries.features import NUM_CONTENT
from fewframes.models.boundaries.network import DILATIONS, EPS, HIDDEN, NUM_LEVELS

Level = tuple[Tensor, Tensor, Tensor]
"""The logits (B, N) of an action going on, the logits (B, K, N) of each action, and the distances (B, 2, N) in frames."""
CONTENT_DROPOUT, DROPOUT = 0.5, 0.1
RARE = -3.0
"""The first bias of logits: actions are rare at first."""


class _Block(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN, eps=EPS)
        self.over_time = nn.Conv1d(HIDDEN, HIDDEN, 3, padding=dilation, dilation=dilation)
        self.within = nn.Conv1d(HIDDEN, HIDDEN, 1)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, hidden_BHN: Tensor) -> Tensor:
        normed_BHN = self.norm(hidden_BHN.transpose(1, 2)).transpose(1, 2)
        added: Tensor = self.dropout(self.within(F.relu(self.over_time(normed_BHN))))
        return hidden_BHN + added


class DetectorNetwork(nn.Module):
    """The network of the detector.

    In training whole directions of content are left out at random, so that places that it has not seen matter less than changes.

    Args:
        num_features: F.
        num_labels: K.
    """

    def __init__(self, num_features: int, num_labels: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(num_features, HIDDEN, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(dilation) for dilation in DILATIONS)
        self.levels = nn.ModuleList(_Block(1) for _ in range(NUM_LEVELS))
        self.happening = nn.Conv1d(HIDDEN, 1, 3, padding=1)
        self.labels = nn.Conv1d(HIDDEN, num_labels, 3, padding=1)
        self.distances = nn.Conv1d(HIDDEN, 2, 3, padding=1)
        self.scales = nn.Parameter(torch.zeros(NUM_LEVELS))
        for output in (self.happening, self.labels):
            assert output.bias is not None
            nn.init.constant_(output.bias, RARE)

    def forward(self, features_BNF: Tensor) -> list[Level]:
        """Return the output of each level for features (B, N, F)."""
        hidden_BHN = self.enter(self._without_some_content(features_BNF).transpose(1, 2))
        for block in self.blocks:
            hidden_BHN = block(hidden_BHN)
        outputs: list[Level] = []
        for number, level in enumerate(self.levels):
            hidden_BHN = level(F.avg_pool1d(hidden_BHN, 2, ceil_mode=True) if number else hidden_BHN)
            distances_B2N = F.softplus(self.distances(hidden_BHN) + self.scales[number]) * 2**number
            outputs.append((self.happening(hidden_BHN)[:, 0], self.labels(hidden_BHN), distances_B2N))
        return outputs

    def _without_some_content(self, features_BNF: Tensor) -> Tensor:
        if not self.training:
            return features_BNF
        kept_B1F = torch.ones(len(features_BNF), 1, features_BNF.shape[2])
        drawn = torch.rand(len(features_BNF), 1, NUM_CONTENT)
        kept_B1F[..., :NUM_CONTENT] = (drawn >= CONTENT_DROPOUT).float() / (1 - CONTENT_DROPOUT)
        return features_BNF * kept_B1F
