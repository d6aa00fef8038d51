"""This is where a prediction of clean latents is judged.

Legend: B batch, F frames, C h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FlowConfig:
    """How timesteps are drawn and errors weighed."""

    pure_noise_share: float = 0.35  # of timesteps that are 1, where every sampling run begins
    lip_weight: float = 3.0  # weight at the centre of the mouth; 1 elsewhere
    motion_weight: float = 1.0  # of the error of frame-to-frame differences
    smallest_timestep: float = 0.05


def draw_timesteps(x_0: Tensor, config: FlowConfig) -> Tensor:
    """(B, 1) timesteps: logit-normal (Esser et al., 2024, arXiv 2403.03206) and a share of 1s."""
    t = torch.sigmoid(torch.randn(len(x_0), 1, device=x_0.device))
    t = t.clamp(min=config.smallest_timestep)
    return torch.where(torch.rand_like(t) < config.pure_noise_share, torch.ones_like(t), t)


def add_noise(x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The straight path of flow matching: x_t = (1 − t)·x_0 + t·noise; t is (B, 1)."""
    t = t[:, :, None, None, None]
    return (1 - t) * x_0 + t * noise


def noisy(x_0: Tensor, config: FlowConfig) -> tuple[Tensor, Tensor]:
    """x_t (B, F, C, h, w) and its t (B, 1), drawn for clean latents x_0."""
    t = draw_timesteps(x_0, config)
    return add_noise(x_0, torch.randn_like(x_0), t), t


def lip_map(latents: Tensor, weight: float) -> Tensor:
    """(h, w) weights of latents: `weight` at the mouth of an aligned crop, falling to 1."""
    size = latents.shape[-1]
    axis = (torch.arange(size, device=latents.device) + 0.5) / size
    y, x = axis[:, None], axis[None, :]
    return 1 + (weight - 1) * torch.exp(-(((x - 0.5) / 0.16) ** 2) - ((y - 0.70) / 0.14) ** 2)


def flow_loss(
    prediction: Tensor, x_0: Tensor, strayed: Tensor, t: Tensor, config: FlowConfig
) -> Tensor:
    """Squared error of x_0 and of its motion, over t (so that early and late steps count alike).

    Args: prediction and x_0 (B, F, C, h, w); strayed (B, C, h, w), by how much the latents that the
    network was given of the frame before differ from the true ones (0 where they are meant to be
    the true ones); t (B, 1). Motion is measured from the given frame: a way back is smooth.
    """
    weight = lip_map(x_0, config.lip_weight) / t[:, :, None, None, None]
    error = prediction - x_0
    before = torch.cat([strayed[:, None], error[:, :-1]], dim=1)
    motion = error - before  # the error of differences
    return (weight * error**2).mean() + config.motion_weight * (weight * motion**2).mean()


def swap_loss(
    prediction: Tensor, swapped: Tensor, speaking: Tensor, t: Tensor, config: FlowConfig
) -> Tensor:
    """How much of a speaking mouth changes with the user: squared, weighed as in `flow_loss`.

    SDCM keeps the user out of the lips' cross-attention, but self-attention lets it in again. While
    the avatar speaks its lips are its voice's alone; while it listens a smile may reach them.

    Args: prediction and swapped (B, F, C, h, w), x_0 under two users; speaking (B, F); t (B, 1).
    """
    lips = config.lip_weight * (lip_map(prediction, 2.0) - 1)
    weight = speaking[:, :, None, None, None] * lips / t[:, :, None, None, None]
    return (weight * (prediction - swapped) ** 2).mean()
