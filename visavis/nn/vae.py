"""This is where pictures become latents, and latents with a portrait pictures again.

Legend: B batch, N pictures, H W pixels, C h w latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.painter import Painter
from visavis.nn.residual import Halve, ResidualBlock

# The posterior's log variance is kept in a range where its exponential is harmless.
LOG_VARIANCE_RANGE = (-12.0, 4.0)


def _encoder(config: EchoConfig) -> nn.Sequential:
    vae, channels = config.vae, 3 * config.vae.unshuffle**2
    layers: list[nn.Module] = [nn.PixelUnshuffle(vae.unshuffle)]
    for level, (width, depth) in enumerate(
        zip(vae.encoder_widths, vae.encoder_depths, strict=True)
    ):
        if level == 0:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        elif vae.shortcuts:
            layers += [Halve(channels, width)]
        else:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU()]
        layers += [ResidualBlock(width) for _ in range(depth)]
        channels = width
    layers += [nn.Conv2d(channels, 2 * config.latent_channels, 3, padding=1)]
    return nn.Sequential(*layers)


class VAE(nn.Module):
    """Both halves, and the statistics that bring latents to zero mean and unit variance.

    `encode` and `decode` speak normalised latents; `posterior` speaks raw ones and is for training.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: EchoConfig):
        super().__init__()
        self.encoder = _encoder(config)
        self.decoder = Painter(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(config.latent_channels, 1, 1))
        head = self.encoder[-1]
        assert isinstance(head, nn.Conv2d) and head.bias is not None
        nn.init.constant_(head.bias[config.latent_channels :], -4.0)  # start nearly deterministic

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (B, C, h, w), of images (B, 3, H, W) in [0, 1]."""
        mean, log_variance = self.encoder(images * 2 - 1).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def encode(self, images: Tensor) -> Tensor:
        """Normalised latents (B, C, h, w) of images (B, 3, H, W) in [0, 1]."""
        mean, _ = self.posterior(images)
        return (mean - self.latent_mean) / self.latent_std

    def decode(self, latents: Tensor, reference_latents: Tensor, portrait: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [0, 1] and not clamped, of normalised latents (B, C, h, w).

        Args: reference_latents (1 or B, C, h, w), normalised, of the portrait (1 or B, 3, H, W) in
        [0, 1], which all of the images show.
        """
        return self.decoder(
            self.raw(latents),
            self.raw(reference_latents).expand_as(latents),
            portrait.expand(len(latents), -1, -1, -1),
        ).images

    def raw(self, latents: Tensor) -> Tensor:
        """Latents as the two halves know them."""
        return latents * self.latent_std + self.latent_mean


class VAEEncoder(nn.Module):
    """The served encoder: `images` (B, N, H, W, 3) uint8 -> `image_latents` (B, N, C, h, w)."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, vae: VAE):
        super().__init__()
        self.encoder = vae.encoder
        self.register_buffer("latent_mean", vae.latent_mean)
        self.register_buffer("latent_std", vae.latent_std)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2).to(torch.float32) / 255
        mean, _ = self.encoder(pixels * 2 - 1).chunk(2, dim=1)
        return ((mean - self.latent_mean) / self.latent_std).unflatten(0, images.shape[:2])


class VAEDecoder(nn.Module):
    """The served decoder: `latents` (B, N, C, h, w), and the portrait that they were made for as
    `reference_latents` (B, C, h, w) and `portrait` (B, H, W, 3) uint8 -> `frames` (B, N, H, W, 3)
    uint8."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, vae: VAE):
        super().__init__()
        self.decoder = vae.decoder
        self.register_buffer("latent_mean", vae.latent_mean)
        self.register_buffer("latent_std", vae.latent_std)

    def forward(self, latents: Tensor, reference_latents: Tensor, portrait: Tensor) -> Tensor:
        batch, count = latents.shape[:2]
        pixels = portrait.permute(0, 3, 1, 2).to(torch.float32) / 255
        both = torch.stack([latents, reference_latents[:, None].expand_as(latents)])
        raw, reference = (both * self.latent_std + self.latent_mean).flatten(1, 2)
        pixels = pixels[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
        images = self.decoder(raw, reference, pixels).images
        frames = (images.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)
        return frames.unflatten(0, (batch, count))
