"""This is where a network in training talks through whole tracks, as it will when served.

Blocks follow each other: each is sampled from seeded noise, by the sampler that serving uses, and
its last latents are the next block's context.

Legend: B tracks, T frames, F block frames, C h w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.batches import ALIGNED_CENTERS, affect_words
from training.data import Track
from visavis.contract import lcu_state
from visavis.guidance import ConditionMask, Predict, guided
from visavis.nn.echo import Echo
from visavis.region import region_masks
from visavis.sampler import context, sample
from visavis.schedule import timesteps


@dataclass(frozen=True)
class RolloutConfig:
    """What is sampled: how long, in how many steps, under which conditions."""

    blocks: int = 60
    num_steps: int | None = None  # the size's own
    audio_guidance_scale: float = 1.0
    user_guidance_scale: float = 1.0
    with_user: bool = True  # False before stage 2, which teaches the network to listen
    teacher_forced: bool = False  # every block follows the true one, not the sampled one
    seed: int = 0


def fixed_masks(echo: Echo, batch: int) -> Tensor:
    """(B, 2, g, g) region masks of aligned crops."""
    centers = torch.tensor(ALIGNED_CENTERS).expand(batch, 2, 2)
    return region_masks(centers, echo.config.token_grid, exp=torch.exp)


def initial_lcu_state(echo: Echo, batch: int) -> list[Tensor]:
    """The LCU's state before a conversation: zeros."""
    return [torch.zeros(batch, *spec.dims) for spec in lcu_state(echo.config)]


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

    Args:
        avatars: whose faces; the first frame of each is the portrait.
        voices: whose speech drives the lips; their own when None. Swap it for the swap test.
        users: whose face and voice they listen to; their own partners when None.
    """
    config, batch = echo.config, len(avatars)
    voices = avatars if voices is None else voices
    users = [track.user for track in avatars] if users is None else users
    reference = stack([track.latents[0] for track in avatars])
    tokens = echo.reference_encoder.tokens(reference)
    masks = fixed_masks(echo, batch)
    previous = reference[:, None].repeat(1, config.denoiser.previous_frames, 1, 1, 1)
    state = initial_lcu_state(echo, batch)
    generator = torch.Generator().manual_seed(settings.seed)
    noise_shape = (1, config.block_frames, *config.latent_shape)
    condition = torch.tensor([1.0, float(settings.with_user)])
    num_steps = config.sampling.num_steps if settings.num_steps is None else settings.num_steps
    blocks = []
    for block in range(settings.blocks):
        user_tokens, state = listen(echo, users, [block] * batch, state)
        if settings.with_user:
            words = torch.from_numpy(np.stack([affect_words(t, block, config) for t in voices]))
            affect = echo.affect_encoder(words)
        else:
            affect = torch.zeros(batch, config.affect.tokens, config.affect.width)
        features = stack([track.avatar_features[block] for track in voices])
        predict = conditional(
            echo, condition, reference, previous, tokens, affect, features, user_tokens, masks
        )
        noise = torch.randn(noise_shape, generator=generator).expand(batch, -1, -1, -1, -1)
        denoise = guided(predict, settings.audio_guidance_scale, settings.user_guidance_scale)
        latents = sample(denoise, noise, timesteps(num_steps))
        blocks.append(latents)
        if settings.teacher_forced:
            latents = block_latents(avatars, block, config.block_frames)
        previous = context(
            latents, reference[:, None], config.denoiser.previous_frames, config.context_keep
        )
    return torch.cat(blocks, dim=1)


def block_latents(tracks: Sequence[Track], block: int, frames: int) -> Tensor:
    """The true latents (B, F, C, h, w) of a block."""
    return stack([track.latents[block * frames : (block + 1) * frames] for track in tracks])


def conditional(echo: Echo, allowed: Tensor, *conditions: Tensor) -> Predict:
    """The network as `guided` asks for it: one x_0 a condition mask.

    Args: allowed (2,), 0 for a condition that is dropped whatever the mask; conditions, the
    denoiser's inputs from `reference_latents` on.
    """

    def predict(x_t: Tensor, t: float, masks: Sequence[ConditionMask]) -> list[Tensor]:
        timestep = torch.full((len(x_t), 1), t)
        kept = [(torch.tensor(mask) * allowed).expand(len(x_t), 2) for mask in masks]
        return [echo.sdcm_denoiser(x_t, timestep, mask, *conditions) for mask in kept]

    return predict


def listen(
    echo: Echo, users: Sequence[Track], blocks: Sequence[int], state: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """One block of the LCU a user: f_pu of the block before `blocks[n]`, and the next state."""
    frames = echo.config.block_frames
    pairs = list(zip(users, blocks, strict=True))
    features = stack([user.user_features[block] for user, block in pairs])
    latents = stack([user_latents(user, block, frames) for user, block in pairs])
    valid = torch.tensor([[float(block > 0)] * 2 for block in blocks])
    index = torch.tensor(blocks)[:, None]
    user_tokens, *state = echo.lcu_encoder(features, latents, valid, index, *state)
    return user_tokens, state


def user_latents(user: Track, block: int, frames: int) -> np.ndarray:
    """(F, C, h, w) latents of the user's face in the block before; zeros before the first."""
    if block == 0:
        return np.zeros_like(user.latents[:frames])
    return user.latents[(block - 1) * frames : block * frames]
