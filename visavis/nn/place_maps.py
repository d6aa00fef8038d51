"""This is where the denoiser is told, in a few numbers, what every frame of a face is to do.

Such as how the head is turned (`visavis.motion`) and how far the mouth opens
(`visavis.nn.articulation`). Told to all tokens alike, a network needs long to find out what a
number does to each place of a face. What it does there is nearly linear for the little that faces
move in talk, so every place has maps of its own: of the convolutional planes, where a turned head
is the planes' own slope times the turn, and of the tokens. All blocks are modulated too, a frame
each.

Legend: B batch, F frames, M numbers, S stem width, h w latents, N tokens a frame, D width.
"""

from __future__ import annotations

from torch import Tensor, nn, zeros

from visavis.config import EchoConfig


class PlaceMaps(nn.Module):
    """Maps of numbers (B, F, M), each of a deviation of about 1; all maps are zero at first."""

    def __init__(self, config: EchoConfig, numbers: int):
        super().__init__()
        denoiser, size = config.denoiser, config.latent_size
        self.slope = nn.Parameter(zeros(numbers, denoiser.stem_width, size, size))
        self.shift = nn.Parameter(zeros(numbers, denoiser.stem_width, size, size))
        self.token = nn.Parameter(zeros(numbers, config.token_grid**2, denoiser.width))
        self.modulate = nn.Linear(numbers, 6 * denoiser.width, bias=False)
        nn.init.zeros_(self.modulate.weight)

    def planes(self, planes: Tensor, told: Tensor) -> Tensor:
        """Planes (B·F, S, h, w) of a face that does as `told` (B, F, M)."""
        flat = told.flatten(0, 1)
        slope, shift = (
            (flat @ maps.flatten(1)).unflatten(1, maps.shape[1:])
            for maps in (self.slope, self.shift)
        )
        return planes + planes * slope + shift

    def tokens(self, told: Tensor) -> Tensor:
        """(B, F, N, D), to add to the tokens."""
        return (told @ self.token.flatten(1)).unflatten(2, self.token.shape[1:])

    def modulation(self, told: Tensor) -> Tensor:
        """(B, F, 6, D), to add to the shared modulation."""
        return self.modulate(told).unflatten(2, (6, -1))
