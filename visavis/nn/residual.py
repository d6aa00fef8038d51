"""This is where the convolutional blocks stand that the VAE and the denoiser are made of.

Legend: B batch, C h w channels and places.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Halve(nn.Module):
    """(B, C, h, w) -> (B, C', h/2, w/2): a strided convolution beside plain averaging.

    The shortcut, without parameters, folds 2×2 positions into channels and averages neighbours
    (Chen et al., 2024, DC-AE, arXiv 2410.10733, §3.1), so colour and form pass from the first step
    on and the convolutions learn the rest.
    """

    def __init__(self, width: int, following: int):
        super().__init__()
        self.following = following
        self.convolution = nn.Conv2d(width, following, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(x, 2).unflatten(1, (self.following, -1))
        return self.convolution(x) + folded.mean(2)


class Double(nn.Module):
    """(B, C, h, w) -> (B, C', 2h, 2w): the counterpart of `Halve`, which repeats channels."""

    def __init__(self, width: int, following: int):
        super().__init__()
        self.repeats = 4 * following // width
        self.convolution = nn.Conv2d(width, 4 * following, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.convolution(x) + x.repeat_interleave(self.repeats, dim=1), 2)
