"""This is where a selective state-space scan runs over a sequence and hands its state on.

The recurrence is Mamba-2's, with one scalar decay a head (Dao & Gu, 2024, arXiv 2405.21060, §6):

    state_t = exp(-Δ_t · a) · state_{t-1} + Δ_t · x_t ⊗ B_t
    y_t     = state_t · C_t + d · x_t

It is computed with matrices only, because a loop in an exported graph is slow: in its "quadratic"
form within short chunks, and from chunk to chunk by what each leaves. Every exponent is ≤ 0, so
nothing overflows.

Legend: B batch, T steps, n chunks, Q steps of a chunk, D width, H heads, P head width, N state
size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_STEPS = 20  # a long sequence is cut into chunks of this many steps, or of a divisor of it


def decays(total: Tensor) -> Tensor:
    """(…, T), log decays summed up -> (…, T, T): what is left at a step (row) of what came in at
    another (column).

    What comes in at a step has passed that step's decay already; nothing is left before it came.
    """
    steps = total.shape[-1]
    causal = torch.ones(steps, steps, dtype=torch.bool, device=total.device).tril()
    span = total[..., :, None] - total[..., None, :]  # ≤ 0 where causal
    return torch.exp(torch.where(causal, span, torch.full_like(span, -1e4)))


def selective_scan(
    x: Tensor, log_decay: Tensor, input_gate: Tensor, output_gate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The scan of a whole sequence at once: within chunks, then from chunk to chunk (op. cit., §6).

    Args:
        x: (B, T, H, P) float32, already multiplied by Δ.
        log_decay: (B, T, H) float32, ≤ 0: the log of what each step keeps.
        input_gate: (B, T, N) float32, B_t.
        output_gate: (B, T, N) float32, C_t.
        state: (B, H, P, N) float32, as the previous block left it.
    Returns y (B, T, H, P) and the state after the last step (B, H, P, N).
    """
    chunk = math.gcd(x.shape[1], CHUNK_STEPS)  # Q; there are n of them
    values = x.unflatten(1, (-1, chunk)).permute(0, 1, 3, 4, 2)  # (B, n, H, P, Q)
    total = log_decay.unflatten(1, (-1, chunk)).transpose(2, 3).cumsum(dim=3)  # (B, n, H, Q)
    into = input_gate.unflatten(1, (-1, chunk))[:, :, None]  # (B, n, 1, Q, N)
    out_of = output_gate.unflatten(1, (-1, chunk))[:, :, None].transpose(3, 4)  # (B, n, 1, N, Q)

    kept = decays(total)  # (B, n, H, Q, Q)
    mixing = (into @ out_of) * kept.transpose(3, 4)
    y = values @ mixing  # (B, n, H, P, Q)

    added = (values * kept[..., -1:, :]) @ into  # (B, n, H, P, N), what each chunk leaves
    states = torch.cat([state[:, None], added], dim=1).permute(0, 2, 1, 3, 4)  # (B, H, n + 1, P, N)
    passed = F.pad(total[..., -1], (0, 0, 1, 0)).cumsum(dim=1).transpose(1, 2)  # (B, H, n + 1)
    states = (decays(passed) @ states.flatten(3)).unflatten(3, state.shape[2:])
    before = states[:, :, :-1].transpose(1, 2)  # (B, n, H, P, N), where each chunk begins

    y = y + (before @ out_of) * torch.exp(total)[..., None, :]
    return y.permute(0, 1, 4, 2, 3).flatten(1, 2), states[:, :, -1]


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
