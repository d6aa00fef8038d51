"""This is where a size small enough for tests is described: every part, none of them wide."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from visavis.config import (
    AffectConfig,
    AudioEncoderConfig,
    DenoiserConfig,
    EchoConfig,
    LCUConfig,
    MotionConfig,
    VAEConfig,
)

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def tiny() -> EchoConfig:
    """32×32 pictures, 4 tokens a frame."""
    return EchoConfig(
        name="tiny",
        image_size=32,
        latent_channels=4,
        latent_size=4,
        audio=AudioEncoderConfig(
            width=16, layers=2, heads=2, window_frames=12, tapped_layers=(1, 2)
        ),
        vae=VAEConfig(
            encoder_widths=(8, 8),
            encoder_depths=(1, 1),
            decoder_widths=(8, 8),
            decoder_depths=(1, 1),
            shuffle=4,
        ),
        lcu=LCUConfig(
            width=16, heads=2, scan_state=4, video_grid=2, memory_tokens=4, memory_stride_blocks=2
        ),
        affect=AffectConfig(width=16, heads=2, layers=1, vocabulary=64, max_words=8, tokens=2),
        denoiser=DenoiserConfig(
            width=32,
            depth=2,
            heads=2,
            mlp_ratio=2,
            patch=2,
            stem_width=8,
            reference_tokens=4,
            gate_groups=4,
        ),
        motion=MotionConfig(width=32, pose_codes=64, lids_codes=16, gaze_codes=4),
    )


def restless(network: NetworkT) -> NetworkT:
    """An untrained avatar is its own portrait; this one moves, as its conditions have it."""
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return network
