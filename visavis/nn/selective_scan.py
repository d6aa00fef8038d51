"""This is where a selective state-space scan runs over a sequence and hands its state on.

The recurrence is Mamba-2's, with one scalar decay a head (Dao & Gu, 2024, arXiv 2405.21060, §6):

    state_t = exp(-Δ_t · a) · state_{t-1} + Δ_t · x_t ⊗ B_t
    y_t     = state_t · C_t + d · x_t

It is computed in its "quadratic" form, matrices only, because a block is short and a loop in an
exported graph is slow. Every exponent is ≤ 0, so nothing overflows.

Legend: B batch, T steps, D width, H heads, P head width, N state size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def selective_scan(
    x: Tensor, log_decay: Tensor, input_gate: Tensor, output_gate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The scan of a whole block at once.

    Args:
        x: (B, T, H, P) float32, already multiplied by Δ.
        log_decay: (B, T, H) float32, ≤ 0: the log of what each step keeps.
        input_gate: (B, T, N) float32, B_t.
        output_gate: (B, T, N) float32, C_t.
        state: (B, H, P, N) float32, as the previous block left it.
    Returns y (B, T, H, P) and the state after the last step (B, H, P, N).
    """
    total = log_decay.cumsum(dim=1).transpose(1, 2)  # (B, H, T)
    steps = x.shape[1]
    causal = torch.ones(steps, steps, dtype=torch.bool, device=x.device).tril()
    span = total[..., :, None] - total[..., None, :]  # (B, H, T, T), ≤ 0 where causal
    decay = torch.exp(torch.where(causal, span, torch.full_like(span, -1e4)))

    pairs = output_gate @ input_gate.transpose(1, 2)  # (B, T, T)
    mixing = (pairs[:, None] * decay).transpose(2, 3)  # (B, H, S, T)
    x_heads = x.permute(0, 2, 3, 1)  # (B, H, P, T)
    y = x_heads @ mixing  # (B, H, P, T)

    carried = state @ output_gate.transpose(1, 2)[:, None]  # (B, H, P, T)
    y = y + carried * torch.exp(total)[:, :, None]

    remaining = torch.exp(total[..., -1:] - total)  # (B, H, T)
    added = (x_heads * remaining[:, :, None]) @ input_gate[:, None]  # (B, H, P, N)
    next_state = state * torch.exp(total[..., -1])[..., None, None] + added
    return y.permute(0, 3, 1, 2), next_state


class SelectiveScan(nn.Module):
    """A gated selective scan with its own projections, residual not included.

    Args of `forward`: x (B, T, D) float32 and state (B, H, P, N) float32.
    Returns (B, T, D) float32 and the next state.
    """

    def __init__(self, width: int, heads: int, state_size: int):
        super().__init__()
        self.heads, self.state_size = heads, state_size
        self.norm = nn.LayerNorm(width)
        self.values = nn.Linear(width, 2 * width)  # x and its output gate z
        self.gates = nn.Linear(width, 2 * state_size + heads)  # B_t, C_t, Δ_t
        self.skip = nn.Parameter(torch.ones(heads, 1))  # d
        # Decays from about 40 ms to about a minute at 25 steps a second: some heads forget fast,
        # some keep.
        self.log_rate = nn.Parameter(torch.linspace(0.0, -6.0, heads))  # log a
        self.delta_bias = nn.Parameter(torch.full((heads,), math.log(math.e - 1)))  # Δ = 1
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = self.norm(x)
        value, z = self.values(h).chunk(2, dim=-1)
        gates = self.gates(h)
        input_gate, output_gate, delta = gates.split(
            [self.state_size, self.state_size, self.heads], dim=-1
        )
        delta = F.softplus(delta + self.delta_bias)  # (B, T, H)
        heads = value.unflatten(-1, (self.heads, -1))  # (B, T, H, P)
        y, state = selective_scan(
            heads * delta[..., None],
            -delta * self.log_rate.exp(),
            input_gate / self.state_size**0.5,
            output_gate,
            state,
        )
        y = (y + self.skip * heads).flatten(2)
        return self.out(y * F.silu(z)), state
