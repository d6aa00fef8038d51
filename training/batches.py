"""This is where batches of blocks are drawn from the cache.

Legend: B batch, F block frames, P previous frames, C h w latents, A audio feature frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.data import Track
from visavis.affect import sentence, word_ids
from visavis.config import EchoConfig

# Aligned crops put the mouth and the face here; rows lip and face, columns x and y.
ALIGNED_CENTERS = ((0.50, 0.68), (0.50, 0.53))


@dataclass(frozen=True)
class BlockBatch:
    """What the denoiser needs of B blocks; all float32."""

    x_0: Tensor  # (B, F, C, h, w)
    previous_latents: Tensor  # (B, P, C, h, w)
    reference_latents: Tensor  # (B, C, h, w)
    avatar_audio_features: Tensor  # (B, A, D)
    word_ids: Tensor  # (B, W) int64


def block_of(
    track: Track, block: int, reference_frame: int, config: EchoConfig
) -> dict[str, np.ndarray]:
    """One block of one track; the frames before block 0 are the reference, as when serving."""
    frames, past = config.block_frames, config.denoiser.previous_frames
    first = block * frames
    reference = track.latents[reference_frame]
    before = [track.latents[n] if n >= 0 else reference for n in range(first - past, first)]
    return {
        "x_0": track.latents[first : first + frames],
        "previous_latents": np.stack(before),
        "reference_latents": reference,
        "avatar_audio_features": track.avatar_features[block],
    }


def affect_words(track: Track, block: int, config: EchoConfig) -> np.ndarray:
    """(W,) word ids of the sentence that states the avatar's emotion in this block."""
    frame = min(block * config.block_frames + config.block_frames // 2, len(track.frames) - 1)
    emotion = str(track.truth["emotion"][frame])
    return word_ids(sentence([emotion]), config.affect)


def collate(samples: list[dict[str, np.ndarray]], words: list[np.ndarray]) -> BlockBatch:
    """Stack samples into a batch."""
    stacked = {
        key: torch.from_numpy(np.stack([s[key] for s in samples]).astype(np.float32))
        for key in samples[0]
    }
    return BlockBatch(**stacked, word_ids=torch.from_numpy(np.stack(words)))


def draw_blocks(
    pool: list[Track], batch: int, config: EchoConfig, speaking_share: float
) -> BlockBatch:
    """B random blocks of random tracks, each with a random frame of its track as the portrait.

    People in a conversation are silent more than half of the time; `speaking_share` of the blocks
    are drawn where they speak.
    """
    samples, words = [], []
    for index in torch.randint(len(pool), (batch,)).tolist():
        track = pool[index]
        spoken = track.speaking_blocks(config.block_frames)
        if len(spoken) and torch.rand(()) < speaking_share:
            block = int(spoken[int(torch.randint(len(spoken), ()))])
        else:
            block = int(torch.randint(track.blocks, ()))
        reference = int(torch.randint(len(track.latents), ()))
        samples.append(block_of(track, block, reference, config))
        words.append(affect_words(track, block, config))
    return collate(samples, words)


def roughen(
    previous: Tensor, reference: Tensor, noise_scale: float, restart_share: float
) -> Tensor:
    """Previous latents as they are when serving: the model's own, or the portrait at a start.

    Noise on the context keeps long runs from drifting: the model learns to mend what it is given.
    """
    batch = previous.shape[0]
    scale = torch.rand(batch, 1, 1, 1, 1) * noise_scale * (torch.rand(batch, 1, 1, 1, 1) < 0.7)
    noisy = previous + scale * torch.randn_like(previous)
    restart = torch.rand(batch, 1, 1, 1, 1) < restart_share
    return torch.where(restart, reference[:, None].expand_as(previous), noisy)
