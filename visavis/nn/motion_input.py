"""This is where the denoiser is told how a head is to move (see `visavis.motion`).

Told to all tokens alike, a network needs long to find out what a turn does to each place of a face.
What it does there is nearly linear for the few degrees that heads turn in talk, so every place has
maps of its own: of the convolutional planes, where a turned head is the planes' own slope times the
turn, and of the tokens. All blocks are modulated too, a frame each.

Legend: B batch, F frames, M numbers of motion, S stem width, h w latents, N tokens a frame,
D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis import motion
from visavis.config import EchoConfig


class MotionInput(nn.Module):
    """Maps of motion (B, F, M), all zero at first."""

    scales: Tensor

    def __init__(self, config: EchoConfig):
        super().__init__()
        denoiser, numbers, size = config.denoiser, len(motion.NAMES), config.latent_size
        self.register_buffer("scales", torch.tensor(motion.SCALES), persistent=False)
        self.slope = nn.Parameter(torch.zeros(numbers, denoiser.stem_width, size, size))
        self.shift = nn.Parameter(torch.zeros(numbers, denoiser.stem_width, size, size))
        self.token = nn.Parameter(torch.zeros(numbers, config.token_grid**2, denoiser.width))
        self.modulate = nn.Linear(numbers, 6 * denoiser.width, bias=False)
        nn.init.zeros_(self.modulate.weight)

    def planes(self, planes: Tensor, told: Tensor) -> Tensor:
        """Planes (B·F, S, h, w) of a head that has moved as `told` (B, F, M)."""
        flat = (told / self.scales).flatten(0, 1)
        slope, shift = (
            (flat @ maps.flatten(1)).unflatten(1, maps.shape[1:])
            for maps in (self.slope, self.shift)
        )
        return planes + planes * slope + shift

    def tokens(self, told: Tensor) -> Tensor:
        """(B, F, N, D), to add to the tokens."""
        return ((told / self.scales) @ self.token.flatten(1)).unflatten(2, self.token.shape[1:])

    def modulation(self, told: Tensor) -> Tensor:
        """(B, F, 6, D), to add to the shared modulation."""
        return self.modulate(told / self.scales).unflatten(2, (6, -1))
