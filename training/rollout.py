"""This is where a network in training talks through whole tracks, as it will when served.

Blocks follow each other: each is sampled from seeded noise, by the sampler that serving uses, and
its last latents are the next block's context.

Legend: B tracks, T frames, F block frames, C h w latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.batches import ALIGNED_CENTERS, Place, affect_words
from training.data import Track
from training.hearing import Hindrance, hear, heard_blocks
from visavis.config import FRAME_RATE_HZ, EchoConfig
from visavis.guidance import ConditionMask, Predict, guided
from visavis.motion import NAMES
from visavis.nn.echo import Echo
from visavis.region import region_masks
from visavis.sampler import context, sample, settled, settling_weights
from visavis.schedule import timesteps


@dataclass(frozen=True)
class RolloutConfig:
    """What is sampled: how long, in how many steps, under which conditions."""

    blocks: int = 60
    num_steps: int | None = None  # the size's own
    audio_guidance_scale: float = 1.0
    user_guidance_scale: float = 1.0
    with_user: bool = True  # False before stage 2, which teaches the network to listen
    window_blocks: int | None = None  # of the past that are heard; all that the memory holds
    told: bool = True  # what the server's built-in model reads in the transcript; else what is due
    seed: int = 0


def window_of(config: EchoConfig, seconds: float | None) -> int | None:
    """The blocks of so many seconds, as `RolloutConfig.window_blocks` takes them; None is all."""
    return None if seconds is None else round(seconds * FRAME_RATE_HZ / config.block_frames)


def fixed_masks(echo: Echo, batch: int) -> Tensor:
    """(B, 2, g, g) region masks of aligned crops."""
    centers = torch.tensor(ALIGNED_CENTERS, device=echo.device).expand(batch, 2, 2)
    return region_masks(centers, echo.config.token_grid, exp=torch.exp)


def stack(arrays: Sequence[np.ndarray]) -> Tensor:
    """(B, …) float32."""
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


@torch.inference_mode()
def rollout(
    echo: Echo,
    avatars: Sequence[Track],
    settings: RolloutConfig,
    *,
    voices: Sequence[Track] | None = None,
    users: Sequence[Track] | None = None,
) -> Tensor:
    """Latents (B, T, C, h, w) of avatars that speak with `voices` and listen to `users`.

    They are on the CPU, wherever the network is.

    Args:
        avatars: whose faces; the first frame of each is the portrait.
        voices: whose speech drives the lips; their own when None. Swap it for the swap test.
        users: whose face and voice they listen to; their own partners when None.
    """
    blocks = rolled_blocks(echo, avatars, settings, voices=voices, users=users)
    return torch.cat(list(blocks), dim=1).cpu()


@torch.inference_mode()
def rolled_blocks(
    echo: Echo,
    avatars: Sequence[Track],
    settings: RolloutConfig,
    *,
    voices: Sequence[Track] | None = None,
    users: Sequence[Track] | None = None,
) -> Iterator[Tensor]:
    """`rollout` as it goes: the latents (B, F, C, h, w) of one block after another.

    They are where the network is; nothing of the blocks before is kept, so talks may be long.
    """
    config, batch, device = echo.config, len(avatars), echo.device
    voices = avatars if voices is None else voices
    users = [track.user for track in avatars] if users is None else users
    reference = stack([track.latents[0] for track in avatars]).to(device)
    tokens = echo.reference_encoder.tokens(reference)
    masks = fixed_masks(echo, batch)
    previous = reference[:, None].repeat(1, config.denoiser.previous_frames, 1, 1, 1)
    condition = torch.tensor([1.0, float(settings.with_user)], device=device)
    num_steps = config.sampling.num_steps if settings.num_steps is None else settings.num_steps
    heard = user_tokens(echo, users, settings)
    motion = reference.new_zeros(batch, config.block_frames, len(NAMES))
    drawn = block_noise(config, batch, settings.blocks, settings.seed)
    for block, (noise, motion_noise) in enumerate(drawn):
        if settings.with_user:
            places = [
                Place(track, block, 0, settings.told, settings.window_blocks) for track in voices
            ]
            words = np.stack([affect_words(place, config) for place in places])
            affect = echo.affect_encoder(torch.from_numpy(words).to(device))
        else:
            affect = reference.new_zeros(batch, config.affect.tokens, config.affect.width)
        features = stack([track.avatar_features[block] for track in voices]).to(device)
        listened = heard[:, block]
        motion = echo.motion_prior(motion_noise.to(device), motion, features, listened, affect)
        predict = conditional(
            echo, condition, reference, previous, tokens, affect, features, listened, masks, motion
        )
        denoise = guided(predict, settings.audio_guidance_scale, settings.user_guidance_scale)
        latents = sample(denoise, noise.to(device), timesteps(num_steps))
        latents = settle(echo, latents, previous, reference)
        yield latents
        previous = context(
            latents, reference[:, None], config.denoiser.previous_frames, config.context_keep
        )


def settle(echo: Echo, latents: Tensor, previous: Tensor, reference: Tensor) -> Tensor:
    """`visavis.sampler.settled` of a block (B, F, C, h, w) after `previous` (B, P, C, h, w), with
    the portrait (B, C, h, w)."""
    weights = latents.new_tensor(settling_weights(echo.config.settling, latents.shape[1]))
    return settled(
        latents,
        previous,
        reference[:, None],
        echo.config.context_keep,
        weights[:, None, None, None],
    )


def block_noise(
    config: EchoConfig, batch: int, blocks: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The noise that each block begins with, (B, F, C, h, w), and its motion's, (B, N)."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(blocks):
        yield (
            torch.randn(batch, config.block_frames, *config.latent_shape, generator=generator),
            torch.empty(batch, config.motion.noise_width).exponential_(generator=generator),
        )


def user_tokens(
    echo: Echo,
    users: Sequence[Track],
    settings: RolloutConfig,
    *,
    hindrance: Hindrance | None = None,
) -> Tensor:
    """f_pu (B, blocks, F, K, D) of all blocks; zeros without a user, who then may be missing."""
    if not settings.with_user:
        lcu, frames = echo.config.lcu, echo.config.block_frames
        size = (len(users), settings.blocks, frames, lcu.tokens_per_frame, lcu.width)
        return torch.zeros(size, device=echo.device)
    if settings.window_blocks is None:
        return hear(echo, users, range(settings.blocks), settings.blocks, hindrance=hindrance)
    windows = [heard_blocks(echo, n, settings.window_blocks) for n in range(settings.blocks)]
    return torch.cat([hear(echo, users, w, 1, hindrance=hindrance) for w in windows], dim=1)


def conditional(echo: Echo, allowed: Tensor, *conditions: Tensor) -> Predict:
    """The network as `guided` asks for it: one x_0 a condition mask.

    Args: allowed (2,), 0 for a condition that is dropped whatever the mask; conditions, the
    denoiser's inputs from `reference_latents` on.
    """

    def predict(x_t: Tensor, t: float, masks: Sequence[ConditionMask]) -> list[Tensor]:
        timestep = x_t.new_full((len(x_t), 1), t)
        kept = [(allowed.new_tensor(mask) * allowed).expand(len(x_t), 2) for mask in masks]
        return [echo.sdcm_denoiser(x_t, timestep, mask, *conditions) for mask in kept]

    return predict
