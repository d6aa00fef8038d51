"""This is where a block in training is given what it will have before it when served.

A network that only ever saw true frames before its block falls apart when it is fed its own: its
small errors are new to it and add up. So a part of the context is what the network itself makes of
the block before (scheduled sampling: Bengio et al., 2015, arXiv 1506.03099; for video: Huang et
al., 2025, arXiv 2506.08009), another part is noisy, and another is the portrait, as at a start.

A network that always sees a true face before its block also learns to go on with that face and to
ask neither voice nor words what it is due to show; on its own it then shows nothing. So another
part has gone astray: it is of another moment, maybe with another expression, and the network must
find its way back to what is due (the copycat problem of imitation: de Haan et al., 2019, arXiv
1905.11979). The head is held elsewhere, too, unless the network is not told where it is to be.

Legend: B batch, F frames, P previous frames, C h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.batches import BlockBatch, Place, batch_of, stray
from training.denoising import Conditions, denoise_at_once
from training.precision import half_precision
from visavis.nn.echo import Echo
from visavis.sampler import context


@dataclass(frozen=True)
class ContextConfig:
    """What stands for the block before."""

    noise: float = 0.4  # the most noise on true previous latents
    noisy_share: float = 0.7  # of them that are noisy at all
    restart_share: float = 0.1  # whose previous latents are the portrait
    own_share: float = 0.35  # whose previous latents are the network's own
    stray_share: float = 0.0  # of the others, whose previous latents are of another moment


def previous_latents(
    echo: Echo,
    places: list[Place],
    batch: BlockBatch,
    conditions: Conditions,
    config: ContextConfig,
) -> tuple[Tensor, Tensor]:
    """What stands for the blocks before: (B, P, C, h, w), true, astray or roughened, the network's
    own, or the portrait; and (B, C, h, w), how far that has strayed from the last true frame.

    Args: conditions, those under which the network makes the block before.
    """
    true = batch.previous_latents
    own = [n for n in range(round(config.own_share * len(places))) if places[n].block > 0]
    others = [n for n in range(len(places)) if n not in own]
    lost = [n for n in others if torch.rand(()) < config.stray_share]
    given = true.clone()
    if lost:
        alike = "motion" in echo.config.without  # else it is told how to turn back
        strays = [stray(places[n], echo.config.block_frames, alike=alike) for n in lost]
        given[lost] = batch_of(strays, echo.config, echo.device).previous_latents
    strayed = (given - true)[:, -1]
    given = roughen(given, batch.reference_latents, config)
    if own:
        before = batch_of([places[n].later(-1) for n in own], echo.config, echo.device)
        given[own] = own_context(echo, before, conditions.rows(own))
    return given, strayed


@torch.no_grad()
def own_context(echo: Echo, before: BlockBatch, conditions: Conditions) -> Tensor:
    """(B, P, C, h, w): what the network makes of the block before, and will be told of it."""
    noise = torch.randn_like(before.x_0)
    with half_precision(echo.device):
        x_0 = denoise_at_once(echo, noise, before, before.previous_latents, conditions)
    frames = echo.config.denoiser.previous_frames
    return context(x_0, before.reference_latents[:, None], frames, echo.config.context_keep)


def roughen(previous: Tensor, reference: Tensor, config: ContextConfig) -> Tensor:
    """True previous latents (B, P, C, h, w) with noise, or the portrait in their place."""
    one_each = previous[:, :1, :1, :1, :1]
    scale = torch.rand_like(one_each) * config.noise
    scale = scale * (torch.rand_like(one_each) < config.noisy_share)
    restart = torch.rand_like(one_each) < config.restart_share
    noisy = previous + scale * torch.randn_like(previous)
    return torch.where(restart, reference[:, None].expand_as(previous), noisy)
