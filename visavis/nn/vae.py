"""This is where pictures become latents and latents pictures again.

Constant width, as in TAESD, wastes CPU: here width tapers as resolution grows and the last
enlargement is a pixel shuffle, which decodes 4-9 times faster at like quality on two cores.

Legend: B batch, N pictures, H W pixels, C h w latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.config import EchoConfig

# The posterior's log variance is kept in a range where its exponential is harmless.
LOG_VARIANCE_RANGE = (-12.0, 4.0)


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


def _decoder(config: EchoConfig) -> nn.Sequential:
    vae, channels = config.vae, config.latent_channels
    layers: list[nn.Module] = [nn.Conv2d(channels, vae.decoder_widths[0], 3, padding=1), nn.ReLU()]
    widths = (*vae.decoder_widths, None)
    for width, depth, following in zip(widths, vae.decoder_depths, widths[1:], strict=False):
        assert width is not None
        layers += [ResidualBlock(width) for _ in range(depth)]
        if following is not None and vae.shortcuts:
            layers += [Double(width, following)]
        elif following is not None:
            layers += [nn.Conv2d(width, 4 * following, 1), nn.PixelShuffle(2)]
    layers += [nn.Conv2d(vae.decoder_widths[-1], 3 * vae.shuffle**2, 3, padding=1)]
    layers += [nn.PixelShuffle(vae.shuffle)]
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
        self.decoder = _decoder(config)
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

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [0, 1] and not clamped, of normalised latents (B, C, h, w)."""
        return self.decoder(latents * self.latent_std + self.latent_mean)


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
    """The served decoder: `latents` (B, N, C, h, w) -> `frames` (B, N, H, W, 3) uint8."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, vae: VAE):
        super().__init__()
        self.decoder = vae.decoder
        self.register_buffer("latent_mean", vae.latent_mean)
        self.register_buffer("latent_std", vae.latent_std)

    def forward(self, latents: Tensor) -> Tensor:
        pixels = self.decoder(latents.flatten(0, 1) * self.latent_std + self.latent_mean)
        frames = (pixels.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)
        return frames.unflatten(0, latents.shape[:2])
