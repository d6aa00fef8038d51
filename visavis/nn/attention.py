"""This is where attention, its feed-forward partner and the timestep embedding live.

Legend: B batch, Q query tokens, K context tokens, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys (Henry et al., 2020, QK-norm).

    Args of `forward`:
        x: (B, Q, D) float32, the queries.
        context: (B, K, D_context) float32; None attends to `x` itself.
        mask: bool, broadcastable to (B, heads, Q, K), True where attention is allowed. A row must
            never be fully False: runtimes disagree on what its softmax is.
    Returns (B, Q, D) float32.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None):
        super().__init__()
        self.heads = heads
        head_width = width // heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width or width, 2 * width)
        self.out = nn.Linear(width, width)
        self.query_scale = nn.Parameter(torch.ones(head_width))
        self.key_scale = nn.Parameter(torch.ones(head_width))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        context = x if context is None else context
        query = self._split(self.query(x))  # (B, heads, Q, d)
        key, value = self.key_value(context).chunk(2, dim=-1)
        key, value = self._split(key), self._split(value)  # (B, heads, K, d)
        query = root_mean_square_norm(query) * self.query_scale.to(query.dtype)
        key = root_mean_square_norm(key) * self.key_scale.to(key.dtype)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def root_mean_square_norm(x: Tensor) -> Tensor:
    """x over the root mean square of its last axis, in the type of x."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class FeedForward(nn.Module):
    """Two linear layers around a GELU: (..., D) -> (..., D)."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.expand = nn.Linear(width, ratio * width)
        self.contract = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


class TransformerLayer(nn.Module):
    """A pre-norm encoder layer: (B, Q, D) -> (B, Q, D)."""

    def __init__(self, width: int, heads: int, ratio: int = 2):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ratio)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask=mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


def sinusoidal_embedding(position: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of `position`: (...,) float32 -> (..., width) float32 (Vaswani, 2017)."""
    half = width // 2
    frequency = torch.exp(
        torch.arange(half, dtype=torch.float32, device=position.device)
        * (-math.log(max_period) / half)
    )
    angle = position[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
