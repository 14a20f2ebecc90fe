"""A gated recurrence over time: computed for all frames at once, or frame by frame with one state of fixed size.

h_t = (1 - z_t) h_(t-1) + z_t c_t, in which the gate z_t = sigmoid(W_z x_t) and the candidate c_t = W_c x_t depend on the input of
their own time alone (minGRU of Feng et al., "Were RNNs All We Needed?", 2024, without its nonlinearity on c_t). So all times are
linear in the states, and a scan computes them together. h before the first frame is zero.

The letters in shapes are those of stam.py; R are rows, which do not see each other: each token of each video is one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewframes.models.layers import Mlp


class GatedRecurrence(nn.Module):
    """The recurrence with an output projection: (R, T, D) -> (R, T, D). Row t depends on the rows up to t alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.candidate = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        # Gates from a few frames' memory to that of a long window: 1 - z is 0.5 to 0.98 at the start.
        with torch.no_grad():
            self.gate.bias.copy_(torch.linspace(0, -4, width))

    def forward(self, tokens_RTD: Tensor) -> Tensor:
        gates, candidates = self.gate(tokens_RTD), self.candidate(tokens_RTD)
        if torch.compiler.is_exporting():  # a graph is for any number of frames; the steps of a scan depend on it
            shares_RTTD = self._shares(gates)
            return self.proj(torch.einsum("rtsd,rsd->rtd", shares_RTTD, candidates))
        return self.proj(scan(torch.sigmoid(-gates), torch.sigmoid(gates) * candidates))

    def step(self, state_RD: Tensor, tokens_RD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output for one more time, and the new state, both (R, D)."""
        gate_RD = self.gate(tokens_RD)
        state_RD = torch.sigmoid(-gate_RD) * state_RD + torch.sigmoid(gate_RD) * self.candidate(tokens_RD)
        return self.proj(state_RD), state_RD

    def last_shares(self, tokens_RTD: Tensor) -> Tensor:
        """Return the share of each time in the last state, mean over its numbers: (R, T). What no time has is the first state's."""
        return self._shares(self.gate(tokens_RTD))[:, -1].mean(dim=-1)

    def _shares(self, gates_RTD: Tensor) -> Tensor:
        """Return the share of the candidate of time s in the state of time t: (R, T, T, D), with 0 for s > t."""
        # The share is z_s times the product of 1 - z_r for s < r <= t: a difference of sums of logarithms.
        kept_RTD = F.logsigmoid(-gates_RTD).cumsum(dim=1)
        log_RTTD = kept_RTD[:, :, None] - kept_RTD[:, None] + F.logsigmoid(gates_RTD)[:, None]
        ones_T = gates_RTD.new_ones(gates_RTD.shape[1])
        times_T = ones_T.cumsum(dim=0)
        later_TT = times_T[:, None] < times_T[None]
        return log_RTTD.masked_fill(later_TT[None, :, :, None], float("-inf")).exp()


def scan(kept_RTD: Tensor, added_RTD: Tensor) -> Tensor:
    """Return all states h_t = kept_t h_(t-1) + added_t, from zero, in log2 T passes: (R, T, D) -> (R, T, D).

    After the pass of length n, each time holds the sum of the last 2 n times: two neighbouring spans are joined in each.
    """
    num_times, length = kept_RTD.shape[1], 1
    while length < num_times:
        earlier = num_times - length
        joined_RTD = added_RTD[:, length:] + kept_RTD[:, length:] * added_RTD[:, :earlier]
        added_RTD = torch.cat([added_RTD[:, :length], joined_RTD], dim=1)
        kept_RTD = torch.cat([kept_RTD[:, :length], kept_RTD[:, length:] * kept_RTD[:, :earlier]], dim=1)
        length *= 2
    return added_RTD


class RecurrentBlock(nn.Module):
    """A layer with the recurrence in place of attention, LayerNorm before each branch, and GELU: (R, T, D) -> (R, T, D)."""

    def __init__(self, width: int, *, mlp_width: int, norm_eps: float = 1e-6, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.mix = GatedRecurrence(width)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, mlp_width)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens_RTD: Tensor) -> Tensor:
        tokens_RTD = tokens_RTD + self.drop(self.mix(self.norm1(tokens_RTD)))
        return tokens_RTD + self.drop(self.mlp(self.norm2(tokens_RTD)))

    def step(self, state_RD: Tensor, tokens_RD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output for one more time, and the new state, both (R, D), as in eval mode."""
        mixed_RD, state_RD = self.mix.step(state_RD, self.norm1(tokens_RD))
        tokens_RD = tokens_RD + mixed_RD
        return tokens_RD + self.mlp(self.norm2(tokens_RD)), state_RD

    def last_shares(self, tokens_RTD: Tensor) -> Tensor:
        """Return the share of each time of this layer's input in its last state: (R, T, D) -> (R, T)."""
        return self.mix.last_shares(self.norm1(tokens_RTD))
