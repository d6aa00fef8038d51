"""This is where the long conversation is understood: LCU's High-level Behaviour-grounded Context
Understanding (ECHO, Fig. 2).

    S_usr = last hidden states of Φ( P_think | memory of V_usr, A_usr )
    f_pu  = ξ_GCA( f_align(S_usr), P_usr )

Φ reads a memory of pooled tokens, one for every few blocks, so minutes fit in a short sequence. Its
hidden states at the last positions, not its text, are taken, as in the paper. The paper's Φ is
large and its name is not given; this one is small, learned, and reads what it is fed.

Legend: B batch, F frames, K tokens a frame, M memory tokens, R outputs of Φ, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.attention import Attention, FeedForward, TransformerLayer


class ContextMemory(nn.Module):
    """What the LCU keeps of the past: a sliding row of pooled tokens, the newest last.

    Every block adds its pooled perception to a running mean; every `memory_stride_blocks` blocks
    the mean becomes a memory token and the oldest one leaves.
    """

    def __init__(self, config: EchoConfig):
        super().__init__()
        self.stride = config.lcu.memory_stride_blocks
        self.pool = nn.Linear(config.lcu.width, config.lcu.width)

    def forward(
        self, perceived: Tensor, memory: Tensor, summary: Tensor, block_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """perceived (B, F, K, D), memory (B, M, D), summary (B, D), block_index (B, 1) int64."""
        pooled = self.pooled(perceived)
        phase = block_index % self.stride  # (B, 1)
        weight = 1.0 / (phase + 1).to(pooled.dtype)
        summary = summary + (pooled - summary) * weight  # phase 0 starts a new mean
        full = (phase == self.stride - 1)[:, :, None]  # (B, 1, 1)
        shifted = torch.cat([memory[:, 1:], summary[:, None]], dim=1)
        return torch.where(full, shifted, memory), summary

    def pooled(self, perceived: Tensor) -> Tensor:
        """What is kept of a block: perceived (…, F, K, D) -> (…, D)."""
        return torch.tanh(self.pool(perceived.mean(dim=(-3, -2))))


class Understanding(nn.Module):
    """Φ and f_align: memory (B, M, D) and summary (B, D) -> S_usr (B, R, D)."""

    def __init__(self, config: EchoConfig):
        super().__init__()
        lcu = config.lcu
        self.outputs = lcu.understanding_outputs
        self.think = nn.Parameter(torch.randn(lcu.think_tokens, lcu.width) * 0.02)
        self.read = nn.Parameter(torch.randn(lcu.understanding_outputs, lcu.width) * 0.02)
        self.age = nn.Parameter(torch.randn(lcu.memory_tokens + 1, lcu.width) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(lcu.width, lcu.heads) for _ in range(lcu.understanding_layers)
        )
        self.align = nn.Sequential(nn.LayerNorm(lcu.width), nn.Linear(lcu.width, lcu.width))

    def forward(self, memory: Tensor, summary: Tensor) -> Tensor:
        batch = memory.shape[0]
        past = torch.cat([memory, summary[:, None]], dim=1) + self.age
        prompt = self.think.expand(batch, -1, -1)
        tokens = torch.cat([prompt, past, self.read.expand(batch, -1, -1)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.align(tokens[:, -self.outputs :])


class GatedCrossAttention(nn.Module):
    """ξ_GCA: P_usr asks, S_usr answers, a learned gate (zero at first) lets the answer in."""

    def __init__(self, config: EchoConfig):
        super().__init__()
        lcu = config.lcu
        self.norm = nn.LayerNorm(lcu.width)
        self.attention = Attention(lcu.width, lcu.heads)
        self.gate = nn.Parameter(torch.full((1,), 0.1))
        self.feed_forward_norm = nn.LayerNorm(lcu.width)
        self.feed_forward = FeedForward(lcu.width, 2)

    def forward(self, perceived: Tensor, understood: Tensor | None) -> Tensor:
        """perceived (B, F, K, D) and understood (B, R, D) or nothing -> f_pu (B, F, K, D)."""
        frames = perceived.shape[1]
        x = perceived.flatten(1, 2)
        if understood is not None:
            x = x + torch.tanh(self.gate) * self.attention(self.norm(x), understood)
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return x.unflatten(1, (frames, -1))
