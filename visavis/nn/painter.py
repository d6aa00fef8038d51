"""This is where latents become pictures: the VAE's decoder, which paints with the portrait.

Most of a talking head's picture is in its portrait already: hair, skin, clothes and background,
sharper than any latent keeps them. So the decoder looks at the latents and at their change since
the portrait, moves the portrait's pixels to where they belong now, and paints over where nothing
can be moved there: an opened mouth, a closed lid, what a turned head uncovers. That is the warp and
occlusion mask of image animation (Siarohin et al., 2019, First Order Motion Model, arXiv
2003.00196, §3.2-3.3), with latents in the place of keypoints. What is uncertain in the latents then
becomes a sharp face that moves less, not a blurred one.

Constant width, as in TAESD, wastes CPU: here width tapers as resolution grows and the last
enlargement is a pixel shuffle, which decodes 4-9 times faster at like quality on two cores.

Legend: B batch, H W pixels, C h w latents, s pixels a side that come from one place of the trunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.config import EchoConfig
from visavis.nn.residual import Double, ResidualBlock

PAINTED_OVER_LOGIT = -1.0  # at first: what moves well is to be found before what paints well


class Painted(NamedTuple):
    """Pictures, about [0, 1] and not clamped, the moved portrait in them, and what covers it."""

    images: Tensor  # (B, 3, H, W)
    moved_portrait: Tensor  # (B, 3, H, W)
    cover: Tensor  # (B, 1, H, W) in [0, 1]


class Painter(nn.Module):
    """Raw latents (B, C, h, w), the portrait's, and the portrait (B, 3, H, W) -> pictures.

    H and W may be of any size that the latents fit, so a part of a picture can be painted alone.
    """

    def __init__(self, config: EchoConfig):
        super().__init__()
        vae = config.vae
        width, pixels = vae.decoder_widths[-1], vae.shuffle**2
        self.shuffle = vae.shuffle
        self.trunk = _trunk(config)
        self.paint = nn.Conv2d(width, 3 * pixels, 3, padding=1)
        self.cover = nn.Conv2d(width, pixels, 3, padding=1)  # how much is painted over, a logit
        self.flow = nn.Conv2d(width, 2, 3, padding=1)  # right and down, in places of the trunk
        for convolution, start in ((self.flow, 0.0), (self.cover, PAINTED_OVER_LOGIT)):
            assert convolution.bias is not None
            nn.init.zeros_(convolution.weight)
            nn.init.constant_(convolution.bias, start)

    def forward(self, latents: Tensor, reference_latents: Tensor, portrait: Tensor) -> Painted:
        h = self.trunk(torch.cat([latents, latents - reference_latents], dim=1))
        painted = F.pixel_shuffle(self.paint(h), self.shuffle)
        cover = torch.sigmoid(F.pixel_shuffle(self.cover(h), self.shuffle))
        moved = moved_by(portrait, self.shuffle * self.flow(h))
        return Painted(moved + cover * (painted - moved), moved, cover)


def moved_by(images: Tensor, flow: Tensor) -> Tensor:
    """(B, 3, H, W) whose every pixel is taken `flow` pixels (right, down) away from its place.

    Args: images (B, 3, H, W); flow (B, 2, h, w), enlarged to the picture's size.
    """
    height, width = images.shape[-2:]
    flow = F.interpolate(
        flow.float(), scale_factor=height // flow.shape[-2], mode="bilinear", align_corners=False
    )
    # Pixels' centres in the coordinates of grid_sample, where the picture goes from -1 to 1.
    x = (2 * torch.arange(width, device=flow.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=flow.device) + 1) / height - 1
    places = torch.stack(
        [x + flow[:, 0] * (2 / width), y[:, None] + flow[:, 1] * (2 / height)], dim=-1
    )
    return F.grid_sample(images, places, padding_mode="border", align_corners=False)


def _trunk(config: EchoConfig) -> nn.Sequential:
    vae = config.vae
    first = nn.Conv2d(2 * config.latent_channels, vae.decoder_widths[0], 3, padding=1)
    layers: list[nn.Module] = [first, nn.ReLU()]
    widths = (*vae.decoder_widths, None)
    for width, depth, following in zip(widths, vae.decoder_depths, widths[1:], strict=False):
        assert width is not None
        layers += [ResidualBlock(width) for _ in range(depth)]
        if following is not None and vae.shortcuts:
            layers += [Double(width, following)]
        elif following is not None:
            layers += [nn.Conv2d(width, 4 * following, 1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
