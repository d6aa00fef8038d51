"""This is where the portrait becomes what every block needs of it: tokens and region masks.

The paper feeds a CLIP image encoder's tokens to the cross-attention; no such weights are free to
ship here, so a small learned encoder reads the portrait's latents. It runs once a conversation.

Legend: B batch, C h w latents, g token grid, R reference tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.attention import Attention, TransformerLayer
from visavis.region import region_masks


class ReferenceEncoder(nn.Module):
    """The portrait's latents and the centres of its mouth and face -> tokens and soft masks.

    Args of `forward`: image_latents (B, 1, C, h, w) float32; region_centers (B, 2, 2) float32, rows
    lip and face, columns x and y, the picture's side being 1.
    Returns reference_latents (B, C, h, w), reference_tokens (B, R, D), region_masks (B, 2, g, g).
    """

    def __init__(self, config: EchoConfig):
        super().__init__()
        denoiser = config.denoiser
        self.grid = config.token_grid
        self.embed = nn.Conv2d(
            config.latent_channels, denoiser.width, denoiser.patch, denoiser.patch
        )
        self.position = nn.Parameter(torch.randn(self.grid**2, denoiser.width) * 0.02)
        self.layer = TransformerLayer(denoiser.width, denoiser.heads)
        self.queries = nn.Parameter(torch.randn(denoiser.reference_tokens, denoiser.width) * 0.02)
        self.pool = Attention(denoiser.width, denoiser.heads)
        self.norm = nn.LayerNorm(denoiser.width)

    def forward(
        self, image_latents: Tensor, region_centers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        latents = image_latents[:, 0]
        return latents, self.tokens(latents), region_masks(region_centers, self.grid, exp=torch.exp)

    def tokens(self, reference_latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, R, D)."""
        x = self.embed(reference_latents).flatten(2).transpose(1, 2) + self.position
        x = self.layer(x)
        queries = self.queries.expand(x.shape[0], -1, -1)
        return self.norm(self.pool(queries, x))
