"""This is where the avatar's voice becomes what its face attends to.

Every frame sees its own short window of speech features, some from before and some from after it:
a token for each.

Legend: B batch, F frames, A audio feature frames, S audio tokens a frame, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.config import EchoConfig


class AudioTokens(nn.Module):
    """Each frame's own window of the avatar's voice: (B, A, D_audio) -> (B, F, S, D)."""

    window: Tensor

    def __init__(self, config: EchoConfig):
        super().__init__()
        self.register_buffer("window", window_of(config), persistent=False)
        span, width = self.window.shape[1], config.denoiser.width
        self.project = nn.Linear(config.audio.feature_width, width)
        self.norm = nn.LayerNorm(width)
        self.position = nn.Parameter(torch.randn(span, width) * 0.02)
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """features (B, A, D_audio); present (B, 1, 1): 0 puts a learned absence for the voice."""
        tokens = self.norm(self.project(features))
        tokens = present * tokens + (1 - present) * self.absent
        return tokens[:, self.window] + self.position


def window_of(config: EchoConfig) -> Tensor:
    """(F, S) int64: which of the A feature frames each frame of a block sees."""
    lookback, lookahead = config.denoiser.audio_lookback_frames, config.lookahead_frames
    first = config.audio.feature_frames - config.block_frames - lookahead - lookback
    frames = torch.arange(config.block_frames)[:, None]
    return first + frames + torch.arange(lookback + 1 + lookahead)
