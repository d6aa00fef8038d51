"""This is where a block is denoised in training.

Legend: B batch, F frames, P previous frames, C h w latents, K user tokens a frame, E affect tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.batches import BlockBatch
from training.rollout import fixed_masks
from visavis.config import EchoConfig
from visavis.nn.echo import Echo


@dataclass(frozen=True)
class Conditions:
    """Whom B blocks listen to, and what counts."""

    user_tokens: Tensor  # (B, F, K, D_lcu)
    affect_tokens: Tensor  # (B, E, D_affect)
    present: Tensor  # (B, 2), 0 drops the avatar's voice or the user

    def rows(self, index: Sequence[int]) -> Conditions:
        """Some of the blocks."""
        rows = list(index)
        return Conditions(self.user_tokens[rows], self.affect_tokens[rows], self.present[rows])


def nobody(config: EchoConfig, heard: Tensor) -> Conditions:
    """An avatar that has nobody to listen to; `heard` (B,) is 1 where it hears its own voice."""
    lcu, affect, batch = config.lcu, config.affect, len(heard)
    return Conditions(
        heard.new_zeros(batch, config.block_frames, lcu.tokens_per_frame, lcu.width),
        heard.new_zeros(batch, affect.tokens, affect.width),
        torch.stack([heard, torch.zeros_like(heard)], dim=1),
    )


def denoise(
    echo: Echo, x_t: Tensor, t: Tensor, batch: BlockBatch, previous: Tensor, conditions: Conditions
) -> Tensor:
    """x_0 (B, F, C, h, w) float32 as the network predicts it from x_t at t (B, 1)."""
    prediction = echo.sdcm_denoiser(
        x_t,
        t,
        conditions.present,
        batch.reference_latents,
        previous,
        echo.reference_encoder.tokens(batch.reference_latents),
        conditions.affect_tokens,
        batch.avatar_audio_features,
        conditions.user_tokens,
        fixed_masks(echo, len(x_t)),
        batch.motion,
    )
    return prediction.float()


def denoise_at_once(
    echo: Echo, noise: Tensor, batch: BlockBatch, previous: Tensor, conditions: Conditions
) -> Tensor:
    """x_0 (B, F, C, h, w) float32 in one step from pure noise."""
    return denoise(echo, noise, noise.new_ones(len(noise), 1), batch, previous, conditions)
